"""Chats: messages in JSON with speaker, time and text, and what messengers export as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from s3_retriever.errors import InputError
from s3_retriever.files.content import Content, UnreadableError, one_line
from s3_retriever.files.lines import first_json_line, numbered_lines
from s3_retriever.paths import nan_as_null
from s3_retriever.turns import Turn, described

# What exports call the text, the speaker and the time of a message. Things that are not messages
# have authors and users, too, so those count only beside a time.
_TEXTS = ("text", "content", "message", "body")
_SPEAKERS = ("speaker", "role", "sender")
_AUTHORS = ("author", "from", "user", "username", "name")
_TIMES = ("time", "timestamp", "datetime", "date", "ts", "created_at", "sent_at")
# What they call the list of messages and the conversation, and an author who is an object.
_LISTS = (
    *("messages", "turns", "conversation", "dialogue", "dialog", "transcript", "utterances"),
    "meeting_transcripts",
)
_TITLES = ("title", "name", "subject", "topic")
_NAMES = ("nickname", "display_name", "real_name", "name", "username")
# What a chat has near its beginning, in characters.
_NAMED = re.compile(rf'"(?:{"|".join((*_SPEAKERS, *_AUTHORS))})"')
_HEAD = 65_536
# Items or lines at the beginning that show whether a file is a chat.
_TRIED = 20
# `[12/05/2023, 10:31:07] Ann: text` or `12.05.23, 10:31 - Ann: text`. Logs have no comma there.
_STAMP = re.compile(
    r"[\u200e\u200f]?(?P<open>\[)?"
    r"(?P<time>\d{1,4}[-./]\d{1,2}[-./]\d{1,4},[ \u202f\xa0]\d{1,2}[:.]\d{2}(?:[:.]\d{2})?"
    r"(?:[ \u202f\xa0]?[AaPp]\.?[Mm]\.?)?)(?(open)\]| [-\u2013]) "
    r"(?:(?P<speaker>[^:\n]{1,80}): ?(?P<text>.*))?"
)


def read_chat(text: str) -> list[Content | UnreadableError] | None:
    """The messages of a chat in JSON, each with who wrote it, when, and what was asked before.

    A chat is a list of objects with a text (`text`, `content`, `message` or `body`) and a speaker
    (`speaker`, `role` or `sender`; beside a time also `author`, `from`, `user` or `name`), or an
    object with such a list in `messages`, `turns` or the like and perhaps a `title`. Messages
    without text, such as pictures, are left out.

    Args:
        text: JSON.

    Returns:
        The messages, and errors for items that are not objects; None if it is not a chat.
    """
    # Most JSON files are not chats, and parsing one takes several times its size in memory.
    value = _parsed(text) if _NAMED.search(text, 0, _HEAD) else None
    title = ""
    if isinstance(value, dict):
        title = next((value[key] for key in _TITLES if isinstance(value.get(key), str)), "")
        value = next((value[key] for key in _LISTS if isinstance(value.get(key), list)), None)
    if not isinstance(value, list) or not any(map(_is_message, value[:_TRIED])):
        return None
    return list(_messages(enumerate(value, 1), title))


def is_chat_lines(path: Path) -> bool:
    """Whether it is a JSON Lines file whose first line is a message of a chat."""
    return _is_message(_parsed(first_json_line(path)))


def read_chat_lines(path: Path) -> Iterator[Content | UnreadableError]:
    """The messages of a chat in JSON Lines, one at a time, as `read_chat` reads those of a list.

    Raises:
        UnreadableError: The file cannot be decoded; raised while iterating.
    """
    lines = ((number, _parsed(line)) for number, line in numbered_lines(path))
    yield from _messages(lines, by_line=True)


def read_transcript(text: str) -> list[Content] | None:
    """The messages of a chat as messengers export it, a line with date, time and name each.

    Lines without a date belong to the message before; lines with a date and no name, on which the
    messenger says something itself, are left out.

    Returns:
        The messages; None unless the text begins with a date and two of its first lines are
        messages.
    """
    lines = text.splitlines()
    first = [_STAMP.match(line) for line in lines[:_TRIED] if line.strip()]
    if not first or not first[0] or sum(1 for line in first if line and line["speaker"]) < 2:
        return None
    said: list[str] = []
    turns: list[tuple[int, str, str, list[str]]] = []
    for number, line in enumerate(lines, 1):
        stamped = _STAMP.match(line)
        if stamped is None:
            said.append(line)
            continue
        said = []
        if stamped["speaker"]:
            said = [stamped["text"]]
            turns.append((number, one_line(stamped["time"]), stamped["speaker"].strip(), said))
    contents, before = [], None
    for number, time, speaker, texts in turns:
        turn = Turn("\n".join(texts).strip(), speaker, time)
        if turn.text:
            contents.append(_content(turn, before, "", number, {"line": number}))
            before = turn
    return contents


def _messages(
    values: Iterable[tuple[int, Any]], title: str = "", *, by_line: bool = False
) -> Iterator[Content | UnreadableError]:
    """The messages of a chat as contents.

    Args:
        values: JSON values with their numbers.
        title: What the chat is called.
        by_line: Whether the values are lines of a file, which may have ids of their own.
    """
    what, kind = ("line", "line") if by_line else ("message", "turn")
    before: Turn | None = None
    for number, value in values:
        if not isinstance(value, dict):
            yield UnreadableError(f"{what} {number} is not a JSON object.")
            continue
        text = _text(value) or ""
        if not text.strip():
            continue
        try:
            turn = Turn(text, _speaker(value, (*_SPEAKERS, *_AUTHORS)), _time(value))
        except InputError as error:
            yield UnreadableError(f"{what} {number} cannot be used: {error}")
            continue
        own = {key: each for key, each in value.items() if isinstance(each, (str, int, float))}
        for key in (*_TEXTS, *_TIMES, *_SPEAKERS):
            own.pop(key, None)
        own_id = own.pop("id", "") if by_line else ""
        name = "" if isinstance(own_id, bool) else str(own_id)
        called = own.pop("title", title)
        called = called if isinstance(called, str) else title
        yield _content(turn, before, called, number, own | {kind: number}, name)
        before = turn


def _content(
    turn: Turn,
    before: Turn | None,
    title: str,
    number: int,
    metadata: Mapping[str, Any],
    own_id: str = "",
) -> Content:
    known = described(turn, before, title)
    heading = known.pop("title", "")
    return Content(turn.text, heading, metadata={**metadata, **known}, part=str(number), id=own_id)


def _parsed(line: str) -> Any:
    """A text as a JSON value; None if it is not JSON."""
    try:
        return json.loads(line, parse_constant=nan_as_null)
    except (ValueError, RecursionError):
        return None


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict) or _text(value) is None:
        return False
    return bool(_speaker(value, _SPEAKERS if _time(value) is None else (*_SPEAKERS, *_AUTHORS)))


def _text(message: Mapping[str, Any]) -> str | None:
    """The text of a message, which may be in parts; None if it has none."""
    for key in _TEXTS:
        value = message.get(key)
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            parts = [part.get("text") if isinstance(part, dict) else part for part in value]
            return "".join(part for part in parts if isinstance(part, str))
    return None


def _speaker(message: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Who wrote a message; empty if it does not say."""
    for key in keys:
        value = message.get(key)
        if isinstance(value, dict):
            value = next((value[name] for name in _NAMES if isinstance(value.get(name), str)), None)
        if isinstance(value, str) and value.strip():
            return one_line(value)
    return ""


def _time(message: Mapping[str, Any]) -> str | float | None:
    """When a message was written; None if it does not say."""
    for key in _TIMES:
        value = message.get(key)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return value
    return None
