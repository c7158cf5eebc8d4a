"""The notebook of the documentation runs, offline, and shows what it did when it was written."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOK = Path(__file__).parent.parent / "docs/notebooks/getting-started.ipynb"


def shown(notebook) -> list[list[str]]:
    """What each cell of code shows: what it printed, and the kind of what it displayed."""
    return [
        [
            output["text"] if output["output_type"] == "stream" else "text/html"
            for output in cell.outputs
            if output.get("name") != "stderr" and "text/html" in output.get("data", ["text/html"])
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_notebook_runs_and_shows_what_it_did(tmp_path):
    written = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(written)
    run = nbformat.from_dict(written)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries of Jupyter
        nbclient.NotebookClient(
            run,
            timeout=300,
            kernel_name="python3",
            coalesce_streams=True,
            resources={"metadata": {"path": str(tmp_path)}},
        ).execute()
    assert shown(run) == shown(written)
    # An index, spans and an explanation.
    assert sum("text/html" in outputs for outputs in shown(run)) == 3
    assert not any(tmp_path.iterdir())


def test_outputs_are_small_and_name_no_machine():
    assert NOTEBOOK.stat().st_size < 40_000
    content = NOTEBOOK.read_text(encoding="utf-8")
    assert "/site-packages" not in content
    assert "object at 0x" not in content
