"""Documents as results, ranked by their evidence; with the shipped host."""

from __future__ import annotations

import pytest

from s3_retriever import Document, InputError, S3Index

TEXTS = {
    "kites": "Kites are flown at sea. A kite pulled a ship. Wind moves the kite and the ship.",
    "ships": "The ship was towed. Its crew rowed. Nobody saw a sail.",
    "copy": "The ship was towed. Its crew rowed. Nobody saw a sail.",
    "tea": "Green tea is steamed. Black tea is left to wither.",
}
QUESTION = "Did a kite pull the ship?"


@pytest.fixture(scope="module")
def index():
    with S3Index.create() as made:
        metadata = {"title": "At sea", "kind": "wind"}
        made.add(
            [
                Document(text, name, metadata if name == "kites" else {"kind": "other"})
                for name, text in TEXTS.items()
            ],
            progress=False,
        )
        yield made


@pytest.mark.parametrize("mode", ["hybrid", "s3", "bm25"])
def test_documents_come_best_first_each_with_its_best_spans(index, mode):
    found = index.search(QUESTION, 2, mode=mode, group_by="document")
    assert [result.document_id for result in found] == ["kites", "ships"]
    assert found[0].score > found[1].score
    assert (found[0].title, found[0].metadata["kind"]) == ("At sea", "wind")
    for result in found:
        assert 1 <= len(result.spans) <= 3
        assert {span.document_id for span in result.spans} == {result.document_id}
        assert [span.score for span in result.spans] == sorted(
            (span.score for span in result.spans), reverse=True
        )
        assert result.relevance == max(span.relevance for span in result.spans)
        for span in result.spans:
            assert TEXTS[result.document_id][span.start : span.end] == span.text


def test_a_document_with_the_same_sentences_is_left_out_unless_asked_for(index):
    def names(**options):
        found = index.search(QUESTION, 9, group_by="document", **options)
        return [result.document_id for result in found]

    assert "copy" not in names()
    assert names(unique=False)[:3] == ["kites", "ships", "copy"]
    assert names(where={"kind": "wind"}) == ["kites"]


def test_limits_hold_for_documents_as_for_spans(index):
    whole = index.search(QUESTION, 9, group_by="document", spans_per_document=9)
    budget = whole[0].tokens + whole[1].spans[0].tokens
    found = index.search(
        QUESTION, token_budget=budget, min_relevance=0, group_by="document", spans_per_document=9
    )
    assert sum(result.tokens for result in found) <= budget
    assert found[0] == whole[0]
    (first, *_) = index.search(
        QUESTION, 1, group_by="document", order="document", spans_per_document=9
    )
    assert [span.start for span in first.spans] == sorted(span.start for span in first.spans)
    assert len(first.spans) == 3
    # Without limits, as for spans: a budget of 512 tokens, and nothing that is not relevant.
    assert "tea" not in [r.document_id for r in index.search(QUESTION, group_by="document")]


def test_a_search_for_spans_may_take_few_of_each_document(index):
    capped = index.search(QUESTION, 9, spans_per_document=1)
    assert len({span.document_id for span in capped}) == len(capped) > 1
    assert capped[0] == index.search(QUESTION, 1)[0]
    two = [span.document_id for span in index.search(QUESTION, 9, spans_per_document=2)]
    assert two.count("kites") == 2


def test_results_name_their_documents(index):
    found = index.search(QUESTION, 2, group_by="document")
    assert [document.id for document in index.get(found)] == ["kites", "ships"]
    assert index.get(found[0]).text == TEXTS["kites"]


def test_spans_may_take_along_what_is_around_them(index):
    (section,) = index.search("Whose crew rowed?", 1, context="section")
    assert section.text == TEXTS["ships"]
    (document,) = index.search("Whose crew rowed?", 1, context="section", group_by="document")
    assert [span.text for span in document.spans] == [TEXTS["ships"]]


@pytest.mark.parametrize(
    "options",
    [{"context": "page"}, {"group_by": "page"}, {"group_by": True}, {"spans_per_document": 0}],
)
def test_other_groups_and_caps_are_refused(index, options):
    with pytest.raises(InputError, match=next(iter(options))):
        index.search(QUESTION, **options)


def test_a_single_choice_is_named_alone(index):
    with pytest.raises(InputError, match=r"^group_by must be document, not 'docs'\.$"):
        index.search(QUESTION, group_by="docs")


def test_deleted_documents_are_not_found_and_enter_no_statistic():
    with S3Index.create() as index, S3Index.create() as fresh:
        index.add(Document(text, name) for name, text in TEXTS.items())
        index.delete(["kites", "copy"])
        fresh.add(Document(TEXTS[name], name) for name in ("ships", "tea"))
        for mode in ("hybrid", "bm25"):
            assert index.search(QUESTION, mode=mode, group_by="document") == fresh.search(
                QUESTION, mode=mode, group_by="document"
            )
