"""The pages and examples run and print what they say; importing loads no model library."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from llama_index.core.llms import mock

import llama_index.retrievers.s3_attention as package

FOLDER = Path(__file__).parent.parent
DOCS = FOLDER.parent.parent / "docs"
PAGES = [FOLDER / "README.md", DOCS / "llama_index.md"]
EXAMPLES = sorted((DOCS / "examples").glob("llama_index_*.py"))
BLOCK = re.compile(r"^```py\n(.*?)^```\n(?:```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)


def trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_print_what_the_page_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, namespace = page.read_text(encoding="utf-8"), {"__name__": "__main__"}
    blocks = list(BLOCK.finditer(text))
    assert blocks
    for block in blocks:
        line = text.count("\n", 0, block.start()) + 1
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile("\n" * line + block[1], str(page), "exec"), namespace)
        assert trimmed(printed.getvalue()) == trimmed(block[2] or ""), f"{page.name}, line {line}"


@pytest.mark.parametrize(
    ("example", "lines"),
    [
        (
            "llama_index_query_engine",
            [
                "Query: My computer was stolen. What now?",
                "laptops[40:77] Report a stolen one to the help desk.",
            ],
        ),
        (
            "llama_index_postprocessor",
            ["3 nodes, 77 words", "- Report a stolen one to the help desk at once."],
        ),
        (
            "llama_index_citations",
            ["Source 1:", "Report a stolen one to the help desk.", "[1] is from laptops"],
        ),
        (
            "llama_index_workflow",
            [
                "Report a stolen one to the help desk. [laptops:40-77]",
                "The handbook does not say.",
            ],
        ),
        pytest.param(
            "llama_index_agent",
            [
                "[laptops:40-77] Report a stolen one to the help desk.",
                "Report a stolen one to the help desk. [laptops:40-77]",
            ],
            marks=pytest.mark.skipif(
                not hasattr(mock, "MockFunctionCallingLLM"), reason="llama-index-core is too old"
            ),
        ),
    ],
)
# LlamaIndex's agents look at attributes that pydantic deprecates.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
def test_examples_print_evidence(example, lines, capsys):
    runpy.run_path(str(DOCS / "examples" / f"{example}.py"), run_name="__main__")
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line in lines] == lines


def test_every_example_is_run():
    assert [path.stem for path in EXAMPLES] == [
        "llama_index_agent",
        "llama_index_citations",
        "llama_index_postprocessor",
        "llama_index_query_engine",
        "llama_index_workflow",
    ]


def test_importing_loads_no_model_library():
    code = """
import sys
import llama_index.core
before = set(sys.modules)
import llama_index.retrievers.s3_attention
new = set(sys.modules) - before
assert not {"torch", "transformers"} & new, new
from llama_index.retrievers.s3_attention import S3NodePostprocessor
S3NodePostprocessor().postprocess_nodes([], query_str="Anything?")
assert not {"torch", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_namespaces_are_nobodys():
    for folder in ("llama_index", "llama_index/retrievers"):
        assert not (FOLDER / folder / "__init__.py").exists()
    assert package.__all__ == ["S3NodePostprocessor", "S3Retriever"]
    assert (FOLDER / "llama_index/retrievers/s3_attention/py.typed").is_file()
