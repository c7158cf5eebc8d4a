"""Citations: each sentence of an answer leads to the evidence that it comes from."""

from __future__ import annotations

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
