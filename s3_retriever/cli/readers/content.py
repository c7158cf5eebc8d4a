"""What a reader gives, or why it gives nothing."""

from __future__ import annotations

from dataclasses import dataclass

from s3_retriever.errors import InputError

EXTRA = "pip install 's3-retriever[files]'"


@dataclass(frozen=True, slots=True)
class Content:
    """What a file says.

    Attributes:
        text: Its text.
        title: The title that it gives itself; empty where it gives none.
    """

    text: str
    title: str = ""


class UnreadableError(InputError):
    """A file without usable text; the message goes on from the file's name and a colon."""
