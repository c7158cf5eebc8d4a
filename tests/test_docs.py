"""The documentation runs, prints what it says, and its links work."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

import s3_retriever
from s3_retriever import Host
from s3_retriever.cli.app import app

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "s3_retriever"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "integrations").glob("*/README.md")),
]
# The folder that pages run in, where messages name it.
FOLDER = "/home/ada"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(rf"{_FENCE.pattern}|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_NUMBER = re.compile(r"-?\d+\.\d+")


@dataclass(frozen=True)
class Block:
    """A block of a page, with the output that the page promises, where it does."""

    line: int
    code: str
    output: str | None


def blocks(page: Path, language: str = "python") -> list[Block]:
    text = page.read_text(encoding="utf-8")
    fences = list(_FENCE.finditer(text))
    found = []
    for fence, after in zip(fences, [*fences, None][1:], strict=True):
        if fence[1] != language:
            continue
        shown = after and after[1] == "text" and after.start() == fence.end() + 1
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(line, fence[2], after[2] if after and shown else None))
    return found


@pytest.fixture(scope="module")
def load_once() -> Iterator[None]:
    """A host is loaded once for all pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Host, "load", staticmethod(functools.cache(Host.load)))
        yield


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda page: page.name)
def test_python_blocks_print_what_the_page_shows(page, tmp_path, monkeypatch, load_once):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in blocks(page):
        # Line numbers of errors are those of the page.
        code = compile("\n" * block.line + block.code, str(page), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        if block.output is not None:
            output = printed.getvalue().replace(str(tmp_path), FOLDER)
            assert_same(output, block.output, f"{page.name}, line {block.line}")


def test_commands_of_the_readme_print_what_it_shows(tmp_path, monkeypatch, load_once):
    monkeypatch.chdir(tmp_path)
    readme = ROOT / "README.md"
    (tmp_path / "handbook").mkdir()
    documents = re.findall(r'Document\("(.*)", id="(.*)"\)', readme.read_text(encoding="utf-8"))
    for text, name in documents:
        (tmp_path / "handbook" / f"{name}.txt").write_text(text)
    shown = [block for block in blocks(readme, "console") if block.output is not None]
    assert shown
    for block in shown:
        printed = ""
        for line in block.code.splitlines():
            prompt, program, *arguments = shlex.split(line)
            assert (prompt, program) == ("$", "s3r")
            result = CliRunner().invoke(app, arguments, catch_exceptions=False)
            assert result.exit_code == 0, result.output
            printed += result.stdout
        assert_same(printed, block.output, f"README.md, line {block.line}")


def assert_same(printed: str, shown: str, where: str) -> None:
    """Equal but for blanks at the ends of lines and the last digits of decimal fractions."""
    texts = [_NUMBER.sub("#", _trimmed(text)) for text in (printed, shown)]
    assert texts[0] == texts[1], f"{where} prints:\n{printed}"
    numbers = [[float(number) for number in _NUMBER.findall(text)] for text in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=0.05), where


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_images_lead_somewhere(page):
    prose = _CODE.sub("", page.read_text(encoding="utf-8"))
    for target in _LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and the site give the headings of a page."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_files_that_pages_name_exist():
    """Concepts names files from the package's folder, other pages from the top."""
    concepts = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    named = {PACKAGE / path for path in re.findall(r"`([a-z_]+/[a-z_]+\.py)`", concepts)}
    for page in LINKED:
        text = page.read_text(encoding="utf-8")
        paths = re.findall(r"`((?:s3_retriever|tests|docs|integrations)/[\w./-]+)`", text)
        named |= {ROOT / path for path in paths}
    missing = sorted(str(path.relative_to(ROOT)) for path in named if not path.exists())
    assert not missing


def test_every_page_is_in_the_site():
    """Pages that the navigation leaves out can be reached by search only."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= set(re.findall(r"[\w./-]+\.md", navigation))


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: s3_retriever\.(\w+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted(set(s3_retriever.__all__) - {"__version__"})
