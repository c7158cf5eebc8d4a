"""HTML, reduced to what a reader of the page sees."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from s3_retriever.cli.readers.content import EXTRA, Content, UnreadableError
from s3_retriever.cli.readers.text import check_not_binary

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

_DROPPED = frozenset({"head", "nav", "noscript", "script", "style", "template"})
# fmt: off
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "dialog",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4",
    "h5", "h6", "header", "hr", "li", "main", "ol", "p", "pre", "section", "summary", "table",
    "tbody", "tfoot", "thead", "tr", "ul",
})
# fmt: on
_CELLS = frozenset({"td", "th"})


def read_html(data: bytes) -> Content:
    """The visible text, block elements on lines of their own, titled by `<title>`.

    Raises:
        UnreadableError: The data is binary, or the library is missing.
    """
    check_not_binary(data)
    soup = _parse(data)
    title = soup.title.get_text() if soup.title else ""
    text = "".join(_pieces(soup))
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n (?! )", "\n", text)
    return Content(re.sub(r"\n{3,}", "\n\n", text).strip(), " ".join(title.split()))


def _parse(data: bytes) -> BeautifulSoup:
    try:
        from bs4 import BeautifulSoup
    except ImportError:
        raise UnreadableError(f"HTML needs Beautiful Soup; install it with: {EXTRA}") from None
    with warnings.catch_warnings():
        # Beautiful Soup warns of input that looks like XML or like a file name.
        warnings.simplefilter("ignore")
        return BeautifulSoup(data, "html.parser")


def _pieces(root: Any) -> Iterator[str]:
    """The text in order. A stack, not recursion: pages may be nested without limit."""
    from bs4.element import CData, NavigableString, Tag

    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        node, preformatted = stack.pop()
        if isinstance(node, Tag):
            if node.name in _DROPPED:
                continue
            before, after = _edges(node.name)
            yield before
            inside = preformatted or node.name == "pre"
            # Not a NavigableString, but passed on in the same way.
            stack.append((after, True))
            stack += [(child, inside) for child in reversed(node.contents)]
        elif type(node) in (str, NavigableString, CData):
            yield str(node) if preformatted else re.sub(r"\s+", " ", node)


def _edges(name: str) -> tuple[str, str]:
    """What separates an element from what comes before and after it."""
    if name in _BLOCKS:
        return "\n", "\n"
    if name == "br":
        return "\n", ""
    return "", " " if name in _CELLS else ""
