"""Markdown to text, title and the metadata of its front matter."""

from __future__ import annotations

import json
import re
import sys
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from s3_retriever.files.content import Content, one_line
from s3_retriever.files.decoding import decode
from s3_retriever.files.html import html_content

if TYPE_CHECKING:
    from markdown_it.token import Token

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Titles and front matter are looked for in this many characters, which bounds the time.
_HEAD_CHARACTERS = 65_536
_HEADING_CHARACTERS = 1_024
_MAX_LISTS = 256

_YAML = re.compile(
    r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)
_TOML = re.compile(r"\+\+\+[ \t]*\r?\n(.*?)^\+\+\+[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)

# A value at the left margin, read so where YAML cannot be: `title: Pools: the rules` is none.
_FIELD = re.compile(r"^([A-Za-z_][\w-]*):[ \t]+(\S.*?)[ \t\r]*$", re.MULTILINE)


def read_markdown(data: bytes) -> Content:
    """The raw text without front matter, whose lines are left blank.

    The title is that of the front matter, else the first heading, as CommonMark or in HTML.

    Raises:
        UnreadableError: The data is binary or not UTF-8.
    """
    return markdown_content(decode(data))


def markdown_content(text: str) -> Content:
    """As `read_markdown`, from text."""
    metadata, text = _split_front_matter(text)
    title = metadata.pop("title", None)
    title = one_line(str(title)) if isinstance(title, (str, int, float)) else ""
    return Content(text, title or _first_heading(text), metadata=metadata)


def _split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The values of the front matter, and the text with blank lines in its place."""
    head = text[:_HEAD_CHARACTERS]
    for pattern, load in ((_YAML, _load_yaml), (_TOML, _load_toml)):
        if found := pattern.match(head):
            values = load(found[1])
            if isinstance(values, dict):
                return _as_json(values), "\n" * found[0].count("\n") + text[found.end() :]
    return {}, text


def _load_yaml(text: str) -> Any:
    import yaml

    try:
        # The parser takes quadratic time for nested lists; and aliases can repeat a value within
        # itself many times over, until it fills the memory.
        if text.count("[") + text.count("{") > _MAX_LISTS or any(
            isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)
        ):
            return _fields(text)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return _fields(text)


def _fields(text: str) -> dict[str, str] | None:
    """Values at the left margin; None if there are none."""
    return {name: value.strip("\"'") for name, value in _FIELD.findall(text)} or None


def _load_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return None


def _as_json(values: dict[Any, Any]) -> dict[str, Any]:
    """Values as JSON has them; dates and what JSON lacks as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set)):
            return [plain(item) for item in value]
        if isinstance(value, (datetime, date, time)):
            return value.isoformat()
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError):
            return str(value).encode(errors="replace").decode()
        return value

    return {str(key): plain(value) for key, value in values.items()}


def _first_heading(text: str) -> str:
    from markdown_it import MarkdownIt  # when first needed: searches read no files

    # Blocks alone; what is in a line is only parsed for the heading.
    blocks = MarkdownIt("commonmark").disable(["inline", "text_join"])
    tokens = blocks.parse(text[:_HEAD_CHARACTERS])
    for position, token in enumerate(tokens):
        title = ""
        if token.type == "heading_open" and token.level == 0:
            title = _plain(tokens[position + 1].content)
        elif token.type == "html_block" and token.level == 0:
            title = html_content(token.content).title
        if title:
            return title
    return ""


def _plain(heading: str) -> str:
    """The text of a heading without its marks."""
    from markdown_it import MarkdownIt

    def texts(tokens: list[Token]) -> list[str]:
        pieces = []
        for token in tokens:
            if token.children:
                pieces += texts(token.children)
            elif token.type == "html_inline":
                pieces.append(" " if token.content.startswith("<br") else "")
            else:
                pieces.append(token.content or " ")
        return pieces

    tokens = MarkdownIt("commonmark").parseInline(heading[:_HEADING_CHARACTERS])
    return one_line("".join(texts(tokens)))
