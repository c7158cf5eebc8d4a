"""The benchmarks measure what they say, on a small set and a tiny host."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from s3_retriever import InputError
from s3_retriever.bench.datasets import build_contexts, load_questions
from s3_retriever.bench.metrics import answer_recall, evidence_recall
from s3_retriever.cli.app import app
from s3_retriever.search import Span


def span(document, start, end, text=""):
    return Span(text, 1.0, document, start, end, ("s3",), {}, 1)


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


def test_contexts_hold_their_own_paragraphs_and_the_evidence_is_where_it_says(questions_file):
    questions = load_questions(questions_file)
    contexts = build_contexts(questions, 7, None, seed=1)
    assert len(contexts) == 6
    for context in contexts:
        texts = {document.id: document.text for document in context.documents}
        assert len(texts) == 7 and len(set(texts.values())) == 7
        ((document, start, end, any_part),) = context.evidence
        assert texts[document][start:end] == context.question.text and not any_part
    assert contexts == build_contexts(questions, 7, None, seed=1)
    assert [c.question.id for c in contexts] != [
        c.question.id for c in build_contexts(questions, 7, None, seed=2)
    ]
    assert len(build_contexts(questions, 7, 2, seed=1)) == 2


def test_recall_counts_sentences_that_are_covered(questions_file):
    context = build_contexts(load_questions(questions_file), 5, 1, seed=0)[0]
    ((document, start, end, _),) = context.evidence
    assert evidence_recall(context, [span(document, start, end)]) == 1.0
    assert evidence_recall(context, [span("elsewhere", start, end)]) == 0.0
    assert evidence_recall(context, [span(document, start, (start + end) // 2)]) == 0.0
    halves = [span(document, start, (start + end) // 2), span(document, (start + end) // 2, end)]
    assert evidence_recall(context, halves) == 1.0
    answer = context.question.answers[0].upper()
    assert answer_recall(context, [span(document, 0, 9, f"... {answer} ...")]) == 1.0
    assert answer_recall(context, [span(document, 0, 9, "none of it")]) == 0.0


def test_a_whole_paragraph_is_found_by_any_sentence_of_it(tmp_path):
    docs = [{"title": "T", "sents": ["One.", "Two is longer."]}]
    row = {"id": "q", "question": "?", "answers": [], "docs": docs, "support": [[0, -1]]}
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(row))
    context = build_contexts(load_questions(path), 1, None, seed=0)[0]
    assert evidence_recall(context, [span("p000", 0, 4)]) == 1.0


@pytest.mark.parametrize(
    "line", ["{", '{"id": "q"}', '{"id": "q", "question": "?", "docs": [], "support": [[3, 0]]}']
)
def test_a_damaged_question_set_is_refused_by_line(tmp_path, line):
    path = tmp_path / "set.jsonl"
    path.write_text(line)
    with pytest.raises(InputError, match="line 1"):
        load_questions(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_questions(tmp_path / "nowhere.jsonl")


def test_the_quality_command_measures_all_methods(
    tmp_path, questions_file, tiny_bert, tiny_codebook
):
    out = tmp_path / "out" / "quality.json"
    host = ["--host", tiny_bert, "--codebook", tiny_codebook]
    settings = ["--budget", 20, "--budget", 2000, "--paragraphs", 6, "--out", out]
    result = run("bench", "quality", "--data", questions_file, *host, *settings)
    assert result.exit_code == 0, result.output
    assert "hybrid default" in result.output and "@2000" in result.output
    figures = json.loads(out.read_text())["results"]["set"]
    assert set(figures) == {"bm25", "s3 default", "hybrid default", "s3 paper", "hybrid paper"}
    # The question is the evidence word for word, and the large budget holds the whole context.
    assert figures["bm25"]["20"]["evidence_recall"] == 1.0
    for by_budget in figures.values():
        assert by_budget["2000"]["evidence_recall"] == 1.0
        assert (
            0
            <= by_budget["20"]["low"]
            <= by_budget["20"]["evidence_recall"]
            <= by_budget["20"]["high"]
            <= 1
        )


def test_the_memory_command_indexes_as_many_tokens_as_asked(tmp_path, tiny_bert, tiny_codebook):
    out, text = tmp_path / "memory.json", tmp_path / "text.txt"
    text.write_text("A baker mends warm bread before dawn. " * 50)
    host = ["--host", tiny_bert, "--codebook", tiny_codebook]
    settings = ["--text", text, "--tokens", 500, "--tokens", 1500, "--out", out]
    result = run("bench", "memory", *host, *settings)
    assert result.exit_code == 0, result.output
    first, second = json.loads(out.read_text())["rows"]
    assert 500 <= first["tokens"] < 1500 <= second["tokens"]
    assert first["peak_bytes"] > 100 * 2**20
