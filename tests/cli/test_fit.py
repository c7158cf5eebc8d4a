"""`s3r fit` and the texts it reads."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from s3_retriever import Codebook, InputError
from s3_retriever.cli.app import app
from s3_retriever.files import TextFiles, texts
from s3_retriever.files.texts import interleave


def s3r(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_interleave_keeps_shares_even():
    long, short = ["aaaa"] * 3, ["b"] * 12
    drawn = list(interleave([long, short]))
    assert sorted(drawn) == sorted(long + short)
    given = {"a": 0, "b": 0}
    for text in drawn:
        given[text[0]] += len(text)
        assert abs(given["a"] - given["b"]) <= 4


def test_interleave_draws_from_the_source_with_the_fewest_characters():
    assert list(interleave([["111", "1"], ["2", "22", "2"], ["3333"]])) == [
        "111",
        "2",
        "3333",
        "22",
        "1",
        "2",
    ]


def test_interleave_goes_on_with_what_is_left():
    assert list(interleave([[], ["a"], ["b", "b", "b"], [""]])) == ["a", "b", "", "b", "b"]
    assert list(interleave([])) == []


def test_texts_can_be_read_again(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one", "id": 1}\n\n{"text": "zwei ü"}\n')
    (tmp_path / "b.md").write_text("# Title\n\nbody")
    files = TextFiles([tmp_path / "a.jsonl", tmp_path / "b.md"])
    assert list(files) == list(files) == ["one", "# Title\n\nbody", "zwei ü"]


def test_long_texts_come_in_pieces_and_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "_BLOCK_CHARACTERS", 50_000)
    content = "\ufeff" + "".join(f"Paragraph {n}, ünd more.\n\n" for n in range(10_000))
    (tmp_path / "a.txt").write_text(content)
    pieces = list(TextFiles([tmp_path / "a.txt"]))
    assert "".join(pieces) == content.removeprefix("\ufeff")
    assert max(map(len, pieces)) <= 32_768
    assert all(piece.endswith("\n\n") for piece in pieces)


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "line 2 is not a JSON object"),
        ("a.jsonl", b"nonsense\n", "line 1 is not a JSON object"),
        ("a.txt", b"caf\xe9", "not UTF-8"),
        ("a.txt", b"a\0b", "binary"),
        ("a.pdf", b"%PDF broken", "cannot be read as PDF"),
    ],
)
def test_unusable_text(tmp_path, name, data, problem):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=problem):
        list(TextFiles([tmp_path / name]))


def test_fit(tmp_path, tiny_bert, sentences, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("\n".join(sentences))
    lines = [json.dumps({"text": sentence}) for sentence in sentences]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    sizes = ["--features", "64", "--k", "4", "--tokens", "9000", "--reuse", "1"]
    texts = ["--text", "a.txt", "--text", "*.jsonl"]
    done = s3r("fit", tiny_bert, *texts, "--out", "book", *sizes)
    assert done.exit_code == 0, done.stderr
    heading, key, hidden = done.stdout.splitlines()
    assert heading.split()[:3] == ["tap", "unexplained", "dead"]
    assert key.startswith("key.1 ")
    assert hidden.startswith("hidden.1 ")
    assert not (tmp_path / "book.checkpoint").exists()
    settings = Codebook.load("book").report["settings"]
    assert (settings["features"], settings["k"], settings["tokens"]) == (64, 4, 9000)

    done = s3r(
        *("search", "warm bread", "--files", "a.txt"), "--host", tiny_bert, "--codebook", "book"
    )
    assert done.exit_code == 0, done.stderr


def test_fit_of_some_taps(tmp_path, tiny_llama, sentences):
    (tmp_path / "a.txt").write_text("\n".join(sentences))
    book = tmp_path / "book"
    sizes = ["--features", "64", "--k", "4", "--tokens", "9000", "--reuse", "1"]
    taps = ["--taps", "key.0, hidden.0", "--head", "1.3", "--head", "1.0", "--json"]
    done = s3r("fit", tiny_llama, "--text", tmp_path / "a.txt", "--out", book, *sizes, *taps)
    assert done.exit_code == 0, done.stderr
    output = json.loads(done.stdout)
    assert sorted(output["report"]["taps"]) == ["hidden.0", "key.0"]
    fitted = Codebook.load(book)
    assert output["codebook"] == fitted.identity
    assert fitted.recipe.heads.query_heads == ("1.3", "1.0")
    assert [str(head) for head in fitted.key_heads] == ["1.0", "1.1"]

    more = ["--add-to", book, "--taps", "key.1.0", "--query-metric"]
    done = s3r("fit", tiny_llama, "--text", tmp_path / "a.txt", "--out", book, *sizes, *more)
    assert done.exit_code == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [
        "key.0",
        "hidden.0",
        "key.1.0",
    ]
    assert Codebook.load(book).recipe == fitted.recipe


def test_fit_fails_before_it_begins(tmp_path, tiny_bert):
    (tmp_path / "a.txt").write_text("Too little text.")
    arguments = ["fit", tiny_bert, "--text", tmp_path / "a.txt", "--out"]
    for out, more, problem in (
        (tmp_path / "book", [], "tokens of text"),
        (tmp_path / "book", ["--taps", "other.1"], "Unknown tap 'other.1'"),
        (tmp_path / "book", ["--head", "a"], "Unknown head 'a'"),
        (tmp_path / "book", ["--head", "1.9"], "no head 1.9"),
        (tmp_path, [], "something other than a codebook"),
        (tmp_path / "book", ["--add-to", "minilm"], "needs the names of taps"),
        (tmp_path / "book", ["--add-to", "minilm", "--taps", "key.0"], "as deep as the host"),
        (tmp_path / "book", ["--kv", "--query-metric"], "--kv fits all layers"),
    ):
        done = s3r(*arguments, out, *more)
        assert done.exit_code == 1
        assert problem in done.stderr
        assert len(done.stderr.splitlines()) == 1
