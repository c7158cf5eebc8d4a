"""`s3r bench speed` measures what it says, on a tiny host and a few thousand tokens."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from s3_retriever import Codebook, Document, Host, IndexStoreError, InputError, S3Index
from s3_retriever.cli.app import app
from s3_retriever.encoder import Encoder
from s3_retriever.index import Store
from s3_retriever_bench.shared.corpus import (
    Questions,
    choose_questions,
    documents,
    endless,
    source_files,
)
from s3_retriever_bench.shared.report import check
from s3_retriever_bench.speed import peers, run
from s3_retriever_bench.speed.peers import Timing, chunks_of
from s3_retriever_bench.speed.report import speed_claims, speed_tables
from s3_retriever_bench.speed.run import (
    Growing,
    TimedEncoder,
    ask_in_turn,
    describe,
    median_ratio,
    time_indexing,
    time_opening,
)

MODES = ["mode hybrid", "mode s3", "mode bm25"]
PEERS = ["faiss-flat", "faiss-hnsw", "bm25s", "rank-bm25"]


@pytest.fixture(scope="module")
def text(tmp_path_factory, sentences):
    """About 1,500 tokens in 20 documents, so that it repeats soon."""
    path = tmp_path_factory.mktemp("texts") / "text.jsonl"
    rows = [
        {"title": f"Title {i}", "text": " ".join(sentences[i * 37 : i * 37 + 9])} for i in range(20)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


@pytest.fixture(scope="module")
def encoder(tiny_bert, tiny_codebook):
    host = Host.load(str(tiny_bert), device="cpu", dtype="float32")
    return TimedEncoder(host, Codebook.load(tiny_codebook))


@pytest.fixture
def speed(text, tiny_bert, tiny_codebook, monkeypatch):
    """Runs `s3r bench speed` on the text."""
    # The faster one compiles for eight seconds in every process.
    monkeypatch.setattr(peers, "BM25S_BACKEND", "numpy")
    # How often has a test of its own, and each opening starts a process.
    monkeypatch.setattr(run, "_OPENINGS", 1)
    fixed = ["--host", tiny_bert, "--codebook", tiny_codebook, "--text", text, "--questions", 3]
    fixed += ["--scan-tokens", 1_000, "--rounds", 2]

    def measure(*arguments):
        command = ["bench", "speed", *fixed, *arguments]
        return CliRunner().invoke(app, [str(argument) for argument in command])

    return measure


def test_the_command_measures_and_a_second_run_goes_on(tmp_path, speed):
    out = tmp_path / "new" / "out"
    result = speed("--tokens", 2_000, "--out", out)
    assert result.exit_code == 0, result.output
    for title in ("Indexing", "Search without the host", "Whole search", "Claims"):
        assert title in result.output
    kept = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    assert {path.name for path in kept} == {"indexing--add.json", "search--2000.json"}
    before = json.loads((out / "speed.json").read_text())

    result = speed("--tokens", 4_000, "--tokens", 2_000, "--out", out)
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    written = json.loads((out / "speed.json").read_text())
    assert written["indexing"] == before["indexing"]
    assert written["sizes"]["2000"] == before["sizes"]["2000"]
    assert list(written["sizes"]) == ["2000", "4000"]
    check_figures(written)
    assert f"| {MODES[0]} |" in (out / "speed.md").read_text()
    for name in ("speed.svg", "speed.png", "bars.svg", "bars.png"):
        assert 1_000 < (out / name).stat().st_size < 150_000

    other = speed("--tokens", 2_000, "--out", out, "--no-slow-peers")
    assert other.exit_code == 1 and "slow_peers changed" in " ".join(other.output.split())


def check_figures(written):
    assert written["machine"]["cpus"] and written["machine"]["faiss_threads"]
    assert written["versions"]["bm25s"] != "not installed"
    assert written["settings"]["questions"] == 3
    assert [claim["holds"] for claim in written["claims"]].count(None) == 5
    indexing = written["indexing"]
    assert indexing["tokens"] == indexing["added_tokens"] >= 1_000
    assert len(indexing["rounds"]) == 2
    for key in ("bare_tokens_per_second", "add_tokens_per_second", "ratio", "cpu_ratio"):
        assert indexing[key] > 0
    for size, row in written["sizes"].items():
        assert int(size) <= row["tokens"] < int(size) + 200
        assert row["bytes_per_token"] == pytest.approx(row["bytes"] / row["tokens"], abs=0.01)
        assert 0 < row["repeated_share"] < 1
        assert row["documents"] <= row["chunks"] and row["open_seconds"] > 0
        assert list(row["searches"]) == MODES + PEERS
        for name, search in row["searches"].items():
            whole, host, rest = (search[f"{part}_ms"] for part in ("whole", "host", "rest"))
            assert len(whole["values"]) == 3
            assert 0 < whole["median"] <= whole["p95"]
            parts = np.add(host["values"], rest["values"])
            np.testing.assert_allclose(parts, whole["values"], atol=0.01)
            reads = name.startswith(("mode hybrid", "mode s3", "faiss"))
            assert (min(host["values"]) > 0) == reads
    first, second = written["sizes"].values()
    assert first["segments"] == 1 and second["tokens"] > first["tokens"]


def test_an_interrupted_run_says_what_it_keeps(tmp_path, speed, monkeypatch):
    measure = Growing.measure

    def interrupted(self, questions):
        if (tmp_path / "parts" / "search--500.json").exists():
            raise KeyboardInterrupt
        return measure(self, questions)

    monkeypatch.setattr(Growing, "measure", interrupted)
    result = speed("--tokens", 500, "--tokens", 900, "--out", tmp_path)
    assert result.exit_code == 130
    assert "Finished parts are kept in" in " ".join(result.output.split())
    assert not (tmp_path / "speed.json").exists()


def test_slow_peers_are_left_out_and_it_is_said_why(speed, tmp_path, encoder, monkeypatch):
    out = tmp_path / "out"
    assert speed("--tokens", 500, "--no-slow-peers", "--out", out).exit_code == 0
    searches = json.loads((out / "speed.json").read_text())["sizes"]["500"]["searches"]
    assert searches["rank-bm25"] == {"skipped": "left out by --no-slow-peers"}
    page = (out / "speed.md").read_text()
    assert "Left out: rank-bm25 at 500 tokens (left out by --no-slow-peers)." in page
    assert "| rank-bm25 | - |" in page
    monkeypatch.setattr(peers, "_MOST_SLOW_TOKENS", 400)
    monkeypatch.setattr(peers, "BM25S_BACKEND", "numpy")
    others = peers.Peers(encoder.host, encoder.codebook, slow=True)
    others.grow(["A baker mends warm bread."])
    assert "rank-bm25" in others.asks(400)[0]
    assert "not run above 400 tokens" in others.asks(500)[1]["rank-bm25"]


@pytest.fixture
def growing(tmp_path, text, encoder):
    return Growing(tmp_path / "grown", encoder, [text], slow_peers=False)


def test_repeated_documents_are_scanned_once_and_as_index_add_scans_them(
    tmp_path, encoder, growing, monkeypatch
):
    scanned = []
    scan = Encoder.documents

    def count(self, documents, recipe):
        documents = list(documents)
        scanned.extend((document.title, document.text) for document in documents)
        return scan(self, iter(documents), recipe)

    monkeypatch.setattr(Encoder, "documents", count)
    first = growing.grow(1_000)
    assert growing.repeated == 0
    added = [*first, *growing.grow(4_000)]
    assert len({document.id for document in added}) == len(added) > 40
    assert len(set(scanned)) == len(scanned) <= 20
    monkeypatch.undo()
    count = encoder.host.tokenizer.count
    assert growing.repeated == sum(count(document.text) for document in added[20:])
    with S3Index.create(tmp_path / "real", encoder.host, codebook=encoder.codebook) as real:
        real.add(added, progress=False)
        with growing.open() as mine:
            assert mine.ids() == real.ids() == [document.id for document in added]
            assert mine.stats()["segments"] == 2
            assert mine.stats()["tokens"] == real.stats()["tokens"] == growing.tokens
        with closing(Store.open(tmp_path / "grown")) as store:
            store.compact()
            # One segment each, of the same files: text, terms and features are the same.
            files = [
                {name: file.sha256 for name, file in s.manifest.segments[0].files.items()}
                for s in (store, Store.open(real.path))
            ]
            assert files[0] == files[1]


def test_copies_are_found(growing):
    added = growing.grow(4_000)
    assert added[3].text == added[23].text
    question = added[3].text.split(".")[1]
    with growing.open() as index:
        for mode in ("s3", "bm25", "hybrid"):
            spans = index.search(question, 300, mode=mode, unique=False)
            assert {added[3].id, added[23].id} <= {span.document_id for span in spans}


def test_time_of_the_host_is_that_of_reading_the_question(encoder, growing):
    growing.grow(1_000)
    with growing.open() as index:
        before = encoder.milliseconds
        index.search("Who mends the blue ledger?", mode="bm25")
        assert encoder.milliseconds == before
        index.search("Who mends the blue ledger?")
        once = encoder.milliseconds
        assert once > before
        # Questions are not remembered.
        index.search("Who mends the blue ledger?")
        assert encoder.milliseconds > once


def test_opening_is_timed_in_fresh_processes(growing, tmp_path):
    growing.grow(1_000)
    path = tmp_path / "grown"
    maps = Path("/proc/self/maps")
    # Pages that this process had mapped too would not count as private.
    assert not maps.exists() or str(path) not in maps.read_text()
    opening = time_opening(path)
    assert 0 < opening["open_seconds"] < 30
    assert opening["open_private_bytes"] is None or 0 <= opening["open_private_bytes"] < 2**28
    with pytest.raises(IndexStoreError, match="A fresh process could not open"):
        time_opening(tmp_path / "nothing")


def test_indexing_is_timed_beside_the_host_on_the_same_tokens(text, encoder):
    indexing = time_indexing(encoder.host, encoder.codebook, [text], tokens=2_500, rounds=1)
    # More than the text has: it repeats.
    assert indexing["tokens"] == indexing["added_tokens"] >= 2_500
    assert indexing["documents"] > 20 and indexing["windows"] >= indexing["documents"]
    times = indexing["rounds"][0]
    ratio = times["bare_seconds"] / times["add_seconds"]
    assert indexing["ratio"] == pytest.approx(ratio, rel=0.01)
    rates = indexing["add_tokens_per_second"] / indexing["bare_tokens_per_second"]
    assert rates == pytest.approx(indexing["ratio"], rel=0.01)


def test_all_are_asked_each_question_in_turn():
    asked = []

    def asks(name):
        def ask(question):
            asked.append((question, name))
            return Timing(3.0 + len(question), 1.0)

        return ask

    questions = Questions(("one", "three"), ("up",))
    searches = ask_in_turn({name: asks(name) for name in "ab"}, questions, "Searching")
    assert asked == [
        *(("up", "a"), ("up", "b"), ("one", "a"), ("one", "b")),
        *(("three", "b"), ("three", "a")),
    ]
    assert searches["a"]["whole_ms"] == {"median": 7.0, "p95": 7.9, "values": [6.0, 8.0]}
    assert searches["a"]["rest_ms"]["values"] == [5.0, 7.0]
    twice = describe([Timing(2.0, 0.0), Timing(4.0, 0.0)])
    assert median_ratio(searches["a"], twice) == 2.5


def row(*, rest, ratio, size=40.0, seconds=0.5, private=200_000_000):
    return {
        "searches": {"mode hybrid": {"rest_ms": {"median": rest}}},
        "hybrid_over_dense": ratio,
        "bytes_per_token": size,
        "open_seconds": seconds,
        "open_private_bytes": private,
    }


def check_claims(figures):
    return check(speed_claims(figures))


def test_claims_are_compared_with_the_figures_they_are_about():
    small, large = row(rest=9.0, ratio=3.0), row(rest=81.0, ratio=9.0, size=65.0, seconds=1.0)
    figures = {
        "indexing": {"ratio": 0.74, "cpu_ratio": 0.75},
        "sizes": {"1000000": small, "10000000": large},
    }
    checked = check_claims(figures)
    assert [(claim["measured"], claim["holds"]) for claim in checked] == [
        *((0.74, False), (0.75, True), (3.0, True), (9.0, True), (81.0, False)),
        *((65.0, False), (1.0, False), (200.0, True)),
    ]
    bounds = [(claim["relation"], claim["bound"]) for claim in checked]
    assert bounds == [
        *(("at least", 0.75), ("at least", 0.75), ("at most", 3), ("at most", 10)),
        *(("at most", 80), ("at most", 64), ("below", 1), ("below", 300)),
    ]
    figures["sizes"] = {"1000000": small}
    assert [claim["holds"] for claim in check_claims(figures)] == [
        *(False, True, True, True, None, True, None, None)
    ]
    elsewhere = {"10000000": row(rest=1.0, ratio=1.0, private=None)}
    assert check_claims({**figures, "sizes": elsewhere})[-1]["measured"] is None


def test_a_claim_that_fails_is_seen_in_the_table():
    figures = {"indexing": {"ratio": 0.74, "cpu_ratio": 0.75}, "sizes": {}}
    figures["claims"] = check_claims(figures)
    rounds = [dict.fromkeys(("bare_seconds", "add_seconds"), 1.0)]
    rounds[0] |= dict.fromkeys(("bare_cpu_seconds", "add_cpu_seconds"), 1.0)
    figures["indexing"] |= {"tokens": 1, "rounds": rounds}
    figures["indexing"] |= dict.fromkeys(("bare_tokens_per_second", "add_tokens_per_second"), 1.0)
    figures["sizes"]["500"] = row(rest=1.0, ratio=1.0) | {
        "searches": {"rank-bm25": {"skipped": "because"}},
        **dict.fromkeys(("tokens", "documents", "sentences", "segments", "chunks"), 500),
        "repeated_share": 0.25,
    }
    page = "\n".join(grid.markdown() for grid in speed_tables(figures))
    assert "| Indexing over the host alone | at least 0.75 | 0.74 | NO |" in page
    assert "| Memory of opening, 10M tokens | below 300 MB | not measured | - |" in page
    assert "| in repeated documents | 25% |" in page


def test_chunks_hold_128_tokens_of_one_document(text, encoder, sentences):
    tokenizer = encoder.host.tokenizer
    long = " ".join(sentences[:60])
    tokens, pieces = chunks_of(long, tokenizer)
    counts = [tokenizer.count(piece) for piece in pieces]
    assert counts[:-1] == [128] * (len(pieces) - 1) and 0 < counts[-1] <= 128
    assert sum(counts) == tokens and " ".join(pieces).split() == long.split()
    short = next(documents([text])).text
    assert chunks_of(short, tokenizer) == (tokenizer.count(short), [short])
    assert chunks_of("", tokenizer) == (0, [])


def test_questions_come_from_a_file_or_from_sentences(tmp_path, text):
    plain, lines = tmp_path / "ask.txt", tmp_path / "ask.jsonl"
    asked = [f"Who has number {n}?" for n in range(12)]
    plain.write_text("\n".join(asked) + "\n\n" + asked[0])
    lines.write_text("\n".join(json.dumps({"question": text}) for text in asked))
    chosen = choose_questions(plain, [text], 5)
    assert chosen == choose_questions(lines, [text], 5) == choose_questions(plain, [], 5)
    assert len(chosen.measured) == 5 and set(chosen.measured) | set(chosen.warm_up) == set(asked)
    made = choose_questions(None, [text], 5)
    assert made == choose_questions(None, [text], 5) and len(set(made.measured)) == 5
    whole = [" ".join(document.text.split()) for document in documents([text])]
    assert not any(question in text for question in made.measured for text in whole)
    # With no others, the same are asked twice.
    assert choose_questions(plain, [], 12).warm_up == choose_questions(plain, [], 12).measured


def test_documents_come_again_with_other_ids(tmp_path, text):
    plain = tmp_path / "plain.txt"
    plain.write_text("a" * 4_000 + "b")
    once = list(documents([plain, text]))
    assert [len(document.text) for document in once[:2]] == [4_000, 1]
    assert once[2].title == "Title 0" and len(once) == 22
    again = [document for document, _ in zip(endless([plain, text]), range(44), strict=False)]
    assert len({document.id for document in again}) == 44
    assert [copy.text for copy in again[22:]] == [document.text for document in once]
    assert source_files([plain]) == [plain] and len(source_files([])) > 50
    assert isinstance(next(documents(source_files([]))), Document)


def test_unusable_files_are_named(tmp_path):
    path, empty = tmp_path / "bad.jsonl", tmp_path / "empty.txt"
    path.write_text('{"text": "a"}\n{"question": ""}\n')
    empty.write_text("\n\n")
    with pytest.raises(InputError, match=r"line 2, cannot be used \(text is missing"):
        list(documents([path]))
    with pytest.raises(InputError, match=r"line 1, cannot .* with question"):
        choose_questions(path, [], 3)
    for line in ("[" * 100_000, "[]", '{"text": "\\ud800"}', "\x00"):
        path.write_text(line)
        with pytest.raises(InputError, match=r"line 1, cannot be used .* with text"):
            list(documents([path]))
    with pytest.raises(InputError, match="has no questions"):
        choose_questions(empty, [], 3)
    with pytest.raises(InputError, match=r"no sentence to make a question from; .* --ask FILE"):
        choose_questions(None, [empty], 3)
    with pytest.raises(InputError, match=r"There is no text in .*empty.txt"):
        list(endless([empty]))
