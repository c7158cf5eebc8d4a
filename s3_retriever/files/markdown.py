"""Markdown to text, title and the metadata of its front matter."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from s3_retriever.errors import InputError
from s3_retriever.files.content import Content, one_line
from s3_retriever.files.decoding import decode
from s3_retriever.files.html import html_content
from s3_retriever.metadata import json_value

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
    r"---[ \t]*\r?\n(?![ \t]*\r?\n)(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
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
    """Values as JSON has them; as text what it has no form for, such as NaN."""
    return {
        str(key): [_plain(item) for item in value] if isinstance(value, list) else _plain(value)
        for key, value in values.items()
    }


def _plain(value: Any) -> Any:
    try:
        value = json_value(value, "front matter")
        json.dumps(value, ensure_ascii=False).encode()
    except (InputError, UnicodeEncodeError):
        return str(value).encode(errors="replace").decode()
    return value


def _first_heading(text: str) -> str:
    from markdown_it import MarkdownIt  # when first needed: searches read no files

    # Blocks alone; what is in a line is only parsed for the heading.
    blocks = MarkdownIt("commonmark").disable(["inline", "text_join"])
    references: dict[str, Any] = {}
    tokens = blocks.parse(text[:_HEAD_CHARACTERS], references)
    for position, token in enumerate(tokens):
        title = ""
        if token.type == "heading_open" and token.level == 0:
            title = _heading_text(tokens[position + 1].content, references)
        elif token.type == "html_block" and token.level == 0:
            title = html_content(token.content).title
        if title:
            return title
    return ""


def _heading_text(heading: str, references: dict[str, Any]) -> str:
    """The text of a heading without its marks.

    Args:
        heading: Its source.
        references: What the parser found for links in the rest of the text.
    """
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

    tokens = MarkdownIt("commonmark").parseInline(heading[:_HEADING_CHARACTERS], references)
    return one_line("".join(texts(tokens)))
