"""Texts from documents as a terminal, a page or a model may be shown them."""

from __future__ import annotations

import re

# Characters that act on a terminal or hide what a text says: control characters but for the line
# break and the tab, other line breaks, overrides of the direction of writing, lone surrogates.
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# One character in place of one, which keeps columns and the offsets of tokens.
_SHOWN = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """A text as a terminal may show it, characters that act on a terminal replaced."""
    return UNSAFE.sub(_SHOWN, text)


def one_line(text: str) -> str:
    """A text without line breaks, which an id or a file name may contain."""
    return " ".join(text.split())
