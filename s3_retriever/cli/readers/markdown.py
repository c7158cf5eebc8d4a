"""Markdown, kept as it is written."""

from __future__ import annotations

import re

from s3_retriever.cli.readers.content import Content
from s3_retriever.cli.readers.text import decode

_FENCE = re.compile(r" {0,3}(```|~~~)")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(?P<title>.*?)[ \t]*#*[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")


def read_markdown(data: bytes) -> Content:
    """The raw text, titled by its first heading."""
    text = decode(data)
    return Content(text, _first_heading(text))


def _first_heading(text: str) -> str:
    fence = previous = ""
    for line in re.finditer(r"[^\n]+", text):
        content = line[0].rstrip("\r")
        if found := _FENCE.match(content):
            fence = "" if fence == found[1] else fence or found[1]
        elif fence:
            continue
        elif (heading := _HEADING.fullmatch(content)) and heading["title"]:
            return heading["title"]
        elif previous and _UNDERLINE.fullmatch(content):
            return previous
        # A line below a blank one, or below a rule, is no underline.
        after_blank = text.startswith("\n", line.end() + 1)
        previous = "" if after_blank or _UNDERLINE.fullmatch(content) else content.strip()
    return ""
