"""The benchmarks measure what they say, on a small set and a tiny host."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from s3_retriever import Document
from s3_retriever.calibration.evaluation import evidence_recall
from s3_retriever.calibration.question_sets import Context, Question
from s3_retriever.calibration.questions import GoldSpan
from s3_retriever.cli.app import app
from s3_retriever.search import Span
from s3_retriever_bench.retrieval import report
from s3_retriever_bench.retrieval.quality import answer_recall, ranking
from s3_retriever_bench.shared.drawing import spread
from s3_retriever_bench.shared.statistics import difference, estimate
from s3_retriever_bench.speed import processes


def span(document, start, end, text=""):
    return Span(text, 1.0, 1.0, document, start, end, ("s3",), {}, 1)


def asked(*evidence, answers=()):
    return Question("q", "?", answers, tuple(GoldSpan(*label) for label in evidence), "q")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def questions_file(tmp_path, sentences):
    """Six questions, each in the words of one sentence of its own paragraph."""
    path = tmp_path / "set.jsonl"
    rows = []
    for number in range(6):
        mine = sentences[number * 100 : number * 100 + 4]
        docs = [
            {"title": f"T{number}", "sents": mine},
            {"title": f"U{number}", "sents": [f"Filler {number}."]},
        ]
        row = {
            "id": f"q{number}",
            "question": mine[2],
            "answers": [mine[2][:20]],
            "docs": docs,
            "support": [[0, 2]],
        }
        rows.append(json.dumps(row))
    path.write_text("\n".join(rows))
    return path


@pytest.fixture
def quality(questions_file, tiny_bert, tiny_codebook):
    """Runs `s3r bench quality` on the file."""
    host = ["--host", tiny_bert, "--codebook", tiny_codebook]
    settings = ["--split", "all", "--token-budget", 20, "--token-budget", 2000, "--paragraphs", 6]

    def measure(*arguments):
        return run("bench", "quality", "--data", questions_file, *host, *settings, *arguments)

    return measure


@pytest.fixture
def no_pictures(monkeypatch):
    """For runs of which only the figures matter; drawing takes most of their time."""
    monkeypatch.setattr(report, "draw_quality", lambda *_: None)


def test_sentences_must_be_covered_and_of_longer_evidence_any_part_will_do():
    sentence, section = ("d", 10, 20, False), ("d", 30, 90, True)
    assert evidence_recall(asked(sentence).evidence, [span("d", 10, 18)]) == 1
    assert evidence_recall(asked(sentence).evidence, [span("d", 10, 17)]) == 0
    assert evidence_recall(asked(sentence).evidence, [span("d", 5, 14), span("d", 14, 25)]) == 1
    assert evidence_recall(asked(sentence).evidence, [span("elsewhere", 10, 20)]) == 0
    assert evidence_recall(asked(sentence, section).evidence, [span("d", 89, 99)]) == 0.5
    assert evidence_recall(asked(section).evidence, [span("d", 90, 99)]) == 0


def test_answers_are_looked_for_where_they_occur():
    context = Context((Document("The bridge was built in Oslo.", "d"),), ())
    hit, miss = [span("d", 0, 9, "... OSLO")], [span("d", 0, 9, "none of it")]
    assert answer_recall(asked(answers=("Bergen", "Oslo")), context, hit) == 1
    assert answer_recall(asked(answers=("Oslo",)), context, miss) == 0
    assert answer_recall(asked(answers=("A long summary",)), context, hit) is None
    assert answer_recall(asked(answers=("no",)), context, hit) is None
    assert answer_recall(asked(), context, hit) is None


def test_rankings_gain_by_evidence_that_is_new():
    question = asked(("d", 0, 10, False), ("d", 20, 30, False))
    good, again, bad = span("d", 0, 10), span("d", 5, 9), span("d", 12, 18)
    other, both = span("d", 20, 30), span("d", 0, 30)

    def ndcg(*pieces):
        return ranking(question, pieces)["ndcg"]

    half = 1 / (1 + 1 / np.log2(3))
    assert ndcg(good, other) == 1
    assert ndcg(bad, good) == pytest.approx(half / np.log2(3), abs=1e-4)
    assert ndcg(both) == pytest.approx(half, abs=1e-4)
    assert ndcg(good, again, other) < ndcg(good, other)
    assert ndcg(*[bad] * 10, good) == ndcg() == 0
    assert ranking(question, [bad, bad, other])["mrr"] == pytest.approx(1 / 3, abs=1e-4)
    assert ranking(question, [bad])["mrr"] == ranking(question, [])["mrr"] == 0


def test_intervals_come_from_groups():
    values = [0.0, 1.0] * 50
    alone = estimate(values, [str(i) for i in range(100)], seed=0)
    assert alone.mean == 0.5 and 0.38 < alone.low < 0.44 and 0.56 < alone.high < 0.62
    assert alone == estimate(values, [str(i) for i in range(100)], seed=0)
    # Two halves that each agree in all questions are but two observations.
    halves = sorted(values)
    grouped = estimate(halves, ["a"] * 50 + ["b"] * 50, seed=0)
    assert (grouped.low, grouped.high) == (0, 1)
    assert estimate([None, 1.0], ["a", "b"], seed=0).n == 1
    assert estimate([None], ["a"], seed=0) is None


def test_paired_differences_are_decided_where_means_are_not():
    generator = np.random.default_rng(0)
    base = generator.random(80).tolist()
    better = [value + 0.02 + 0.01 * noise for value, noise in zip(base, base[::-1], strict=True)]
    groups = [str(i) for i in range(80)]
    gain = difference(better, base, groups, seed=0)
    assert gain.mean == pytest.approx(0.025, abs=0.002) and gain.decided()
    assert estimate(better, groups, seed=0).low < estimate(base, groups, seed=0).high
    assert not difference(base, base, groups, seed=0).decided()


def test_labels_keep_their_distance():
    assert spread([0.2, 0.8], 0.1, 0, 1) == [0.2, 0.8]
    placed = spread([1.0, 0.98, 1.0, 0.1], 0.1, 0, 1)
    assert placed[3] == 0.1
    assert sorted(placed)[1:] == pytest.approx([0.8, 0.9, 1.0])
    assert spread([0.5] * 3, 1, 0, 1) == pytest.approx([0, 1, 2])


def test_the_quality_command_measures_all_methods(tmp_path, quality):
    out = tmp_path / "out"
    result = quality("--out", out)
    assert result.exit_code == 0, result.output
    assert "ensemble-zscore" in result.output and "@2000" in result.output
    written = json.loads((out / "quality.json").read_text())
    measured = written["sets"]["set"]
    assert {"bm25", "dense-titled", "ensemble-rrf", "s3", "hybrid-paper"} < set(measured["methods"])
    assert written["machine"]["cpus"] and written["settings"]["split"] == "all"
    for name, figures in measured["methods"].items():
        assert len(measured["values"][name]["evidence"]["20"]) == len(measured["questions"]) == 6
        small, large = (figures["budgets"][budget]["evidence"] for budget in ("20", "2000"))
        assert small["low"] <= small["mean"] <= small["high"]
        # The large budget holds the whole context, but BM25 returns only what shares a word.
        assert large["mean"] == 1 or name.startswith(("s3-paper", "hybrid-paper"))
        assert figures["search_ms"] > 0 and figures["prepare_seconds_per_1k_tokens"] > 0
    # The question is the evidence word for word.
    assert measured["methods"]["bm25"]["budgets"]["20"]["evidence"]["mean"] == 1
    assert {pair["from"] for pair in measured["differences"]} == {
        measured["bar"],
        measured["single"],
    }
    assert "| bm25 |" in (out / "quality.md").read_text()
    for name in ("recall.svg", "recall.png", "cost.svg", "cost.png"):
        assert 1_000 < (out / name).stat().st_size < 150_000


@pytest.mark.usefixtures("no_pictures")
def test_a_run_goes_on_where_it_was(tmp_path, quality):
    out = tmp_path / "out"
    assert quality("--out", out, "--method", "bm25").exit_code == 0
    part = out / "parts" / "set--bm25.json"
    before = part.stat().st_mtime_ns
    more = quality("--out", out, "--method", "bm25", "--method", "s3")
    assert more.exit_code == 0, more.output
    assert part.stat().st_mtime_ns == before
    assert set(json.loads((out / "quality.json").read_text())["sets"]["set"]["methods"]) == {
        "bm25",
        "s3",
    }
    assert quality("--out", out, "--method", "bm25", "--fresh").exit_code == 0
    assert part.stat().st_mtime_ns > before and not (part.parent / "set--s3.json").exists()


@pytest.mark.usefixtures("no_pictures")
def test_results_of_other_settings_or_questions_are_not_mixed(tmp_path, quality, questions_file):
    out = tmp_path / "out"
    only = ["--out", out, "--method", "bm25"]
    assert quality(*only).exit_code == 0
    other = quality(*only, "--seed", 3)
    assert other.exit_code == 1 and "seed changed" in " ".join(other.output.split())
    rows = questions_file.read_text().splitlines()
    questions_file.write_text("\n".join(rows[:-1]))
    fewer = quality(*only)
    assert fewer.exit_code == 1 and "other questions" in " ".join(fewer.output.split())
    (out / "parts" / "set--bm25.json").write_text("{")
    damaged = quality(*only)
    assert damaged.exit_code == 1 and "damaged" in damaged.output
    assert quality(*only, "--fresh").exit_code == 0


def test_unusable_choices_end_before_anything_is_measured(tmp_path, quality, questions_file):
    assert "no method 'bm52'" in quality("--method", "bm52").output
    twice = quality("--data", questions_file, "--out", tmp_path / "out")
    assert twice.exit_code == 1 and "Two question sets" in twice.output
    assert quality("--split", "train").exit_code == 2


def test_the_memory_command_indexes_as_many_tokens_as_asked(
    tmp_path, tiny_bert, tiny_codebook, monkeypatch
):
    # Processes of their own take seconds to start; what they return has tests of its own.
    monkeypatch.setattr(processes, "run_alone", lambda work, *arguments: work(*arguments))
    out, text = tmp_path / "memory.json", tmp_path / "text.txt"
    text.write_text("A baker mends warm bread before dawn. " * 50)
    host = ["--host", tiny_bert, "--codebook", tiny_codebook]
    settings = ["--text", text, "--tokens", 500, "--tokens", 1500, "--out", out]
    result = run("bench", "memory", *host, *settings)
    assert result.exit_code == 0, result.output
    first, second = json.loads(out.read_text())["rows"]
    assert 500 <= first["tokens"] < 1500 <= second["tokens"]
    assert first["peak_bytes"] > 100 * 2**20


def test_the_startup_command_times_fresh_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_IMPORTS", {"import json": "import json"})
    monkeypatch.setattr(processes, "_MODES", ("bm25",))
    monkeypatch.setattr(processes, "_RATIOS", (("search --mode bm25", "import json"),))
    out = tmp_path / "startup.json"
    result = run("bench", "startup", "--rounds", 1, "--out", out)
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    ((search, other, ratio),) = figures["ratios"]
    assert figures["seconds"][search] > figures["seconds"][other] > 0 and ratio > 1
    assert f"{ratio:.2f}" in result.output


def test_the_startup_command_names_a_process_that_fails(monkeypatch):
    monkeypatch.setattr(processes, "_IMPORTS", {"import torch": "raise SystemExit('no torch')"})
    result = run("bench", "startup")
    assert result.exit_code == 1 and "no torch" in result.output


def test_the_relevance_command_asks_on_topic_without_evidence_and_off_topic(tmp_path):
    subjects = {
        "boats": ("Who mends the boats?", "Old Marta mends the boats.", "The harbour is deep."),
        "bread": ("When is bread baked?", "Bread is baked before dawn.", "Flour comes by rail."),
    }
    data = []
    for name, (question, answer, other) in subjects.items():
        docs = [{"title": "A", "sents": [answer]}, {"title": "B", "sents": [other]}]
        row = {"id": name, "question": question, "docs": docs, "support": [[0, 0]]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
        data += ["--data", tmp_path / f"{name}.jsonl"]
    out = tmp_path / "relevance.json"
    result = run("bench", "relevance", *data, "--split", "all", "--out", out)
    assert result.exit_code == 0, result.output
    for rows in json.loads(out.read_text())["sets"].values():
        assert rows["asked"]["recall"] == rows["asked"]["recall_without_floor"] == 1
        assert rows["taken out"]["tokens_without_floor"] > 0
        assert rows["off topic"]["nothing"] == 1
        assert rows["off topic"]["median_best_relevance"] < rows["asked"]["median_best_relevance"]
