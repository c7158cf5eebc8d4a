"""Conversations: turns as documents that know who spoke, when, and what was asked before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime, timezone
from typing import Any

from s3_retriever.document import Document
from s3_retriever.errors import InputError
from s3_retriever.types import check_items, check_string, shown

# English, whatever the locale: the same conversation makes the same documents everywhere.
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_MONTHS = [
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
]
# Seconds since 1970 are at least 1973 and at most 5138; above that, they are milliseconds.
_EARLIEST, _LATEST = 1e8, 1e11
_NUMBER = re.compile(r"\d{9,13}(?:\.\d+)?")
_QUESTION = re.compile("[^.!?\u2026\n\u3002\uff01\uff1f\u061f]*[?\uff1f\u061f]")
# A question is looked for at the end of a turn, and its end is kept, in characters.
_SEARCHED, _KEPT = 2_000, 120


@dataclass(frozen=True, slots=True)
class Turn:
    """What someone said at once: a message of a chat, or a speech of a meeting.

    Attributes:
        text: What was said.
        speaker: Who said it; may be empty.
        time: When: a date or time of Python, seconds or milliseconds since 1970 (UTC), ISO 8601
            text, or any other text; None if that is not known.
        metadata: What else is known about it.

    Raises:
        InputError: A field is of another type.
    """

    text: str
    speaker: str = ""
    time: date | str | float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        check_string(self.text, "text of a turn")
        check_string(self.speaker, "speaker of a turn")
        if isinstance(self.time, bool) or not isinstance(
            self.time, (date, str, int, float, type(None))
        ):
            raise InputError(
                f"The time of a turn must be a date, a number or text, not {shown(self.time)}."
            )
        if not isinstance(self.metadata, Mapping):
            raise InputError(
                f"The metadata of a turn must be a mapping, not {type(self.metadata).__name__}."
            )


_FIELDS = tuple(each.name for each in fields(Turn))


def conversation(
    turns: Iterable[Turn | Mapping[str, Any]],
    *,
    title: str = "",
    id: str = "",  # noqa: A002 - as in Document
) -> Iterator[Document]:
    """The turns of a conversation as documents, each with what it takes to understand it.

    The title of a turn says who spoke, when, and what someone else asked just before: `Planning:
    Ann, Monday 8 May 2023, 13:56; asked: When can we ship?`. Host and BM25 read it with the turn,
    so that questions with names and dates find it, and short answers are found by what they answer.

    Args:
        turns: In their order: `Turn`, or mappings with the fields of one. Blank ones are left out.
        title: What the conversation is called.
        id: Turns have the ids `id#1`, `id#2` and so on; without one, a hash of text and metadata.

    Returns:
        An iterator of documents. Their metadata is the turn's own, with `speaker`, `time` (ISO 8601
        if it is a date), `turn` (its number, from 1) and `title`.

    Raises:
        InputError: A turn cannot be used, the title or the id is not text, or JSON cannot hold a
            turn's metadata; raised while iterating.
    """
    check_string(title, "title of a conversation")
    check_string(id, "id of a conversation")
    return _documents(check_items(turns, "turns", (Turn,)), title, id)


def _documents(turns: Iterable[Any], title: str, name: str) -> Iterator[Document]:
    before: Turn | None = None
    for number, item in enumerate(turns, 1):
        turn = _turn(item, number)
        if not turn.text.strip():
            continue
        metadata = {**turn.metadata, **described(turn, before, title), "turn": number}
        try:
            document = Document(turn.text, f"{name}#{number}" if name else "", metadata)
        except InputError as error:
            raise InputError(f"Turn {number} cannot be used: {error}") from None
        yield document
        before = turn


def _turn(item: Any, number: int) -> Turn:
    if isinstance(item, Turn):
        return item
    if not isinstance(item, Mapping):
        kind = type(item).__name__
        raise InputError(f"Turn {number} must be a Turn or a mapping, not {kind}.")
    unknown = [key for key in item if key not in _FIELDS]
    if unknown or item.get("text") is None:
        what = f"the unknown field {shown(unknown[0])}" if unknown else "no text"
        raise InputError(f"Turn {number} has {what}; a turn has {', '.join(_FIELDS)}.")
    try:
        return Turn(**{key: value for key, value in item.items() if value is not None})
    except InputError as error:
        raise InputError(f"Turn {number} cannot be used: {error}") from None


def described(turn: Turn, before: Turn | None = None, title: str = "") -> dict[str, Any]:
    """The metadata of a turn: `title`, and `speaker` and `time` if they are known.

    Args:
        turn: The turn.
        before: The turn before it.
        title: What the conversation is called.
    """
    time, said = _when(turn.time)
    heading = ", ".join(filter(None, (" ".join(turn.speaker.split()), said)))
    asked = _asked(before) if before is not None and before.speaker != turn.speaker else ""
    heading = "; ".join(filter(None, (heading, asked and f"asked: {asked}")))
    heading = ": ".join(filter(None, (" ".join(title.split()), heading)))
    named = {"speaker": turn.speaker, "time": time, "title": heading}
    return {key: value for key, value in named.items() if value not in ("", None)}


def _asked(turn: Turn) -> str:
    """The last question of a turn; of a long one, its end."""
    questions = _QUESTION.findall(turn.text[-_SEARCHED:])
    question = " ".join(questions[-1].split()) if questions else ""
    return question if len(question) <= _KEPT else f"…{question[-_KEPT:]}".replace("… ", "…", 1)


def _when(time: date | str | float | None) -> tuple[str | float | None, str]:
    """A time as metadata and in words; as it is if it is not a date."""
    known = _date(time)
    if known is None:
        return time, " ".join(time.split()) if isinstance(time, str) else ""  # type: ignore[return-value]
    words = f"{_DAYS[known.weekday()]} {known.day} {_MONTHS[known.month - 1]} {known.year}"
    if isinstance(known, datetime):
        words += f", {known:%H:%M}"
    return known.isoformat(), words


def _date(time: date | str | float | None) -> date | None:
    """The date or the time that a value means; None if it means neither."""
    if time is None or isinstance(time, date):
        return time
    try:
        if isinstance(time, str):
            text = time.strip()
            if not _NUMBER.fullmatch(text):
                if len(text) == len("2023-05-08"):
                    return date.fromisoformat(text)
                return datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", text))
            time = float(text)
        if not _EARLIEST <= time < _LATEST * 1_000:
            return None
        seconds = time if time < _LATEST else time / 1_000
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
