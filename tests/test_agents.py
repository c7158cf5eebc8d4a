"""What agents read about this package: the skill and llms.txt."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml
from typer.testing import CliRunner

from s3_retriever.cli.app import app

DOCS = Path(__file__).parents[1] / "docs"
SKILL = DOCS / "agents/s3-retriever/SKILL.md"
LLMS = DOCS / "llms.txt"


def test_the_skill_has_the_fields_that_agents_load_it_by():
    _, head, body = SKILL.read_text(encoding="utf-8").split("---\n", 2)
    fields = yaml.safe_load(head)
    assert set(fields) <= {"name", "description", "license", "compatibility", "metadata"}
    assert fields["name"] == SKILL.parent.name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", fields["name"])
    assert "Use when" in fields["description"]
    assert len(fields["description"]) <= 1_024
    assert len(fields["compatibility"]) <= 500
    assert len(body.splitlines()) < 500


def test_the_commands_of_the_skill_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/leave.md").write_text("# Leave\n\nStaff have 28 days of leave a year.\n")
    printed = ""
    commands = re.findall(r"^\$ s3r (.*)$", SKILL.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        done = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        printed += done.stdout
    assert printed.count("Staff have 28 days of leave a year.") == 2


def test_llms_txt_lists_every_page_with_a_note():
    text = LLMS.read_text(encoding="utf-8")
    title, blank, summary, *_ = text.splitlines()
    assert (title, blank, summary[:2]) == ("# s3-retriever", "", "> ")
    links = re.findall(r"^- \[[^]]+\]\(([^)]+)\): \S", text, re.MULTILINE)
    assert len(links) == text.count("\n- "), "a line is not '- [name](page): note'"
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert sorted(links) == sorted(pages), "docs/llms.txt lists each page of docs/ once"
