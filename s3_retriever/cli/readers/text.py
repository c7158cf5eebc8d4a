"""Plain text and source code."""

from __future__ import annotations

from s3_retriever.cli.readers.content import Content, UnreadableError

SNIFFED_BYTES = 8_192


def read_text(data: bytes) -> Content:
    """Decode UTF-8, with or without a byte order mark."""
    return Content(decode(data))


def decode(data: bytes) -> str:
    """The text of UTF-8 bytes.

    Raises:
        UnreadableError: They are binary data or in another encoding.
    """
    check_not_binary(data)
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UnreadableError(
            f"it is not UTF-8, the byte at offset {error.start} is invalid; convert it, for "
            "example with: iconv -f latin1 -t utf-8"
        ) from None


def check_not_binary(data: bytes) -> None:
    """Refuse binary data, which has a NUL byte early on.

    Raises:
        UnreadableError: There is one.
    """
    offset = data.find(0, 0, SNIFFED_BYTES)
    if offset >= 0:
        raise UnreadableError(
            f"it is binary, with a NUL byte at offset {offset}; convert it to UTF-8 text first."
        )
