"""The second hop, with the shipped host: evidence that shares nothing with the question."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from s3_retriever import Document, Interleave, Recipe, S3Index, SecondHop, TapRecipe

PEOPLE = {
    "Anatole Litvak": "He spent his childhood in Kiev. Later he worked in theatre.",
    "Marie Laforet": "She was born in the city of Bordeaux. Her first record sold badly.",
    "Juan Ortega": "Ortega was born in Seville, a city of bells. He never married.",
    "Ingrid Holm": "Bergen is the city where she was born. She painted sets for the opera.",
    "Peter Brandt": "Born in Leipzig, the director fled with one suitcase. His diaries were burnt.",
    "Akira Mori": "Mori, a film director, was born in Osaka. He collected old maps.",
    "Nadia Rossi": "Born in the city of Turin, she taught Latin. Her novels were translated.",
}
FILMS = {
    "The Long Night": "The Long Night is a film of 1947. It was directed by Anatole Litvak.",
    "The Red Door": "A banker loses his key in this comedy. Juan Ortega wrote the script.",
    "Silent Harbour": "Fishermen wait for a ship. The music is by Ingrid Holm.",
    "Winter Train": "Peter Brandt plays a stoker. The director died the same night.",
    "Glass Garden": "Two sisters inherit a greenhouse. It was shot in Osaka.",
}
QUESTION = "In which city was the director of The Long Night born?"
BRIDGE = "It was directed by Anatole Litvak."
ANSWER = "He spent his childhood in Kiev."


def corpus():
    for kind, texts_of_kind in (("person", PEOPLE), ("film", FILMS)):
        for name, text in texts_of_kind.items():
            yield Document(text, name, {"title": name, "kind": kind})


@pytest.fixture(scope="module")
def index():
    with S3Index.create() as made:
        made.add(corpus(), progress=False)
        yield made


def one_pass(index):
    return index.recipe.changed("hop", None)


def texts(spans):
    return [span.text for span in spans]


def test_the_second_hop_finds_what_the_first_leads_to(index):
    hopped = texts(index.search(QUESTION, 24))
    single = texts(index.search(QUESTION, 24, recipe=one_pass(index)))
    assert hopped.index(ANSWER) < 6 < single.index(ANSWER)
    # What was found directly stays in front.
    assert hopped[:3] == single[:3] and BRIDGE in hopped[:3]


def test_a_span_says_whether_the_hop_found_it(index):
    spans = {span.text: span for span in index.search(QUESTION, 24)}
    assert "hop" in spans[ANSWER].sources
    assert "hop" not in spans[BRIDGE].sources
    explanation = index.explain(QUESTION, spans[ANSWER])
    assert explanation.bridge is not None and explanation.bridge.text == BRIDGE
    assert explanation.contributions["hop"] > 0
    assert sum(explanation.contributions.values()) == pytest.approx(spans[ANSWER].score)
    assert spans[ANSWER].bridge == explanation.bridge.id
    for span in spans.values():
        assert sum(span.contributions.values()) == pytest.approx(span.score, abs=1e-5)


def test_bm25_alone_takes_one_pass(index):
    spans = index.search(QUESTION, 24, mode="bm25")
    assert spans == index.search(QUESTION, 24, mode="bm25", recipe=one_pass(index))


def test_documents_that_the_filter_excludes_cannot_be_bridges(index):
    for span in index.search(QUESTION, 24, where={"kind": "person"}):
        assert span.metadata["kind"] == "person"
    unfiltered = index.search(QUESTION, 24)
    filtered = index.search(QUESTION, 24, where={"kind": "person"})
    places = [
        [span.text for span in spans if span.metadata["kind"] == "person"].index(ANSWER)
        for spans in (unfiltered, filtered)
    ]
    # Only a film leads to Kiev.
    assert places[0] < places[1]


def test_an_index_too_small_for_margins_gets_one_pass():
    with S3Index.create() as small:
        small.add(list(corpus())[:5], progress=False)
        for mode in ("hybrid", "s3"):
            spans = small.search(QUESTION, 10, mode=mode)
            single = small.search(QUESTION, 10, mode=mode, recipe=one_pass(small))
            assert texts(spans) == texts(single)


def test_a_hop_needs_z_scores():
    with pytest.raises(ValidationError, match="hop needs fusion z_score"):
        Recipe(taps={"hidden.5": TapRecipe()}, fusion=Interleave(), hop=SecondHop())
