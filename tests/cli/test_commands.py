"""The commands on real files with a tiny host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from s3_retriever import InputError
from s3_retriever.cli import indexing, options
from s3_retriever.cli.app import app
from s3_retriever.cli.serving import named_places
from s3_retriever.index import mirroring

HANDBOOK = """# Release handbook

The release manager signs every release on Friday. Nobody merges after the freeze.

## Rollback

The night nurse mends a broken clock without a word.
"""
PAGE = "<title>The bakery</title><p>A baker carries warm bread before dawn.</p>"
QUESTION = "Who signs every release?"


def s3r(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A current folder with two documents and files that are none."""
    monkeypatch.chdir(tmp_path)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "handbook.md").write_text(HANDBOOK)
    (docs / "page.html").write_text(PAGE)
    (docs / "picture.png").write_bytes(b"\x89PNG\0\0")
    return tmp_path


@pytest.fixture
def model(tiny_bert, tiny_codebook):
    return ["--host", tiny_bert, "--codebook", tiny_codebook, "--dtype", "float32"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_bert, tiny_codebook):
    """An index that the tests do not change."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "handbook.md").write_text(HANDBOOK)
    (folder / "page.html").write_text(PAGE)
    index = folder / "made.s3r"
    done = s3r("index", folder, "--to", index, "--host", tiny_bert, "--codebook", tiny_codebook)
    assert done.exit_code == 0, done.stderr
    return index


def test_round_trip(home, model):
    done = s3r("index", "docs", "--to", "idx.s3r", *model)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "2 added, 0 replaced, 0 unchanged, 1 skipped.\n"

    output = json.loads(s3r("search", QUESTION, "--in", "idx.s3r", "--json").stdout)
    best = output["spans"][0]
    assert output["question"] == QUESTION
    assert best["document_id"] == "docs/handbook.md"
    assert best["text"] == "The release manager signs every release on Friday."
    assert HANDBOOK[best["start"] : best["end"]] == best["text"]
    metadata = best["metadata"]
    assert len(metadata.pop("sha256")) == 64
    assert metadata == {
        "path": "docs/handbook.md",
        "title": "Release handbook",
        "bytes": len(HANDBOOK),
    }

    done = s3r("delete", "docs/handbook.md", "--in", "idx.s3r")
    assert (done.exit_code, done.stdout) == (0, "1 deleted, 1 left.\n")
    assert s3r("delete", "docs/handbook.md", "--in", "idx.s3r").exit_code == 1
    done = s3r("delete", "docs/handbook.md", "--in", "idx.s3r", "--missing-ok")
    assert (done.exit_code, done.stdout) == (0, "0 deleted, 1 left.\n")
    done = s3r("compact", "idx.s3r")
    assert done.exit_code == 0
    assert "bytes before" in done.stdout
    output = json.loads(s3r("search", QUESTION, "--in", "idx.s3r", "--json").stdout)
    assert {span["document_id"] for span in output["spans"]} == {"docs/page.html"}


def test_again_only_changes_are_scanned(home, model, monkeypatch):
    s3r("index", "docs", "--to", "idx.s3r", *model)
    (home / "docs/page.html").write_text(PAGE.replace("bread", "cake"))
    (home / "docs/new.txt").write_text("Seven boats.")
    done = s3r("add", "docs", "--to", "idx.s3r")
    assert done.stdout == "1 added, 1 replaced, 1 unchanged, 1 skipped.\n"
    output = json.loads(
        s3r("search", "warm cake", "--in", "idx.s3r", "--mode", "bm25", "--json").stdout
    )
    assert "cake" in output["spans"][0]["text"]
    assert json.loads(s3r("info", "idx.s3r", "--json").stdout)["documents"] == 3

    # Where nothing changed, the host is not even loaded.
    monkeypatch.setattr(indexing, "open_index", None)
    done = s3r("index", "docs", "--to", "idx.s3r")
    assert done.stdout == "0 added, 0 replaced, 3 unchanged, 1 skipped.\n"


def test_replace_scans_everything_again(home, model):
    s3r("index", "docs", "--to", "idx.s3r", *model)
    done = s3r("add", "docs", "--to", "idx.s3r", "--replace")
    assert done.stdout == "0 added, 2 replaced, 0 unchanged, 1 skipped.\n"


def test_batches_are_committed_one_by_one(home, model, monkeypatch):
    monkeypatch.setattr(indexing, "BATCH_CHARACTERS", 1)
    done = s3r("index", "docs", "--to", "idx.s3r", *model)
    assert "Kept so far: 1 of 3 files" in done.stderr
    assert json.loads(s3r("info", "idx.s3r", "--json").stdout)["segments"] == 2


def test_interruption_says_what_was_kept(home, model, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(indexing, "BATCH_CHARACTERS", 1)
    monkeypatch.setattr(indexing, "say", interrupted)
    done = s3r("index", "docs", "--to", "idx.s3r", *model)
    assert done.exit_code == 130
    assert "Interrupted. Kept in the index: 1 files of this run" in done.stderr
    assert json.loads(s3r("info", "idx.s3r", "--json").stdout)["documents"] == 1


def test_index_goes_on_only_with_what_it_was_made_with(home, model, tiny_llama):
    s3r("index", "docs", "--to", "idx.s3r", *model)
    assert s3r("index", "docs", "--to", "idx.s3r", *model).exit_code == 0
    done = s3r("index", "docs", "--to", "idx.s3r", "--host", tiny_llama)
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    done = s3r("index", "docs", "--to", "idx.s3r", "--recipe", "paper")
    assert done.exit_code == 1
    assert "another recipe ('default')" in done.stderr


def test_index_is_found_from_another_folder(home, tiny_bert, tiny_codebook, monkeypatch):
    (home / "host").symlink_to(tiny_bert)
    (home / "book").symlink_to(tiny_codebook)
    done = s3r("index", "docs", "--to", "idx.s3r", "--host", "host", "--codebook", "book")
    assert done.exit_code == 0
    monkeypatch.chdir(home / "docs")
    assert s3r("search", QUESTION, "--in", "../idx.s3r").exit_code == 0


def test_recipe_from_a_file(home, model):
    scoring = {"kind": "max_token", "kernel": 4}
    recipe = {"name": "mine", "taps": {"key.1": {}}, "scoring": scoring}
    (home / "mine.json").write_text(json.dumps(recipe))
    done = s3r("index", "docs", "--to", "idx.s3r", "--recipe", "mine.json", *model)
    assert done.exit_code == 0
    assert json.loads(s3r("info", "idx.s3r", "--json").stdout)["recipe"]["scoring"] == scoring


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "neither default, paper nor"),
        ("{", "mine.json is not a valid recipe: Invalid JSON"),
        ("[]", "mine.json is not a valid recipe: "),
        ("{}", "taps: Field required"),
        ('{"taps": {}, "kernal": 4}', "kernal: Extra inputs"),
        (
            '{"taps": {}, "scoring": {"kind": "max_token", "kernel": 0}}',
            r"kernel: Input should",
        ),
        ('{"taps": {}, "fusion": {"kind": "interleave"}, "hop": {}}', "hop needs fusion z_score"),
    ],
)
def test_recipe_files_that_are_not_recipes(home, content, problem):
    if content is not None:
        (home / "mine.json").write_text(content)
    with pytest.raises(InputError, match=problem):
        options.recipe("mine.json")


@pytest.mark.parametrize(
    "part",
    [
        {"scoring": "cover"},
        {"fusion": "union"},
        {"kernel": 4},
        {"second_hop": {"lexical_weight": 0.5}},
        {"sentence": {"tap": "sentence.5"}},
    ],
)
def test_recipe_files_of_older_releases_are_refused(home, part):
    (home / "mine.json").write_text(json.dumps({"taps": {"key.1": {}}, **part}))
    with pytest.raises(InputError, match="recipe of an older release; rewrite it"):
        options.recipe("mine.json")


def test_unusable_files_are_named_and_skipped(home, model):
    (home / "docs/binary.txt").write_bytes(b"a\0b")
    (home / "docs/latin.txt").write_bytes(b"caf\xe9")
    (home / "docs/broken.pdf").write_bytes(b"%PDF-1.4 broken")
    done = s3r("index", "docs", "--to", "idx.s3r", *model)
    assert done.exit_code == 0
    assert done.stdout == "2 added, 0 replaced, 0 unchanged, 4 skipped.\n"
    warnings = done.stderr.splitlines()
    assert [line.split(" is skipped: ")[0] for line in warnings] == [
        "Warning: docs/binary.txt",
        "Warning: docs/broken.pdf",
        "Warning: docs/latin.txt",
    ]


def test_nothing_readable(home, model):
    done = s3r("index", "docs/picture.png", "--to", "idx.s3r", *model)
    assert done.exit_code == 1
    assert done.stderr.startswith("Warning: docs/picture.png is skipped: it is binary")
    assert "None of the 1 files could be read." in done.stderr
    assert not Path("idx.s3r").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["search", "x", "--in", "none.s3r"], "none.s3r; check the path"),
        (["info", "none.s3r"], "none.s3r; check the path"),
        (["add", "docs", "--to", "none.s3r"], "none.s3r; check the path"),
        (["index", "none", "--to", "idx.s3r"], "There is no file or folder 'none'"),
        (["index", "docs", "--to", "idx.s3r", "--host", "./none"], "There is no codebook"),
        (["index", "docs", "--to", "docs"], "in use by other files"),
    ],
)
def test_failures_in_one_sentence(home, tiny_bert, tiny_codebook, arguments, problem):
    if arguments[-1] == "docs":
        arguments = [*arguments, "--host", tiny_bert, "--codebook", tiny_codebook]
    done = s3r(*arguments)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_verbose_shows_where_an_error_came_from():
    done = s3r("--verbose", "info", "none.s3r")
    assert done.exit_code == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["search"],
        ["search", "x"],
        ["search", "x", "--in", "idx.s3r", "-k", "0"],
        ["search", "x", "--in", "idx.s3r", "--mode", "other"],
        ["search", "x", "--in", "idx.s3r", "--where", "year"],
        ["nonsense"],
    ],
)
def test_wrong_command_line(arguments):
    assert s3r(*arguments).exit_code == 2


def test_nothing_found(made):
    done = s3r("search", "x", "--in", made, "--where", "year=2024")
    assert (done.exit_code, done.stdout, done.stderr) == (3, "", "Nothing found.\n")
    done = s3r("search", "x", "--in", made, "--where", "year=2024", "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout) == {"question": "x", "spans": []}
    assert s3r("explain", "x", "--in", made, "--rank", "99").exit_code == 3


def test_operators_of_filters_are_json(made):
    def found(*where):
        conditions = [part for text in where for part in ("--where", text)]
        done = s3r(
            "search",
            "Who signs releases, who bakes bread?",
            "--in",
            made,
            "--mode",
            "bm25",
            "--json",
            *conditions,
        )
        return {span["metadata"]["title"] for span in json.loads(done.stdout)["spans"]}

    bakery = 'title={"$in": ["The bakery"]}'
    assert found(bakery) == found('{"title": {"$contains": "bakery"}}') == {"The bakery"}
    assert found('title={"$ne": "The bakery"}') == found() - {"The bakery"}
    assert found(bakery, "title=Release handbook") == set()
    done = s3r("search", "x", "--in", made, "--where", '{"title": {"$like": 1}}')
    assert done.exit_code == 1
    assert "is not an operator; where knows $eq" in done.stderr
    assert s3r("search", "x", "--in", made, "--where", "{title").exit_code == 2


def test_empty_question(made):
    done = s3r("search", " ", "--in", made)
    assert (done.exit_code, done.stdout) == (1, "")


def test_search_for_a_reader(made):
    done = s3r("search", QUESTION, "--in", made, "-k", "2")
    lines = done.stdout.splitlines()
    assert lines[0] == "1. Release handbook"
    assert "handbook.md:3  (score " in lines[1]
    assert lines[1].endswith("s3 + bm25 + sentence, 9 tokens)")
    assert lines[2] == "   The release manager signs every release on Friday."
    assert lines[3] == ""
    assert lines[4].startswith("2. ")
    assert "\x1b" not in done.stdout


def test_long_spans_are_wrapped(home, model, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (home / "docs/long.txt").write_text("warm bread 面包 " * 60)
    done = s3r("search", "warm bread", "--files", "docs/long.txt", "-k", "1", *model)
    text = done.stdout.splitlines()[2:]
    assert len(text) > 5
    assert all(line.startswith("   ") and line == line.rstrip() for line in text)
    assert all(cell_len(line) <= 80 for line in text)


def test_search_for_documents(made):
    asked = ["search", QUESTION, "--in", made, "--group-by", "document"]
    done = s3r(*asked)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("1. Release handbook\n   handbook.md  (score ")
    found = json.loads(s3r(*asked, "--spans-per-document", 1, "-k", 1, "--json").stdout)
    (document,) = found["documents"]
    assert (document["document_id"], document["title"]) == ("handbook.md", "Release handbook")
    assert [span["place"] for span in document["spans"]] == ["handbook.md:3"]


def test_search_options(made):
    def search(*arguments):
        done = s3r("search", QUESTION, "--in", made, "--json", *arguments)
        return json.loads(done.stdout)["spans"]

    assert len(search("-k", "1")) == 1
    assert sum(span["tokens"] for span in search("--token-budget", "12")) <= 12
    assert {tuple(span["sources"]) for span in search("--mode", "bm25")} == {("bm25",)}
    assert {span["metadata"]["title"] for span in search("--where", "title=The bakery")} == {
        "The bakery"
    }
    handbook = f"bytes={len(HANDBOOK)}"
    starts = [span["start"] for span in search("--order", "document", "--where", handbook)]
    assert len(starts) > 1
    assert starts == sorted(starts)
    done = s3r("search", QUESTION, "--in", made, "--recipe", "paper")
    assert done.exit_code == 1
    assert "key.1" in done.stderr


def test_search_in_files(home, model):
    def search(*arguments):
        return s3r("search", "Who carries warm bread?", *arguments, "--json", *model)

    done = search("--files", "docs/*", "-k", "1", "--mode", "bm25")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["spans"][0]["document_id"] == "docs/page.html"
    assert sorted(path.name for path in home.iterdir()) == ["docs"]
    files = ["--files", "docs/page.html", "--files", "docs/handbook.md"]
    spans = json.loads(search(*files, "--where", "path=docs/handbook.md").stdout)["spans"]
    assert {span["document_id"] for span in spans} == {"docs/handbook.md"}
    done = search("--files", "docs/picture.png")
    assert done.exit_code == 1
    assert "None of the 1 files could be read." in done.stderr


@pytest.mark.parametrize("where", [[], ["--in", "idx.s3r", "--files", "docs"]])
def test_search_wants_an_index_or_files(where):
    done = s3r("search", "x", *where)
    assert done.exit_code == 2
    assert "Give either an index with --in or files with --files." in done.stderr


def test_a_language_model_reranks(made, tiny_llama):
    look = ["--rerank", 4, "--rerank-host", tiny_llama]
    plain = json.loads(s3r("search", QUESTION, "--in", made, "-k", 4, "--json").stdout)["spans"]
    found = json.loads(s3r("search", QUESTION, "--in", made, "-k", 4, *look, "--json").stdout)
    assert {span["id"] for span in found["spans"]} == {span["id"] for span in plain}
    assert [span["score"] for span in found["spans"]] != [span["score"] for span in plain]
    explained = json.loads(s3r("explain", QUESTION, "--in", made, *look, "--json").stdout)
    assert explained["contributions"]["rerank"] > 0
    for wrong in (["--rerank", 0], ["--rerank", "many"], ["--rerank-host", tiny_llama]):
        assert s3r("search", QUESTION, "--in", made, *wrong).exit_code in (1, 2)
    encoder = s3r("search", QUESTION, "--in", made, "--rerank", 4)
    assert encoder.exit_code == 1
    assert "is an encoder and cannot rerank" in " ".join(encoder.stderr.split())


def test_explain(made):
    done = s3r("explain", QUESTION, "--in", made, "--json")
    output = json.loads(done.stdout)
    text = output["span"]["text"]
    assert text == "The release manager signs every release on Friday."
    assert sum(feature["share"] for feature in output["features"]) == pytest.approx(1)
    assert sum(term["share"] for term in output["terms"]) == pytest.approx(1)
    begin = output["span"]["start"]
    for token in output["tokens"]:
        assert text[token["start"] - begin : token["end"] - begin] == token["text"]

    shown = s3r("explain", QUESTION, "--in", made).stdout
    assert "   The release manager signs every release on Friday.\n" in shown
    assert "Strongest tokens: " in shown
    assert "Features by share of the co-activation score" in shown
    assert f"hidden.1/{output['features'][0]['feature']} " in shown
    assert "Words by share of the BM25 score: " in shown


def test_explanation_in_colour(made, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = s3r("explain", QUESTION, "--in", made).stdout
    # The best token has the strongest background.
    assert "48;2;255;170;0" in shown


def test_info(made):
    output = json.loads(s3r("info", made, "--json").stdout)
    assert output["documents"] == 2
    assert output["bytes_per_token"] == pytest.approx(output["bytes"] / output["tokens"], abs=0.1)
    shown = s3r("info", made).stdout
    assert "documents         2\n" in shown
    assert "taps: hidden.1 (weight 1.0, query_side same)" in shown


def test_info_agrees_with_the_engine(made):
    from s3_retriever import S3Index

    output = json.loads(s3r("info", made, "--json").stdout)
    with S3Index.open(made) as index:
        assert output == index.stats()


def test_conditions_read_json_or_text():
    assert options.conditions(["year=2024", "title=A = B", 'id="7"', "ok=true"]) == {
        "$and": [{"year": 2024}, {"title": "A = B"}, {"id": "7"}, {"ok": True}]
    }
    assert options.conditions(None) is None


@pytest.mark.parametrize(
    ("option", "value", "values"),
    [
        ("--mode", "dense", ("hybrid", "s3", "bm25")),
        ("--order", "size", ("score", "document")),
        ("--dtype", "int8", ("auto", "bfloat16", "float32")),
    ],
)
def test_choices_are_listed(option, value, values):
    done = s3r("search", "x", "--in", "idx.s3r", option, value)
    assert done.exit_code == 2
    assert all(f"'{name}'" in done.stderr for name in values)


def test_sync_drops_what_is_gone_from_wherever_it_runs(home, model, monkeypatch):
    (home / "docs/old.txt").write_text("Seven boats.")
    assert s3r("sync", "docs", "--to", "idx.s3r", *model).exit_code == 0
    (home / "docs/old.txt").rename(home / "docs/new.txt")
    monkeypatch.chdir(home / "docs")
    done = s3r("sync", home / "docs", "--to", "../idx.s3r")
    assert done.stdout == "1 added, 0 replaced, 2 unchanged, 1 skipped, 1 dropped.\n"
    assert s3r("list", "../idx.s3r").stdout.splitlines() == [
        "docs/handbook.md",
        "docs/page.html",
        "docs/new.txt",
    ]
    done = s3r("sync", ".", "--to", "../idx.s3r")
    assert done.stdout == "0 added, 0 replaced, 3 unchanged, 1 skipped.\n"


def test_list_and_show(made):
    listed = json.loads(s3r("list", made, "--json").stdout)
    assert [row["id"] for row in listed] == ["handbook.md", "page.html"]
    assert listed[1]["metadata"]["title"] == "The bakery"
    assert s3r("show", made, "handbook.md:3").stdout == HANDBOOK + "\n"
    shown = json.loads(s3r("show", made, "page.html", "--json").stdout)
    assert [row["text"] for row in shown] == ["A baker carries warm bread before dawn."]
    done = s3r("show", made, "nothing")
    assert done.exit_code == 1
    assert "has no document 'nothing'" in done.stderr


@pytest.mark.parametrize(
    "reading",
    [
        lambda index: s3r("search", QUESTION, "--in", index, "--mode", "bm25", "--json"),
        lambda index: s3r("explain", QUESTION, "--in", index, "--json"),
        lambda index: s3r("list", index),
        lambda index: s3r("show", index, "page.html"),
        lambda index: s3r("info", index, "--json"),
    ],
    ids=["search", "explain", "list", "show", "info"],
)
def test_object_storage_is_read_as_a_folder_is(made, reading, tmp_path, monkeypatch):
    monkeypatch.setattr(mirroring, "user_cache_path", lambda _: tmp_path)
    url, local = reading(made.as_uri()), reading(made)
    assert url.exit_code == 0, url.stderr
    assert url.stdout.replace(made.as_uri(), str(made)) == local.stdout


def test_object_storage_is_not_written_to(made):
    for change in (
        s3r("delete", "page.html", "--in", made.as_uri()),
        s3r("compact", made.as_uri()),
        s3r("verify", made.as_uri()),
        s3r("sync", made.parent, "--to", made.as_uri()),
    ):
        assert change.exit_code == 1
        assert "is a URL, from which an index can only be read" in " ".join(change.stderr.split())
        assert "PosixPath" not in change.stderr


def test_servers_name_indexes_by_their_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a=b.s3r").mkdir()
    assert named_places(
        ["docs/x.s3r/", "a=b.s3r", "y=docs/z.s3r", "s3://b/c=d.s3r/", "w=s3://b/e"]
    ) == {
        "x": "docs/x.s3r/",
        "a=b": "a=b.s3r",
        "y": "docs/z.s3r",
        "c=d": "s3://b/c=d.s3r/",
        "w": "s3://b/e",
    }
    for text in ("=s3://b/a", "a=", ""):
        with pytest.raises(InputError, match="names no index"):
            named_places([text])
    with pytest.raises(InputError, match="Two indexes are called 'a'"):
        named_places(["a.s3r", "s3://bucket/a.s3r"])


def test_delete_takes_what_a_search_prints(home, model):
    s3r("index", "docs", "--to", "idx.s3r", *model)
    done = s3r("search", QUESTION, "--in", "idx.s3r", "-k", "1", "--json")
    place = json.loads(done.stdout)["spans"][0]["place"]
    assert place == "docs/handbook.md:3"
    assert s3r("delete", place, "--in", "idx.s3r").stdout == "1 deleted, 1 left.\n"
