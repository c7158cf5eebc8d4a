"""What a notebook shows of results: all of it, escaped, bounded, without the network."""

from __future__ import annotations

import pickle
from html.parser import HTMLParser

import pytest

from s3_retriever import Answer, Citation, Document, DocumentResult, Explanation, S3Index, Span

HARM = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>\x1b[2J\u202e\ud800&amp;"
STORED = HARM.replace("\ud800", "")
QUESTION = "Who signs every release?"


class Page(HTMLParser):
    """The elements, attributes and text of a piece of HTML; every element must be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.styles: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.open.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.styles += [value for name, value in attributes if name == "style"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page(shown) -> Page:
    """What a notebook shows, once it is safe to show."""
    html = shown._repr_html_()
    html.encode()
    read = Page(html)
    assert read.tags <= {"div", "span", "b", "bdi", "sup", "table", "tr", "th", "td"}
    assert read.attributes <= {"style", "title", "dir"}
    # Nothing is loaded, and no colour of text is set that a dark page would hide.
    assert not [style for style in read.styles if "url(" in style]
    assert {part for style in read.styles for part in style.split(";") if part[:6] == "color:"} <= {
        "color:inherit"
    }
    assert not set("\x1b\u202e\ud800") & set(html)
    return read


def span(text=HARM, name=HARM, **metadata) -> Span:
    return Span(text, 1.5, 0.75, name, 0, len(text), ("s3", "bm25"), metadata, 12)


def test_a_document_is_shown_with_its_spans():
    found = DocumentResult(HARM, HARM, 1.5, 0.75, (span(), span("Second.", "b")), {})
    shown = page(found)
    assert "relevance 0.75" in shown.text and "Second." in shown.text
    untitled = DocumentResult("leave.md", "", 1.5, 0.75, (span(),), {})
    assert page(untitled).text.startswith("leave.md")


@pytest.fixture(scope="module")
def index(tiny_bert, tiny_codebook):
    with S3Index.create(host=str(tiny_bert), codebook=tiny_codebook, dtype="float32") as made:
        made.add(
            [
                Document("The release manager signs every release on Friday.", id="releases"),
                Document(
                    f"A baker signs {STORED} before dawn.", id=STORED, metadata={"title": STORED}
                ),
            ]
        )
        yield made


def test_spans_are_a_list_that_notebooks_show(index):
    spans = index.search(QUESTION, k=2)
    shown = page(spans)
    assert "1. releases:0-50" in shown.text
    assert "The release manager signs every release on Friday." in shown.text
    assert f"relevance {spans[0].relevance:.2f}" in shown.text
    assert "2. " not in page(spans[:1]).text
    assert "Nothing found." in page(spans[:0]).text
    # Otherwise it is the list that it was.
    assert isinstance(spans, list)
    assert spans == list(spans) == pickle.loads(pickle.dumps(spans))
    assert repr(spans) == repr(list(spans))
    spans[0] = "something else"
    assert spans._repr_html_() is None


def test_an_explanation_shows_the_heat_of_tokens(index):
    best = index.search(QUESTION, k=1)[0]
    explanation = index.explain(QUESTION, best)
    shown = page(explanation)
    assert best.text in shown.text
    heats = [style for style in shown.styles if style.startswith("background:rgba(255,160,0,")]
    assert len(heats) == sum(token.score > 0 for token in explanation.tokens)
    assert "background:rgba(255,160,0,0.65)" in heats[0] + "".join(heats)
    for name, value in explanation.contributions.items():
        assert f"{name}{value:+.2f}" in shown.text
    assert explanation.terms[0].term in shown.text
    assert f"hidden.1/{explanation.features[0].feature}" in shown.text


def test_an_index_shows_its_sizes_also_when_closed(tiny_bert, tiny_codebook, tmp_path):
    path = tmp_path / "<b>x.s3r"
    with S3Index.create(path, str(tiny_bert), codebook=tiny_codebook) as index:
        index.add("A baker carries warm bread before dawn.", progress=False)
        shown = page(index)
        assert f"S3Index at {path}documents1sentences1" in shown.text
        assert "recipedefault" in shown.text
    assert "is closed; open it again" in page(index).text


def test_an_answer_cites_its_spans():
    spans = [span("The sky is blue.", "a", title="Sky"), span()]
    citations = (Citation(0, 3, spans[1], 1.0), Citation(0, 3, spans[0], 0.8))
    shown = page(Answer("Yes. <b>No</b>.", spans, citations, 10, 5, 0.1, 0.2))
    assert shown.text.startswith("Yes[2, 1]. <b>No</b>.1. Sky")
    assert "The answer is not" in page(Answer("The answer is not in it.", [], (), 0, 0, 0, 0)).text


def test_harm_is_text(index):
    hostile = span(title=HARM)
    assert "<script>alert(1)</script>" in page(hostile).text
    found = index.search("a baker", k=2, mode="bm25")
    assert "<script>alert(1)</script>" in page(found).text
    baker = next(found_span for found_span in found if found_span.document_id != "releases")
    assert "onerror" in page(index.explain("a baker", baker)).text
    page(Answer(HARM, [hostile], (Citation(0, len(HARM), hostile, 1.0),), 1, 1, 0, 0))
    page(Explanation(hostile, {}, hostile, (), (), (), ()))


def test_whatever_is_long_is_cut():
    long = span("x" * 1_000_000, "y" * 1_000_000, title="z " * 1_000_000)
    assert len(long._repr_html_()) < 6_000
    from s3_retriever.search.span import SpanList

    shown = SpanList([long] * 2_000)._repr_html_()
    assert len(shown) < 80_000
    assert "and 1,950 more" in shown
    answer = Answer("w" * 1_000_000, [long] * 500, (), 1, 1, 0, 0)
    assert len(answer._repr_html_()) < 80_000
    assert len(Explanation(long, {}, None, (), (), (), ())._repr_html_()) < 6_000
