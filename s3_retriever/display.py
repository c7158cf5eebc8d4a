"""How results look in a notebook: HTML that is escaped, bounded, and in need of nothing else.

Colours are inherited or half transparent, which reads on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from s3_retriever.document import title_of
from s3_retriever.printable import printable

if TYPE_CHECKING:
    from s3_retriever.adapters import Feature, ModuleUpdate, SailsReport
    from s3_retriever.answer import Answer, Citation
    from s3_retriever.search import DocumentResult, Explanation, Span

_MOST_SPANS = 50
_MOST_ROWS = 10
_LIST_CHARACTERS = 400
_TEXT_CHARACTERS = 4_000
_NAME_CHARACTERS = 120

_DIM = "opacity:.65;font-size:.85em"
_LINE = "1px solid rgba(128,128,128,.3)"
_CELL = "text-align:left;vertical-align:top;padding:.15em .8em .15em 0;border:none"
# The background of a token, or the colour of a bar, at full strength.
_HEAT = "rgba(255,160,0,{:.2f})"
_BAR = {True: "rgba(255,160,0,.7)", False: "rgba(110,140,220,.7)"}
_BAR_EM = 8.0


def span_html(span: Span) -> str:
    """A span: where it is from, why it was found, and its text."""
    return _box(_span(span, "", _TEXT_CHARACTERS))


def spans_html(spans: Sequence[Span]) -> str:
    """Spans, numbered, with the beginning of each one's text."""
    if not spans:
        return _box(f'<span style="{_DIM}">Nothing found.</span>')
    return _box(_spans(spans))


def document_html(document: DocumentResult) -> str:
    """A document that a search found: its title or id, why, and its best spans."""
    name, dim = _name(document.document_id), f'<div style="{_DIM}">'
    head, facts = (_name(document.title), f"{name} &nbsp; ") if document.title else (name, "")
    facts += f"score {document.score:.2f}, relevance {document.relevance:.2f}"
    return _box(f"<b>{head}</b>{dim}{facts}</div>{_spans(document.spans)}")


def explanation_html(explanation: Explanation) -> str:
    """A span with a background on each token, and what its score consists of."""
    span, bridge = explanation.span, explanation.bridge
    parts = [_heading(span, ""), _paragraph(_heat(explanation)), _contributions(explanation)]
    if bridge is not None:
        parts.append(_section("By way of", _span(bridge, "", _LIST_CHARACTERS)))
    features = (
        (
            f"{each.share:.1%}",
            f"{each.tap}/{each.feature}",
            _quoted(each.question_tokens),
            _quoted(each.span_tokens),
        )
        for each in explanation.features[:_MOST_ROWS]
    )
    heads = (
        (f"{each.share:.1%}", each.head, each.question_token, each.span_token)
        for each in explanation.attention[:_MOST_ROWS]
    )
    terms = ((f"{each.share:.1%}", each.term) for each in explanation.terms[:_MOST_ROWS])
    ends = ("in the question", "in the span")
    parts += [
        _table(_of("Features", explanation.features), ("share", "feature", *ends), features),
        _table(_of("Retrieval heads", explanation.attention), ("share", "head", *ends), heads),
        _table(_of("Words", explanation.terms), ("share", "word"), terms),
    ]
    return _box("".join(parts))


def index_html(stats: Mapping[str, Any]) -> str:
    """An index, by its `stats`: where it is, what it holds, and what it was made with."""
    recipe = stats["recipe"]
    rows = [
        ("documents", f"{stats['documents']:,}"),
        ("sentences", f"{stats['sentences']:,}"),
        ("tokens", f"{stats['tokens']:,}"),
        ("size", f"{stats['bytes'] / 1e6:,.1f} MB"),
        ("host", stats["host"]),
        ("recipe", recipe.get("name") if isinstance(recipe, Mapping) else recipe),
    ]
    where = "in memory" if stats["path"] is None else f"at {_name(stats['path'])}"
    return _box(f"<b>S3Index</b> {where}{_rows((name, str(value)) for name, value in rows)}")


def error_html(error: Exception) -> str:
    """Why there is nothing to show."""
    return _box(_escaped(str(error), _LIST_CHARACTERS))


def answer_html(answer: Answer) -> str:
    """An answer with the numbers of the spans that support its sentences, then these spans."""
    text = _cited(answer.text, answer.citations, answer.evidence)
    evidence = f'<div style="margin-top:.6em;border-top:{_LINE}">{_spans(answer.evidence)}</div>'
    return _box(_paragraph(text) + (evidence if answer.evidence else ""))


def sails_html(report: SailsReport, updates: Sequence[ModuleUpdate]) -> str:
    """An adapter's start: its features, where they fire, and what training made of it."""
    wanted, unwanted = report.examples
    rows = [
        ("layer", str(report.layer)),
        ("examples", f"{wanted:,} wanted, {unwanted:,} unwanted, tokens: {report.tokens}"),
        ("basis", f"{report.rank} directions, {report.variance:.0%} of the features' variance"),
        ("SAE", f"{report.unexplained:.0%} unexplained"),
        ("modules", f"{len(report.modules)} start in the basis, {len(report.others)} do not"),
    ]
    facts = _rows((name, value) for name, value in rows)
    features = "".join(_feature(feature) for feature in report.features)
    names = ("share", "of chance", "size", "side", "module")
    cells = (
        (f"{u.share:.1%}", f"{u.share / u.chance:.1f}x", f"{u.size:.3g}", u.side, u.name)
        for u in updates
    )
    trained = _table("The update's share in the basis", names, cells)
    return _box(f"<b>SAILS</b>{facts}{trained}{_section('Features', features)}")


def _feature(feature: Feature) -> str:
    heading = f"<b>{feature.index}</b> {_bar(feature.difference)} {feature.difference:+.3g}"
    means = f"{feature.wanted:.3g} wanted, {feature.unwanted:.3g} unwanted"
    lines = "".join(
        _paragraph(
            f'<span style="{_DIM}">{_name(each.side)} {each.value:.3g}</span> '
            f"{_escaped(each.before, _LIST_CHARACTERS)}"
            f'<span style="background:{_HEAT.format(0.5)}">{_escaped(each.token)}</span>'
            f"{_escaped(each.after, _LIST_CHARACTERS)}"
        )
        for each in feature.firings
    )
    return f'<div style="margin:.6em 0">{heading} <span style="{_DIM}">{means}</span>{lines}</div>'


def _bar(value: float) -> str:
    style = f"display:inline-block;height:.7em;width:1em;background:{_BAR[value >= 0]}"
    return f'<span style="{style}"></span>'


def _box(content: str) -> str:
    style = "line-height:1.45;max-width:56em;color:inherit;text-align:left"
    return f'<div style="{style}">{content}</div>'


def _spans(spans: Sequence[Span]) -> str:
    shown = "".join(
        _span(span, f"{rank}. ", _LIST_CHARACTERS)
        for rank, span in enumerate(spans[:_MOST_SPANS], 1)
    )
    more = len(spans) - _MOST_SPANS
    return shown + (f'<div style="{_DIM}">and {more:,} more</div>' if more > 0 else "")


def _span(span: Span, number: str, characters: int) -> str:
    content = _heading(span, number) + _paragraph(_escaped(span.text, characters))
    return f'<div style="margin:.5em 0">{content}</div>'


def _heading(span: Span, number: str) -> str:
    title, name = title_of(span.metadata), _name(span.id)
    facts = f"score {span.score:.2f}, relevance {span.relevance:.2f}"
    sources = _escaped(" + ".join(span.sources), _NAME_CHARACTERS)
    tokens = f"{span.tokens:,} token{'' if span.tokens == 1 else 's'}"
    line = f"{facts}, {sources}, {tokens}" if span.sources else f"{facts}, {tokens}"
    head, line = (_name(title), f"{name} &nbsp; {line}") if title else (name, line)
    return f'<div>{number}<b>{head}</b></div><div style="{_DIM}">{line}</div>'


def _heat(explanation: Explanation) -> str:
    """The text of a span, each token on a background as strong as its co-activation."""
    span, parts = explanation.span, []
    done, end = span.start, min(span.end, span.start + _TEXT_CHARACTERS)
    highest = max((token.score for token in explanation.tokens), default=0.0)
    for token in explanation.tokens:
        if token.score <= 0 or token.start < done or token.end > end:
            continue
        parts.append(_escaped(span.text[done - span.start : token.start - span.start]))
        colour = _HEAT.format(0.08 + 0.57 * token.score / highest)
        style = f"background:{colour};border-radius:.2em"
        parts.append(
            f'<span style="{style}" title="{token.score:.2f}">{_escaped(token.text)}</span>'
        )
        done = token.end
    rest = span.text[done - span.start :]
    return "".join(parts) + _escaped(rest, end - done)


def _contributions(explanation: Explanation) -> str:
    """A bar for each contribution to the score, in another colour if it lowers the score."""
    values = explanation.contributions
    widest = max(map(abs, values.values()), default=0.0) or 1.0
    rows = []
    for name, value in values.items():
        style = f"display:inline-block;height:.7em;background:{_BAR[value >= 0]}"
        width = f"width:{_BAR_EM * abs(value) / widest:.2f}em"
        bar = f'<span style="{style};{width}"></span>'
        rows.append(_row((_name(name), f"{value:+.2f}", bar)))
    return _section("Score", _rows_of(rows)) if rows else ""


def _cited(text: str, citations: Sequence[Citation], evidence: Sequence[Span]) -> str:
    """A text with the numbers of spans after the sentences that they support."""
    numbers = {span.id: rank for rank, span in enumerate(evidence, 1)}
    marks: dict[int, list[int]] = {}
    for citation in citations:
        if citation.span.id in numbers and citation.end <= _TEXT_CHARACTERS:
            marks.setdefault(citation.end, []).append(numbers[citation.span.id])
    parts, done = [], 0
    for end, cited in sorted(marks.items()):
        parts.append(_escaped(text[done:end]))
        parts.append(f"<sup>[{', '.join(map(str, cited[:_MOST_ROWS]))}]</sup>")
        done = end
    return "".join(parts) + _escaped(text[done:], _TEXT_CHARACTERS - done)


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [_row(map(_name, row)) for row in rows]
    if not cells:
        return ""
    heads = "".join(f'<th style="{_CELL};{_DIM};font-weight:normal">{name}</th>' for name in names)
    return _section(title, _rows_of([f"<tr>{heads}</tr>", *cells]))


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    return _rows_of(_row((f'<span style="{_DIM}">{name}</span>', _name(v))) for name, v in pairs)


def _rows_of(rows: Iterable[str]) -> str:
    # Notebooks centre tables and give their rows backgrounds.
    style = "border-collapse:collapse;border:none;font-size:inherit;margin:0"
    style += ";background:none;color:inherit"
    return f'<table style="{style}">{"".join(rows)}</table>'


def _row(cells: Iterable[str]) -> str:
    content = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
    return f'<tr style="background:none">{content}</tr>'


def _section(title: str, content: str) -> str:
    return f'<div style="margin-top:.6em"><b>{title}</b></div>{content}'


def _paragraph(content: str) -> str:
    # The writing direction of a document's text ends with it.
    style = "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate"
    return f'<div dir="auto" style="{style}">{content}</div>'


def _of(title: str, items: Sequence[object]) -> str:
    more = len(items) > _MOST_ROWS
    return f"{title} (the first {_MOST_ROWS} of {len(items):,})" if more else title


def _quoted(tokens: Sequence[str]) -> str:
    """Distinct tokens in order."""
    return " ".join(dict.fromkeys(tokens))


def _name(text: str) -> str:
    """An id, a title or a few tokens, on one line."""
    # Cut first: a long text is not worth splitting.
    cut = text[: 4 * _NAME_CHARACTERS]
    joined = " ".join(cut.split())
    longer = len(text) > len(cut) and len(joined) <= _NAME_CHARACTERS
    return f"<bdi>{_escaped(joined + '…' * longer, _NAME_CHARACTERS)}</bdi>"


def _escaped(text: str, characters: int | None = None) -> str:
    """A text for a page; of a longer one, its beginning."""
    if characters is not None and len(text) > characters:
        text = text[:characters] + "…"
    return escape(printable(text))
