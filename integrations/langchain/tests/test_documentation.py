"""Examples and pages run and print what the pages show."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from pathlib import Path

import pytest

INTEGRATION = Path(__file__).parents[1]
DOCS = INTEGRATION.parents[1] / "docs"
PAGE = DOCS / "langchain.md"
EXAMPLES = [
    "langchain_chain.py",
    "langchain_swap.py",
    "langchain_compress.py",
    "langchain_langgraph.py",
]

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```(?:\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?\d+\.\d+")


def fences(page: Path, language: str) -> list[tuple[str, str]]:
    """The blocks of a page, each with the output that stands below it."""
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [(code, output) for name, code, output in found if name == language]


def assert_same(printed: str, shown: str) -> None:
    """Equal but for the last digits of decimal fractions."""
    assert _NUMBER.sub("#", printed.rstrip()) == _NUMBER.sub("#", shown.rstrip())
    numbers = [[float(n) for n in _NUMBER.findall(text)] for text in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=0.05)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_print_what_the_page_shows(example, monkeypatch, capsys):
    monkeypatch.syspath_prepend(DOCS / "examples")
    runpy.run_path(str(DOCS / "examples" / example), run_name="__main__")
    shown = dict(fences(PAGE, "console"))[f"$ python docs/examples/{example}\n"]
    assert_same(capsys.readouterr().out, shown)


@pytest.mark.parametrize("page", [PAGE, INTEGRATION / "README.md"], ids=lambda page: page.name)
def test_blocks_print_what_the_page_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    blocks = fences(page, "python")
    assert blocks
    for code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, str(page), "exec"), namespace)
        if shown:
            assert_same(printed.getvalue(), shown)
