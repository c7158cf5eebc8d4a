"""HTML to visible text and title."""

from __future__ import annotations

import re
from typing import Any

from s3_retriever.files.content import Content, UnreadableError, one_line
from s3_retriever.files.decoding import decode_markup

# fmt: off
_HIDDEN = frozenset({
    "datalist", "desc", "iframe", "metadata", "noembed", "noframes", "noscript", "object",
    "script", "style", "title",
})
# Dropped too, but one without its end tag holds the rest of the page, which is kept.
_DROPPED = frozenset({"nav", "template"})
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details",
    "dialog", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2",
    "h3", "h4", "h5", "h6", "header", "hgroup", "hr", "legend", "li", "main", "menu", "nav", "ol",
    "option", "p", "pre", "search", "section", "summary", "table", "tbody", "tfoot", "thead", "tr",
    "ul",
})
# fmt: on
_PREFORMATTED = frozenset({"pre", "textarea", "listing", "xmp", "plaintext"})
# A blank follows these, which stand apart from the text after them.
_CELLS = frozenset({"button", "select", "svg", "td", "text", "textarea", "th"})
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})

_FORMATTING = re.compile(
    r"<(/?)(?:a|b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)(?=[\s/>])", re.IGNORECASE
)
# More open formatting elements than browsers nest.
_MANY = 512

# XHTML closes an empty element within its tag. HTML does not, and takes all that follows for the
# content of the script or title.
_XHTML = re.compile(r"""\s*<\?xml\b|<html\s[^>]{0,512}xmlns\s*=\s*["']http""", re.IGNORECASE)
_XHTML_CHARACTERS = 2_048
_EMPTY = re.compile(
    rf"<({'|'.join(sorted(_HIDDEN | _DROPPED | _PREFORMATTED))})(\s[^<>]*)?/>", re.IGNORECASE
)


def read_html(data: bytes) -> Content:
    """The visible text with block elements on lines of their own.

    The title is that of the head, else the first `h1`, else the first heading.

    Raises:
        UnreadableError: The data is binary, or shows no text.
    """
    content = html_content(decode_markup(data))
    if not content.text:
        raise UnreadableError("it has no text; save the page as a browser shows it.")
    return content


def html_content(markup: str) -> Content:
    """The visible text of HTML, which may be blank, and its title."""
    from justhtml import JustHTML  # when first needed: searches read no files

    if _XHTML.search(markup, 0, _XHTML_CHARACTERS):
        markup = _EMPTY.sub(r"<\1\2></\1>", markup)
    document = JustHTML(_bounded(markup), sanitize=False)
    kept = {name for name in _DROPPED if _is_left_open(markup, name)}
    page = _Page(kept)
    page.read(document.root)
    title = _head_title(document.root)
    return Content(page.text, title or page.heading)


def _head_title(root: Any) -> str:
    """The text of the first `title` in the head; those elsewhere, as in drawings, name no page."""
    nodes = [root]
    for name in ("html", "head", "title"):
        nodes = [child for node in nodes[:1] for child in _children(node) if child.name == name]
    return one_line("".join(text.data for node in nodes[:1] for text in _children(node)))


def _is_left_open(markup: str, name: str) -> bool:
    """Whether there are more start tags than end tags of an element."""
    starts, ends = (
        len(re.findall(rf"<{slash}{name}(?=[\s/>])", markup, re.IGNORECASE)) for slash in ("", "/")
    )
    return starts > ends


def _bounded(markup: str) -> str:
    """Markup whose formatting elements cannot multiply.

    A parser opens every formatting element that was left open again in each later block, as HTML
    demands: thousands of them make millions of nodes. They are renamed then.
    """
    ends = [found[1] for found in _FORMATTING.finditer(markup)]
    left_open = len(ends) - 2 * sum(map(bool, ends))
    return _FORMATTING.sub(r"<\1span", markup) if left_open > _MANY else markup


class _Page:
    """Collects text in order; uses a stack, because pages may be nested without limit.

    Args:
        kept: Elements to keep that are dropped otherwise.
    """

    def __init__(self, kept: set[str]) -> None:
        self._dropped = _HIDDEN | (_DROPPED - kept)
        self._pieces: list[str] = []
        self._headings: dict[str, str] = {}

    @property
    def text(self) -> str:
        """The text, without blank lines in a row and blanks at the ends of lines."""
        lines = (line.rstrip() for line in "".join(self._pieces).split("\n"))
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
        return text.strip()

    @property
    def heading(self) -> str:
        """The first `h1`, else the first heading; may be empty."""
        return self._headings.get("h1") or next(iter(self._headings.values()), "")

    def read(self, root: Any) -> None:
        """Collect the text of a node and all nodes below it."""
        stack: list[tuple[Any, bool]] = [(root, False)]
        while stack:
            node, preformatted = stack.pop()
            if isinstance(node, str):
                self._add(node, preformatted=True)
            elif isinstance(node, tuple):
                self._end_heading(*node)
            elif node.name == "#text":
                self._add(node.data, preformatted)
            elif not self._is_hidden(node):
                self._open(node, preformatted, stack)
            else:
                self._add(_edges(node.name)[0], preformatted=True)

    def _open(self, node: Any, preformatted: bool, stack: list[tuple[Any, bool]]) -> None:
        before, after = _edges(node.name)
        self._add(before, preformatted=True)
        stack.append((after, True))
        if node.name in _HEADINGS:
            stack.append(((node.name, len(self._pieces)), True))
        inside = preformatted or node.name in _PREFORMATTED
        stack += [(child, inside) for child in reversed(_children(node))]

    def _end_heading(self, name: str, start: int) -> None:
        if title := one_line("".join(self._pieces[start:])):
            self._headings.setdefault(name, title)

    def _add(self, text: str, preformatted: bool) -> None:
        if not preformatted:
            text = re.sub(r"\s+", " ", text)
            # White space that follows a break or a blank is not shown.
            if self._pieces and self._pieces[-1][-1] in "\n ":
                text = text.removeprefix(" ")
        if text:
            self._pieces.append(text)

    def _is_hidden(self, node: Any) -> bool:
        if node.name in self._dropped:
            return True
        attributes = node.attrs
        # A hidden body waits for a script to show it.
        if not attributes or node.name == "body":
            return False
        style = re.sub(r"\s", "", attributes.get("style") or "").lower()
        return "display:none" in style or attributes.get("hidden", "until-found") != "until-found"


def _children(node: Any) -> list[Any]:
    """The elements and texts below a node."""
    if node.name == "template" and getattr(node, "template_content", None) is not None:
        node = node.template_content
    return [
        child for child in node.children or () if child.name == "#text" or child.name[0] not in "!#"
    ]


def _edges(name: str) -> tuple[str, str]:
    """The white space before and after an element."""
    if name in _BLOCKS:
        return "\n", "\n"
    if name == "br":
        return "\n", ""
    return "", " " if name in _CELLS else ""
