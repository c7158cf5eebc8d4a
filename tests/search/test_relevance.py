"""Relevance means the same for every question, and evidence stops where it stops; shipped host."""

from __future__ import annotations

import pytest

from s3_retriever import Document, InputError, S3Index

HANDBOOK = [
    Document("Staff have 28 days of paid leave a year. Ask two weeks ahead.", "leave"),
    Document("A release is tested for two days. Then Quality signs it off.", "releases"),
    Document("Report a stolen laptop to the help desk at once.", "laptops"),
]
OFF_TOPIC = [
    "Who won the world cup in 1998?",
    "How do I bake a cake?",
    "What is photosynthesis?",
    "How tall is Mount Everest?",
]


@pytest.fixture(scope="module")
def index():
    with S3Index.create() as made:
        made.add(HANDBOOK, progress=False)
        yield made


@pytest.mark.parametrize("mode", ["hybrid", "s3", "bm25"])
def test_off_topic_questions_find_nothing_unless_k_spans_are_asked_for(index, mode):
    for question in OFF_TOPIC:
        # In mode `s3` nothing is left out unless asked for.
        floor = 0.05 if mode == "s3" else None
        assert index.search(question, mode=mode, min_relevance=floor) == []
        assert index.search(question, mode=mode, token_budget=2_000, min_relevance=floor) == []
        assert all(span.relevance < 0.05 for span in index.search(question, 3, mode=mode))
    assert len(index.search(OFF_TOPIC[0], 3)) == 3
    assert len(index.search(OFF_TOPIC[0], min_relevance=0)) == 5


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How much holiday do I get?", "leave"),  # shares no word with its answer
        ("My computer was stolen, what do I do?", "laptops"),
        ("How long is a release tested?", "releases"),
    ],
)
def test_the_first_try_with_three_documents_has_its_answer(index, question, answer):
    assert index.search(question)[0].document_id == answer


def test_an_answer_is_relevant_in_every_mode(index):
    for mode in ("hybrid", "s3", "bm25"):
        best, *others = index.search("How long is a release tested?", 5, mode=mode)
        assert best.relevance > 0.9
        assert all(0 <= span.relevance <= best.relevance for span in others)


def test_function_words_are_not_missed_in_a_sentence_of_their_language(index):
    word, whole = (index.search(each, 1, mode="bm25")[0] for each in ("signs", "Who signs it off?"))
    assert word.text == whole.text
    assert min(word.relevance, whole.relevance) > 0.9


def test_an_index_of_one_sentence():
    with S3Index.create() as made:
        made.add("The cat sat on the mat.", progress=False)
        assert [span.relevance > 0.9 for span in made.search("Where did the cat sit?")] == [True]
        assert made.search("Who is the king of France?") == []


def test_chance_comes_from_what_a_filter_admits():
    """Among fewer sentences the same match owes less to chance."""
    question = "How much holiday do I get?"
    rooms = " ".join(f"Room {number} has {number} chairs." for number in range(20))
    with S3Index.create() as made:
        leave, *others = HANDBOOK
        marked = Document(leave.text, "leave", {"kind": "leave"})
        made.add([marked, *others, Document(rooms, "rooms")], progress=False)
        (whole,) = made.search(question, 1)
        (filtered,) = made.search(question, 1, where={"kind": "leave"})
    assert filtered.text == whole.text
    assert filtered.relevance > whole.relevance


def test_a_sentence_is_not_relevant_because_there_are_few():
    with S3Index.create() as made:
        made.add(["Bananas are yellow.", "Puccini's last opera was unfinished."], progress=False)
        assert made.search("Who painted the Mona Lisa?") == []
        (span,) = made.search("What colour are bananas?", 1)
        assert span.relevance > 0.9


def test_words_alone_speak_in_other_languages():
    texts = ["Mitarbeiter haben 28 Tage bezahlten Urlaub.", "Der Hafen friert im Januar zu."]
    with S3Index.create() as made:
        made.add(texts, progress=False)
        (span,) = made.search("Wann friert der Hafen zu?", mode="bm25")
        assert span.text == texts[1]
        assert made.search("Wer schrieb den Faust?", mode="bm25") == []
        # A word and its stem are one word.
        (few,) = made.search("Hafen Faust Goethe Weimar Schiller", 1, mode="bm25")
        assert few.relevance < 0.9 < span.relevance


def test_words_are_looked_up_in_the_languages_of_the_documents():
    question = "Wann friert der Hafen zu?"
    with S3Index.create() as made:
        made.add("The harbour freezes over in January.", progress=False)
        assert made.search(question, mode="bm25") == []
        made.add(["Der Hafen friert im Januar zu.", "The lighthouse is old."], progress=False)
        before = made.search(question, mode="bm25")
        assert [span.text for span in before] == ["Der Hafen friert im Januar zu."]
        made.compact(progress=False)
        assert made.search(question, mode="bm25") == before


def test_a_bridge_carries_relevance_to_what_it_leads_to():
    """The answer has nothing of the question, but is found through the sentence that does."""
    answer = "Orla Brandt was born in the fishing village of Skarvik."
    texts = [
        "The film Glass Harbour was directed by Orla Brandt.",
        answer,
        *(
            f"The {what} was repaired by the town in {1900 + year}."
            for year, what in enumerate(("mill", "bridge", "tower", "school", "church", "road") * 5)
        ),
    ]
    question = "Where does the director of Glass Harbour come from?"
    with S3Index.create() as made:
        made.add([Document(text, str(n)) for n, text in enumerate(texts)], progress=False)
        found = {span.text: span.relevance for span in made.search(question)}
        alone = made.recipe.changed("hop", None)
        without = {span.text: span.relevance for span in made.search(question, 9, recipe=alone)}
    assert found[answer] > without.get(answer, 0.0)


def test_a_host_without_measured_relevance_fills_its_limits(index):
    unknown = index.recipe.changed("sentence.relevance", None)
    spans = index.search(OFF_TOPIC[0], recipe=unknown)
    assert len(spans) == 5
    assert spans[0].relevance == 1.0
    assert index.search(OFF_TOPIC[0], recipe=unknown, mode="bm25") == []


def test_the_least_relevance_is_the_callers(index):
    question = "How long is a release tested?"
    spans = index.search(question, 5)
    for least in (0.3, 0.8, 1.0):
        kept = [span for span in spans if span.relevance >= least]
        assert index.search(question, 5, min_relevance=least) == kept
    for wrong in (-0.1, 1.1, True, "much", float("nan")):
        with pytest.raises(InputError, match="min_relevance must be a number from 0 to 1"):
            index.search(question, min_relevance=wrong)
