"""Defaults of options from files: who precedes whom, and what a project may not set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from s3_retriever import Document, S3Index
from s3_retriever.cli.app import app
from s3_retriever.cli.configuring import PROJECT_COMMANDS, PROJECT_OPTIONS

QUESTION = "Who carries warm bread?"


def s3r(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def shown(*arguments: str) -> dict[tuple[str, str], object]:
    done = s3r("config", *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return {(row["command"], row["option"]): row["value"] for row in json.loads(done.stdout)}


@pytest.fixture
def user(tmp_path, monkeypatch):
    """The user's own file, not written yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setattr("platformdirs.user_config_path", lambda *_, **__: tmp_path / "user/s3r")
    (tmp_path / "user/s3r").mkdir(parents=True)
    return tmp_path / "user/s3r/s3r.toml"


@pytest.fixture
def project(tmp_path, monkeypatch, user):
    """The file of a project, not written yet; the current folder is one below it."""
    folder = tmp_path / "project"
    (folder / "deep/er").mkdir(parents=True)
    monkeypatch.chdir(folder / "deep/er")
    return folder / "s3r.toml"


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_bert, tiny_codebook):
    path = tmp_path_factory.mktemp("made") / "made.s3r"
    with S3Index.create(path, str(tiny_bert), codebook=tiny_codebook) as index:
        texts = ["A baker carries warm bread.", "Bread is warm before dawn.", "Seven boats sail."]
        index.add([Document(text, id=text[:5]) for text in texts], progress=False)
    return path


def test_a_project_names_its_index_and_the_command_line_precedes(project, made):
    (project.parent / "handbook.s3r").symlink_to(project.parent / "kept", target_is_directory=True)
    made.rename(project.parent / "kept")
    try:
        project.write_text('k = 1\n[search]\nin = "handbook.s3r"\nmode = "bm25"\n')
        spans = json.loads(s3r("search", QUESTION, "--json").stdout)["spans"]
        assert [span["document_id"] for span in spans] == ["A bak"]
        spans = json.loads(s3r("search", QUESTION, "-k", "2", "--json").stdout)["spans"]
        assert len(spans) == 2
        # Files on the command line precede the project's index.
        Path("a.txt").write_text("Nothing at all.")
        done = s3r("search", QUESTION, "--files", "none.txt")
        assert "There is no file or folder 'none.txt'" in done.stderr
        assert s3r("--no-config", "search", QUESTION).exit_code == 2
    finally:
        (project.parent / "kept").rename(made)


def test_a_host_that_nothing_needs_reranks_nothing(project, user, made, tiny_llama):
    user.write_text(f'rerank-host = "{tiny_llama}"\n')
    plain = s3r("search", QUESTION, "--in", made, "--json")
    assert plain.exit_code == 0, plain.stderr
    again = s3r("search", QUESTION, "--in", made, "--rerank", 3, "--json")
    scores = [
        [span["score"] for span in json.loads(done.stdout)["spans"]] for done in (plain, again)
    ]
    assert scores[0] != scores[1]
    assert s3r("explain", QUESTION, "--in", made).exit_code == 0


def test_files_precede_each_other(project, user):
    user.write_text('mode = "s3"\nhost = "mine"\n[search]\nk = 7\n[fit]\nk = 16\n')
    assert shown()["search", "mode"] == "s3"
    assert shown()["fit", "k"] == "16"
    project.write_text('k = 5\n[explain]\nmode = "bm25"\n')
    values = shown()
    # The project's file precedes the user's, even the user's setting of a single command.
    assert values["search", "k"] == "5"
    # The -k of fit is another one.
    assert values["fit", "k"] == "16"
    assert values["explain", "mode"] == "bm25"
    assert values["search", "mode"] == "s3"
    assert values["index", "host"] == "mine"


def test_the_nearest_file_of_a_project_counts(project):
    project.write_text("k = 5\n")
    near = Path.cwd().parent / "pyproject.toml"
    near.write_text("[tool.other]\nx = 1\n")
    assert shown()["search", "k"] == "5"
    near.write_text("[tool.s3r]\nk = 6\n[tool.s3r.explain]\nmode = 's3'\n")
    assert shown() == {("search", "k"): "6", ("explain", "mode"): "s3"}
    # A broken pyproject.toml without defaults is somebody else's business.
    near.write_text("[tool.other\n")
    assert shown()["search", "k"] == "5"
    (near.parent / "s3r.toml").write_text("")
    assert shown() == {}


def test_config_shows_where_values_come_from(project, user, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # wide enough for the paths
    done = s3r("config")
    assert (done.exit_code, done.stdout) == (0, "")
    assert str(user) in done.stderr
    user.write_text('[search]\nhost = "mine"\njson = true\nwhere = ["a=1"]\n')
    project.write_text("[search]\nk = 5\n")
    rows = json.loads(s3r("config", "search", "--json").stdout)
    files = {row["option"]: row["file"] for row in rows}
    assert files["host"] == files["json"] == str(user)
    assert files["k"] == str(project)
    assert files["mode"] is None
    lines = [line.split() for line in s3r("config", "search").stdout.splitlines()]
    assert ["search", "mode", "hybrid", "default"] in lines
    assert ["search", "where", "a=1", str(user)] in lines
    assert s3r("config", "nothing").exit_code == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kk = 5", "no command has an option 'kk'; did you mean 'k'?"),
        ("[serch]", "there is no command 'serch'; did you mean 'search'?"),
        ("[search]\ntoken_budget = 1", "has no option 'token_budget'; did you mean 'token-budget'"),
        ("[search]\n'\\u001b[2J' = 1", "has no option"),
        ("search = 1", "no command has an option 'search'; remove it."),
        ("k = {a = 1}", "there is no command 'k'; remove it."),
        ("k = 5.5", "k of s3r search: Input should be a valid integer"),
        ("k = 0", "k of s3r search: Input should be greater than or equal to 1."),
        ("k = true", "k of s3r search: it must be a text or a number, not True."),
        ("k = [1]", "it must be a text or a number, not [1]."),
        ("k = 2024-01-01", "it must be a text or a number"),
        ("mode = 'x'", "mode of s3r search: 'x' is not one of"),
        ("min-relevance = 2", "min-relevance of s3r search: "),
        ("[", "is not valid TOML: "),
        ("k = 1\nk = 2", "is not valid TOML: "),
        (f"k = {'[' * 5_000}{']' * 5_000}", "is not valid TOML: "),
        ("\udcff", "is not valid TOML: "),
        (f"# {'x' * 2_000_000}", "it is larger than 1 MiB."),
    ],
)
def test_what_is_wrong_is_named_with_its_file(project, text, problem):
    project.write_bytes(text.encode(errors="surrogateescape"))
    done = s3r("config")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {project}")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.isprintable() or done.stderr[:-1].isprintable()


@pytest.mark.parametrize(
    "text",
    [
        *("host = 'minilm'", "codebook = '.'", "to = 'x.s3r'", "out = 'x'", "keep = 'x'"),
        *("[search]\nfiles = ['/etc']", "[search]\njson = true", "[search]\nwhere = ['a=1']"),
        *("[delete]\nin = 'x.s3r'", "[delete]\nmissing-ok = true", "[sync]\nwatch = true"),
        *("[answer]\nprompt = 'Obey'", "[answer]\nmax-new-tokens = 9", "[fit]\nk = 1"),
        *("[add]\nreplace = true", "[answer]\nretriever = 'x'", "[fit]\ndevice = 'cpu'"),
    ],
)
def test_a_project_may_not_set(project, user, text):
    project.write_text(text)
    done = s3r("config")
    assert done.exit_code == 1
    assert f"{project}: a project may not set " in done.stderr
    assert str(user) in done.stderr
    # What is the user's own may.
    project.unlink()
    user.write_text(text)
    assert s3r("config").exit_code == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("in = '/etc'", "'/etc' is outside the folder of this file."),
        ("in = '../x.s3r'", "'../x.s3r' is outside"),
        ("in = 's3://bucket/x.s3r'", "not the URL 's3://bucket/x.s3r'"),
        ("in = 'link/x.s3r'", "'link/x.s3r' is outside"),
        ("in = 'a\\u0000b'", "is outside"),
        ('in = "a\\u0000b"', "in of s3r search: "),
        ("recipe = '/etc/passwd'", "a project may choose default, paper, paper-literal"),
        ("recipe = 'mine.json'", "a project may choose default, paper, paper-literal"),
    ],
)
def test_nothing_outside_a_project_is_read_for_it(project, text, problem):
    (project.parent / "link").symlink_to("/etc")
    project.write_text(text)
    if "u0000b'" in text:  # a literal string, which has a backslash and no null
        assert s3r("config").exit_code == 0
        return
    done = s3r("config")
    assert done.exit_code == 1
    assert problem in done.stderr


def test_every_option_of_a_project_exists():
    from typer.main import get_command

    from s3_retriever.cli.configuring import _options

    commands = get_command(app).commands
    assert set(commands) >= PROJECT_COMMANDS
    known = {option for name in PROJECT_COMMANDS for option in _options(commands[name])}
    assert known >= PROJECT_OPTIONS


def test_help_and_version_are_shown_whatever_the_file_says(project, monkeypatch):
    project.write_text("[")
    monkeypatch.setattr("sys.argv", ["s3r", "search", "--help"])
    assert s3r("search", "--help").exit_code == 0
    assert s3r("--version").exit_code == 0
    assert s3r("--no-config", "config").exit_code == 1


def test_secrets_are_not_shown(project, user, monkeypatch):
    monkeypatch.setattr("s3_retriever.cli.configuring._SECRET", frozenset({"host"}))
    user.write_text("[search]\nhost = 'sesame'")
    assert "sesame" not in s3r("config").stdout
