"""Bytes to text: byte order marks, UTF-8, and what other encoding the bytes may be in."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from s3_retriever.files.content import UnreadableError

SNIFFED_BYTES = 8_192
# Enough for a guess; the guess takes time for each byte.
_GUESSED_BYTES = 32_768

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def marked_encoding(head: bytes) -> str | None:
    """The encoding that a byte order mark names: utf-8, utf-16 or utf-32; None without a mark."""
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)


def text_encoding(path: Path) -> str:
    """The encoding to open a text file with: by its byte order mark, else UTF-8."""
    with path.open("rb") as file:
        encoding = marked_encoding(file.read(4))
    return encoding if encoding in ("utf-16", "utf-32") else "utf-8-sig"


def is_utf8(path: Path) -> bool:
    """Whether a text file has no byte order mark of another encoding."""
    return text_encoding(path) == "utf-8-sig"


def decode(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 and UTF-32 with a byte order mark; the mark is dropped.

    Other encodings are refused: a guess that is wrong would put nonsense into the index.

    Raises:
        UnreadableError: The bytes are binary data, damaged or in another encoding.
    """
    check_not_binary(data)
    encoding = marked_encoding(data) or "utf-8"
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        problem = f"the byte at offset {error.start} is invalid"
    if encoding != "utf-8":
        raise UnreadableError(
            f"it begins like {encoding.upper()}, but {problem}; save it again as UTF-8."
        )
    likely = guess_encoding(data)
    raise UnreadableError(
        f"it is not UTF-8, {problem}; it looks like {likely}, so convert it with: "
        f"iconv -f {likely} -t utf-8"
    )


def check_not_binary(data: bytes) -> None:
    """Refuse binary data, recognised by an early NUL byte that no byte order mark explains.

    Raises:
        UnreadableError: The data is binary.
    """
    offset = data.find(0, 0, SNIFFED_BYTES)
    if offset >= 0 and marked_encoding(data) in (None, "utf-8"):
        raise UnreadableError(
            f"it is binary, with a NUL byte at offset {offset}; convert it to UTF-8 text first."
        )


# Letters and signs of Western European languages. A text whose other characters are all among
# these is taken for Windows' Western code page; short texts mislead the statistics otherwise.
_WESTERN = frozenset(
    "äöüßÄÖÜáàâãåæçéèêëíìîïñóòôõøœúùûÿÁÀÂÃÅÆÇÉÈÊÍÎÑÓÔÕØŒÚÛ€£§°©®™·«»¿¡•½¼²³\xa0"
    "\u2013\u2014\u2018\u2019\u201a\u201c\u201d\u201e\u2026"  # dashes, quotes, ellipsis
)
# fmt: off
_CODE_PAGES = [
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257",
    "cp932", "euc_jp", "gb18030", "big5", "cp949", "koi8_r",
]
# fmt: on


def guess_encoding(data: bytes) -> str:
    """The most likely encoding of a text that is not UTF-8, by a name that iconv knows too."""
    sample = data[:_GUESSED_BYTES]
    if all(char in _WESTERN for char in sample.decode("cp1252", "replace") if char > "\x7f"):
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=_CODE_PAGES).best()
    return "cp1252" if best is None else best.encoding.replace("_", "-")


_DECLARED = re.compile(
    rb"""<meta\s[^>]{0,512}?charset\s*=\s*["']?\s*([\w.:-]{1,40})|"""
    rb"""<\?xml\s[^>]{0,512}?encoding\s*=\s*["']([\w.:-]{1,40})""",
    re.IGNORECASE,
)
# What browsers read these declared encodings as, which pages rely on.
_READ_AS = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}


def decode_markup(data: bytes) -> str:
    """Decode HTML: by its byte order mark, as UTF-8, or in the encoding that it declares.

    A page that is valid UTF-8 is UTF-8, whatever it declares; only pages of ASCII characters alone
    are not, because escape sequences (ISO-2022-JP) are ASCII too. What cannot be decoded is
    replaced, as browsers do.

    Raises:
        UnreadableError: The bytes are binary data.
    """
    check_not_binary(data)
    if marked := marked_encoding(data):
        return data.decode(marked, "replace").removeprefix("\ufeff")
    declared = _declared_encoding(data)
    if not data.isascii() or declared is None:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return data.decode(declared or guess_encoding(data), "replace")


def _declared_encoding(data: bytes) -> str | None:
    found = _DECLARED.search(data, 0, SNIFFED_BYTES)
    if not found:
        return None
    try:
        codec = codecs.lookup((found[1] or found[2]).decode())
    except LookupError:
        return None
    # UTF-16 cannot declare itself in ASCII; and codecs such as rot13 or hex make no text.
    if codec.name.startswith("utf") or not codec._is_text_encoding:
        return None
    return _READ_AS.get(codec.name, codec.name)
