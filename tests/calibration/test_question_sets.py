"""Question sets become tasks: documents, questions, and evidence where it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s3_retriever import InputError
from s3_retriever.calibration.public_sets import (
    fairytale_rows,
    hotpot_row,
    load_set,
    musique_row,
    qmsum_rows,
    scifact_document,
    scifact_rows,
)
from s3_retriever.calibration.question_sets import (
    Choice,
    build_task,
    form_of,
    parse_row,
    parse_sources,
    split_of,
)


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def evidence_texts(context, question):
    texts = {document.id: document.text for document in context.documents}
    return [texts[e.document_id][e.start : e.end] for e in question.evidence]


@pytest.fixture
def paragraphs(tmp_path, sentences):
    """Thirty questions, each in the words of one sentence of its own paragraph."""
    rows = []
    for number in range(30):
        mine = sentences[number * 20 : number * 20 + 4]
        docs = [
            {"title": f"T{number}", "sents": mine},
            {"title": f"U{number}", "sents": [f"Filler {number}."]},
        ]
        row = {"id": f"q{number}", "question": mine[2], "docs": docs, "support": [[0, 2]]}
        rows.append(row)
    return write(tmp_path / "mixed.jsonl", rows)


@pytest.fixture
def stories(tmp_path):
    """Two questions on one story of three sections, and one on another."""
    write(
        tmp_path / "tales.docs.jsonl",
        [
            {"title": "fox", "sents": ["A fox ran.", "It met a crow. They spoke.", "The end."]},
            {"title": "sea", "sents": ["Waves came.", "A boat sank."]},
        ],
    )
    rows = [
        {"id": "1", "question": "Whom?", "doc_ids": ["fox"], "support": [[0, 1]]},
        {"id": "2", "question": "What sank?", "doc_ids": ["sea"], "support": [[0, 1]]},
        {"id": "3", "question": "Who?", "doc_ids": ["fox"], "support": [[0, 0], [0, 1]]},
        {"id": "4", "question": "Unlabelled?", "doc_ids": ["fox"], "support": []},
    ]
    return write(tmp_path / "tales.jsonl", rows)


@pytest.fixture
def claims(tmp_path):
    """Two claims on a corpus of five abstracts."""
    corpus = [
        {"doc_id": str(i), "title": f"Study {i}", "sents": [f"We did {i}.", f"It shows {i}."]}
        for i in range(5)
    ]
    write(tmp_path / "science_corpus.jsonl", corpus)
    rows = [
        {"id": "a", "question": "Three shows.", "support": [["3", 1]]},
        {"id": "b", "question": "One shows.", "support": [["1", 1], ["1", 0]]},
        {"id": "c", "question": "Unknown.", "support": []},
    ]
    return write(tmp_path / "science_claims.jsonl", rows)


def test_mixed_contexts_hold_their_own_paragraphs_and_others(paragraphs):
    task = build_task(load_set(paragraphs), Choice("all", paragraphs=7, seed=1))
    assert task.name == "mixed" and len(task.contexts) == 30
    for context in task.contexts:
        assert len({document.text for document in context.documents}) == 7
        (question,) = context.questions
        assert evidence_texts(context, question) == [question.text]
        assert not question.evidence[0].any_part
    again = build_task(load_set(paragraphs), Choice("all", paragraphs=7, seed=1))
    other = build_task(load_set(paragraphs), Choice("all", paragraphs=7, seed=2))
    assert task.digest() == again.digest() != other.digest()
    few = build_task(load_set(paragraphs), Choice("all", questions=2))
    assert len(list(few.questions())) == 2


def test_dev_and_test_share_no_question_and_no_paragraph_is_lent_across(paragraphs):
    tasks = {split: build_task(load_set(paragraphs), Choice(split)) for split in ("dev", "test")}
    asked = {split: {q.id for q in task.questions()} for split, task in tasks.items()}
    assert len(asked["dev"] | asked["test"]) == 30 and not asked["dev"] & asked["test"]
    texts = [{d.text for c in task.contexts for d in c.documents} for task in tasks.values()]
    assert not texts[0] & texts[1]


def test_about_two_fifths_of_all_groups_are_for_development():
    dev = sum(split_of(f"group {i}") == "dev" for i in range(2_000))
    assert 0.36 < dev / 2_000 < 0.44


def test_questions_on_one_document_share_its_context_and_its_split(stories):
    task = build_task(load_set(stories), Choice("all"))
    by_document = {context.documents[0].id: context for context in task.contexts}
    assert by_document.keys() == {"fox", "sea"}
    fox = by_document["fox"]
    assert fox.documents[0].text == "A fox ran.\nIt met a crow. They spoke.\nThe end."
    assert {question.id for question in fox.questions} == {"1", "3"}
    assert {question.group for question in fox.questions} == {"fox"}
    first = next(question for question in fox.questions if question.id == "1")
    assert evidence_texts(fox, first) == ["It met a crow. They spoke."]
    assert first.evidence[0].any_part


def test_a_corpus_is_one_context_for_all_claims(claims):
    (context,) = build_task(load_set(claims), Choice("all")).contexts
    assert len(context.documents) == 5 and len(context.questions) == 2
    found = {question.id: evidence_texts(context, question) for question in context.questions}
    assert found == {"a": ["It shows 3."], "b": ["We did 1.", "It shows 1."]}
    (small,) = build_task(load_set(claims), Choice("all", corpus=3)).contexts
    assert {"1", "3"} < {document.id for document in small.documents}
    assert len(small.documents) == 3


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"id": "q"}',
        '{"id": "q", "question": "?", "docs": [], "support": [[3, 0]]}',
        '{"id": "q", "question": "?", "docs": [{"title": "T", "sents": []}], "support": [[0, 4]]}',
        "7",
    ],
)
def test_a_damaged_question_set_is_refused_by_line(tmp_path, paragraphs, line):
    path = tmp_path / "set.jsonl"
    good = Path(paragraphs).read_text().splitlines()[0]
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match="line 2"):
        load_set(str(path))


def test_missing_files_and_sets_without_questions_are_refused(tmp_path, stories):
    with pytest.raises(InputError, match="cannot be read"):
        load_set(str(tmp_path / "nowhere.jsonl"))
    (tmp_path / "tales.docs.jsonl").unlink()
    with pytest.raises(InputError, match=r"tales\.docs\.jsonl cannot be read"):
        load_set(stories)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match="empty"):
        load_set(str(tmp_path / "empty.jsonl"))
    row = {"id": "q", "question": "?", "docs": [], "support": []}
    with pytest.raises(InputError, match="No question"):
        load_set(write(tmp_path / "bare.jsonl", [row]))


def test_a_split_without_questions_is_refused(tmp_path, paragraphs):
    row = json.loads(Path(paragraphs).read_text().splitlines()[0])
    path = write(tmp_path / "one.jsonl", [row])
    empty = "dev" if split_of(row["id"]) == "test" else "test"
    with pytest.raises(InputError, match="no question in the split"):
        build_task(load_set(path), Choice(empty))


def test_public_sets_without_a_network_say_so():
    with pytest.raises(InputError, match=r"out of reach; check the connection"):
        load_set("hotpotqa")


def found_evidence(rows, sources=()):
    """By question, the texts that public rows label."""
    known = parse_sources(sources, form_of(rows[0]))
    parsed = [parse_row(row, known) for row in rows]
    return {
        row.id: [source.text[slice(*source.range(piece))] for source, piece in row.support]
        for row in parsed
    }


def test_rows_of_hotpotqa():
    row = {
        "id": "h",
        "question": "?",
        "answer": "yes",
        "context": {"title": ["A", "B"], "sentences": [["One.", " Two."], ["Three."]]},
        "supporting_facts": {"title": ["A", "B", "B", "C"], "sent_id": [1, 0, 5, 0]},
    }
    assert found_evidence([hotpot_row(row)]) == {"h": ["Two.", "Three."]}


def test_rows_of_musique():
    row = {
        "id": "m",
        "question": "?",
        "answer": "x",
        "answer_aliases": ["y"],
        "paragraphs": [
            {"title": "A", "paragraph_text": "No.", "is_supporting": False},
            {"title": "B", "paragraph_text": "All of it.", "is_supporting": True},
        ],
    }
    assert musique_row(row)["answers"] == ["x", "y"]
    assert found_evidence([musique_row(row)]) == {"m": ["All of it."]}


def test_rows_of_fairytaleqa_with_a_question_about_two_sections():
    def row(section):
        return {
            "story_name": "s",
            "story_section": section,
            "question": "?",
            "answer1": "a",
            "answer2": "",
        }

    rows, stories = fairytale_rows([row("One."), row("One.\nTwo."), row("Two.")])
    assert stories == [{"title": "s", "sents": ["One.", "Two."]}]
    assert rows[0]["answers"] == ["a"]
    assert found_evidence(rows, stories) == {
        "s-0": ["One."],
        "s-1": ["One.", "Two."],
        "s-2": ["Two."],
    }


def test_rows_of_qmsum():
    turns = [{"speaker": name, "content": f"{name} speaks."} for name in "ABCD"]
    query = {"query": "?", "answer": "!", "relevant_text_span": [["0", "1"], ["3", "3"]]}
    meeting = {"meeting_transcripts": turns, "specific_query_list": [query]}
    rows, transcripts = qmsum_rows("test", [meeting])
    assert found_evidence(rows, transcripts) == {
        "test-0-0": ["A: A speaks.", "B: B speaks.", "D: D speaks."]
    }


def test_rows_of_scifact():
    claims = [
        {"id": 3, "claim": "C", "evidence_doc_id": "7", "evidence_sentences": [0]},
        {"id": 3, "claim": "C", "evidence_doc_id": "8", "evidence_sentences": [1]},
        {"id": 4, "claim": "D", "evidence_doc_id": "", "evidence_sentences": []},
    ]
    corpus = [
        {"doc_id": i, "title": "T", "abstract": [f"{i} first.", f"{i} second."]} for i in (7, 8)
    ]
    found = found_evidence(scifact_rows(claims), [scifact_document(row) for row in corpus])
    assert found == {"3": ["7 first.", "8 second."], "4": []}
