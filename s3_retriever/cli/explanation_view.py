"""An explanation, for a reader and for a program."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from s3_retriever.cli.console import show_table
from s3_retriever.cli.spans_view import show_heading, show_text, span_json

if TYPE_CHECKING:
    from s3_retriever.search import Explanation

_SHOWN_FEATURES = 10
_SHOWN_TOKENS = 8
# From the palest to the strongest background; the text on it is black.
_PALE, _STRONG = (255, 249, 219), (255, 170, 0)


def explanation_json(found: Explanation) -> dict[str, Any]:
    """An explanation as JSON values."""
    return {
        "span": span_json(found.span),
        "parts": dict(found.parts),
        "bridge": None if found.bridge is None else span_json(found.bridge),
        "features": [asdict(feature) for feature in found.features],
        "terms": [asdict(term) for term in found.terms],
        "tokens": [{"text": token.text, **asdict(token)} for token in found.tokens],
    }


def show_explanation(console: Console, rank: int, found: Explanation) -> None:
    """Print a span with its tokens highlighted, and what its score is made of."""
    show_heading(console, rank, found.span)
    show_text(console, _highlighted(found))
    _show_parts(console, found)
    _show_tokens(console, found)
    _show_features(console, found)
    _show_terms(console, found)


def _show_parts(console: Console, found: Explanation) -> None:
    parts = ", ".join(f"{source} {part:+.2f}" for source, part in found.parts.items())
    if parts:
        console.print(f"  score = {parts}", highlight=False)
    if found.bridge is not None:
        text = " ".join(found.bridge.text.split())
        console.print(f"  by way of {found.bridge.id}: {text}", markup=False, highlight=False)


def _highlighted(found: Explanation) -> Text:
    # Characters are replaced one by one, so that the tokens' offsets still hold.
    text = Text(re.sub(r"\s", " ", found.span.text))
    highest = max((token.score for token in found.tokens), default=0.0)
    for token in found.tokens:
        if token.score > 0:
            begin = found.span.start
            text.stylize(_background(token.score / highest), token.start - begin, token.end - begin)
    return text


def _background(strength: float) -> Style:
    """A background between pale and strong, for a strength of 0 to 1."""
    red, green, blue = (
        round(pale + (strong - pale) * strength)
        for pale, strong in zip(_PALE, _STRONG, strict=True)
    )
    return Style(color="black", bgcolor=Color.from_rgb(red, green, blue))


def _show_tokens(console: Console, found: Explanation) -> None:
    best = sorted(found.tokens, key=lambda token: -token.score)[:_SHOWN_TOKENS]
    strongest = [f"{token.text} {token.score:.2f}" for token in best if token.score > 0]
    _show_section(console, "Strongest tokens", ", ".join(strongest) or "none")


def _show_features(console: Console, found: Explanation) -> None:
    console.print()
    title = "Features by share of the co-activation score"
    if not found.features:
        console.print(Text.assemble((f"{title}: ", "bold"), "none"), soft_wrap=True)
        return
    if len(found.features) > _SHOWN_FEATURES:
        title += f" (the first {_SHOWN_FEATURES} of {len(found.features)})"
    console.print(Text(title, "bold"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("feature", no_wrap=True)
    table.add_column("in the question", overflow="fold")
    table.add_column("in the span", overflow="fold")
    for feature in found.features[:_SHOWN_FEATURES]:
        table.add_row(
            f"{feature.share:.1%}",
            f"{feature.tap}/{feature.feature}",
            _quoted(feature.question_tokens),
            _quoted(feature.span_tokens),
        )
    show_table(console, table)


def _show_terms(console: Console, found: Explanation) -> None:
    terms = [f"{term.term} {term.share:.1%}" for term in found.terms]
    _show_section(console, "Words by share of the BM25 score", ", ".join(terms) or "none")


def _show_section(console: Console, title: str, text: str) -> None:
    console.print()
    console.print(Text.assemble((f"{title}: ", "bold"), text))


def _quoted(tokens: tuple[str, ...]) -> str:
    """Distinct tokens in order, on one line."""
    return " ".join(dict.fromkeys(" ".join(token.split()) for token in tokens))
