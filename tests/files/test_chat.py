"""Chats in files: JSON of many exports, JSON Lines, and what messengers write as text."""

from __future__ import annotations

import json
import re

import pytest

from s3_retriever.files import place, read_files

MESSAGES = [
    {"speaker": "Ann", "time": "2023-05-08T13:56", "text": "When can we ship?", "room": "dev"},
    {"speaker": "Bob", "time": "2023-05-08T13:58", "text": "On Tuesday."},
]


def read(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    skipped = []
    documents = list(
        read_files(path, base=folder, on_skip=lambda file: skipped.append(file.reason))
    )
    return documents, skipped


@pytest.mark.parametrize(
    "content",
    [
        MESSAGES,
        {"title": "", "messages": MESSAGES},
        {"turns": [{"type": "joined"}, *MESSAGES]},
    ],
)
def test_each_message_is_a_document(tmp_path, content):
    (first, second), skipped = read(tmp_path, "chat.json", content)
    assert not skipped
    assert (first.text, second.text) == ("When can we ship?", "On Tuesday.")
    assert second.title == "Bob, Monday 8 May 2023, 13:58; asked: When can we ship?"
    assert (first.metadata["room"], first.metadata["speaker"]) == ("dev", "Ann")
    assert first.unit == "sentence"
    number = second.metadata["turn"]
    assert second.id == f"chat.json#{number}"
    assert place(second.metadata, second.text, 0) == f"chat.json turn {number}"


@pytest.mark.parametrize(
    ("content", "titles"),
    [
        # OpenAI
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, ["user"]),
        # Slack
        ([{"user": "U1", "ts": "1683554160.0002", "text": "Hi"}], ["U1, Monday 8 May 2023, 13:56"]),
        # Telegram
        (
            {
                "name": "Family",
                "messages": [
                    {"id": 1, "type": "service", "actor": "Ann", "text": ""},
                    {"id": 2, "date": "2023-05-08", "from": "Ann", "text": ["a ", {"text": "b"}]},
                ],
            },
            ["Family: Ann, Monday 8 May 2023"],
        ),
        # Discord
        (
            {"messages": [{"timestamp": "soon", "content": "Hi", "author": {"name": "ann"}}]},
            ["ann, soon"],
        ),
        # QMSum
        ({"meeting_transcripts": [{"speaker": "PM", "content": "Hi"}]}, ["PM"]),
    ],
)
def test_exports_of_many_programs_are_read(tmp_path, content, titles):
    documents, skipped = read(tmp_path, "chat.json", content)
    assert [document.title for document in documents] == titles
    assert not skipped


def test_lines_of_json_are_messages_too(tmp_path):
    lines = [*({**message, "id": f"m{n}"} for n, message in enumerate(MESSAGES)), ["no message"]]
    documents, skipped = read(tmp_path, "chat.jsonl", "\n".join(map(json.dumps, lines)))
    assert [document.id for document in documents] == ["m0", "m1"]
    assert documents[1].title.endswith("asked: When can we ship?")
    assert place(documents[1].metadata, "", 0) == "chat.jsonl:2"
    assert skipped == ["line 3 is not a JSON object."]


@pytest.mark.parametrize(
    "content",
    [
        "[12/05/2023, 10:31:07] Ann: When can\nwe ship?\n[12/05/2023, 10:32] Bob: At: once\n",
        "\u200e[12/05/2023, 10:31:07\u202fAM] Ann: When can\nwe ship?\n"
        "[1/5/23, 10:32] Bob: At: once",
        "12.05.23, 10:30 - Encrypted.\n12.05.23, 10:31 - Ann: When can\nwe ship?\n"
        "12.05.23, 10:31 - Carl left\nlost\n12.05.23, 10:32 - Bob: At: once",
    ],
)
def test_transcripts_of_messengers_are_read(tmp_path, content):
    (first, second), _ = read(tmp_path, "chat.txt", content)
    assert (first.text, second.text) == ("When can\nwe ship?", "At: once")
    assert first.title.startswith("Ann, 12") and first.metadata["speaker"] == "Ann"
    assert second.title.startswith("Bob, 1") and second.title.endswith("asked: we ship?")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("package.json", '{"name": "x", "author": "Ann", "version": "1"}'),
        ("quotes.json", '[{"author": "Twain", "text": "Lies."}]'),
        ("users.json", '[{"role": "admin"}, {"role": "user"}]'),
        ("blank.json", '[{"speaker": "Ann", "text": " "}]'),
        ("broken.json", '{"messages": [{"speaker": "Ann", "text": "Hi"}'),
        ("deep.json", "[" * 100_000),
        ("digits.json", f'[{{"speaker": "Ann", "text": "Hi", "time": {"9" * 5_000}}}]'),
        ("log.txt", "2023-05-08 13:56:01 ERROR: disk full\n2023-05-08 13:56:02 INFO: retry\n"),
        ("log.txt", "[2023-05-08 13:56:01] app.ERROR: full\n[2023-05-08 13:56:02] app.INFO: retry"),
        ("one.txt", "12/05/23, 10:31 - Ann: Hi\nand more prose\n"),
        ("redos.txt", f"1/1/11, 1:11 {'a' * 100_000}\n{'1/1/11, 1:11 ' * 10_000}"),
    ],
)
def test_other_files_are_read_as_before(tmp_path, name, content):
    (document,), skipped = read(tmp_path, name, content)
    assert (document.id, document.text) == (name, content)
    assert not skipped


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ('"Hi"', "message 2 is not a JSON object."),
        ('{"speaker": "Ann", "text": "\\ud800"}', "message 2 cannot be used: .* surrogate"),
        ('{"speaker": "Ann", "text": "Hi", "score": Infinity}', "chat.json#2.* inf"),
    ],
)
def test_a_bad_message_is_named_and_the_others_are_read(tmp_path, message, problem):
    content = f'[{{"speaker": "Ann", "text": "Hi"}}, {message}, {{"speaker": "Bob", "text": "Yo"}}]'
    documents, skipped = read(tmp_path, "chat.json", content)
    assert [document.text for document in documents] == ["Hi", "Yo"]
    assert len(skipped) == 1
    assert re.search(problem, skipped[0])
