"""Citations: each sentence of an answer leads to the evidence that it comes from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from s3_retriever import Span
from s3_retriever.answer.citations import cite


def span(text: str, name: str, title: str = "") -> Span:
    metadata = {"title": title} if title else {}
    return Span(text, 1.0, 1.0, name, 0, len(text), ("bm25",), metadata, 8)


EVIDENCE = [
    span("Staff have 28 days of paid leave a year.", "leave"),
    span("Releases are tested for two days and signed off by Quality.", "releases"),
    span("It opened in 1887 and burnt down twice.", "harbour", title="The harbour hall"),
]


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ("You get 28 days of paid leave.", ["leave"]),
        ("QUALITY signed off the release.", ["releases"]),
        ("The harbour hall opened in 1887.", ["harbour"]),  # the title counts
        ("Nobody knows.", []),
        ("The parliament dissolved on Tuesday.", []),
        ("", []),
    ],
)
def test_a_sentence_cites_the_span_whose_words_it_uses(answer, names):
    assert [citation.span.document_id for citation in cite(answer, EVIDENCE)] == names


FACTS = [
    span("The toll bridge was built in 1887 by Gustave Eiffel.", "bridge"),
    span("Gustave Eiffel was born in Dijon.", "born"),
    span("The toll is $1,200 a year (12.5 %), or 3 instalments.", "toll"),
    span("New York City has 8.3 million people.", "city"),
    span("It has 1 gate, 2 towers and 5,000 visitors a day.", "visitors", title="Castle Hill"),
]


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ("1887", ["bridge"]),
        ("1887.", ["bridge"]),
        ("in 1887", ["bridge"]),
        ("Answer: 1887", ["bridge"]),
        ("Dijon", ["born"]),
        ("**Dijon**", ["born"]),
        ('"Dijon"', ["born"]),
        ("The answer is Dijon.", ["born"]),
        ("Dijon, France", ["born"]),
        ("Gustave Eiffel", ["bridge", "born"]),
        ("Eiffel's", ["bridge", "born"]),
        ("$1,200", ["toll"]),
        ("1200", ["toll"]),
        ("12.5%", ["toll"]),
        ("12.5 percent", ["toll"]),
        ("3", ["toll"]),
        ("8.3 million", ["city"]),
        ("new york", ["city"]),
        ("5000", ["visitors"]),
        ("5,000 visitors", ["visitors"]),
        ("Castle Hill", ["visitors"]),
        ("12", []),
        ("200", []),
        ("188", []),
        ("Yes.", []),
        ("No, it was not.", []),
        ("Berlin", []),
        ("Paris, France", []),
        ("...", []),
        ("<b></b>", []),
    ],
)
def test_short_answers_cite_what_has_them(answer, names):
    assert [citation.span.document_id for citation in cite(answer, FACTS)] == names


def test_among_equals_the_search_decides():
    low, high = span("Ada was born in Botswana.", "low"), span("Botswana is large.", "high")
    cited = cite("Botswana", [low, replace(high, score=9.0)])
    assert [citation.span.document_id for citation in cited] == ["high", "low"]


def test_each_sentence_is_cited_by_itself():
    answer = "Leave is 28 days a year.  It is unclear who asked. Quality signs releases off."
    first, second = cite(answer, EVIDENCE)
    assert answer[first.start : first.end] == "Leave is 28 days a year."
    assert first.span.document_id == "leave" and 0.5 <= first.support <= 1
    assert answer[second.start : second.end] == "Quality signs releases off."
    assert second.span.document_id == "releases"


def test_copies_of_the_evidence_are_all_cited_and_the_best_comes_first():
    evidence = [span("Leave is 28 days.", "short"), *EVIDENCE, span(EVIDENCE[0].text, "copy")]
    cited = cite("Staff have 28 days of paid leave a year.", evidence)
    assert [citation.span.document_id for citation in cited] == ["leave", "copy"]
    assert cited[0].support == cited[1].support == 1


def test_an_answer_without_evidence_has_no_citations():
    assert cite("Anything at all.", []) == ()
