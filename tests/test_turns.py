"""Conversations: what a turn takes along of who spoke, when, and what was asked."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from s3_retriever import InputError, S3Index, Turn, conversation

CHAT = [
    {"speaker": "Ann", "time": "2023-05-08T13:56:00", "text": "Hi all. When can we ship the beta?"},
    {"speaker": "Bob", "time": "2023-05-08T13:58:10Z", "text": "On Tuesday."},
    {"speaker": "Bob", "time": "2023-05-08T13:58:40Z", "text": " "},
    {"speaker": "Ann", "time": datetime(2023, 5, 9, 9, 5), "text": "Good. Where is the party?"},
    {"speaker": "Ann", "text": "At mine!"},
    {"speaker": None, "text": "See you there."},
]


def test_a_turn_says_who_spoke_when_and_what_was_asked():
    documents = list(conversation(CHAT, title="Launch", id="chat"))
    assert [(document.id, document.title) for document in documents] == [
        ("chat#1", "Launch: Ann, Monday 8 May 2023, 13:56"),
        ("chat#2", "Launch: Bob, Monday 8 May 2023, 13:58; asked: When can we ship the beta?"),
        ("chat#4", "Launch: Ann, Tuesday 9 May 2023, 09:05"),
        ("chat#5", "Launch: Ann"),  # nobody answers a question of their own
        ("chat#6", "Launch"),
    ]
    assert documents[1].metadata == {
        "speaker": "Bob",
        "time": "2023-05-08T13:58:10+00:00",
        "turn": 2,
        "title": documents[1].title,
    }
    assert [document.text for document in documents][1] == "On Tuesday."


@pytest.mark.parametrize(
    ("time", "kept", "words"),
    [
        (date(2023, 5, 8), "2023-05-08", "Monday 8 May 2023"),
        ("2023-05-08", "2023-05-08", "Monday 8 May 2023"),
        (1683554160, "2023-05-08T13:56:00+00:00", "Monday 8 May 2023, 13:56"),
        (1683554160000, "2023-05-08T13:56:00+00:00", "Monday 8 May 2023, 13:56"),
        ("1683554160.0002", "2023-05-08T13:56:00.000200+00:00", "Monday 8 May 2023, 13:56"),
        ("1:56 pm on 8 May", "1:56 pm on 8 May", "1:56 pm on 8 May"),
        ("2023-13-45", "2023-13-45", "2023-13-45"),
        (12.5, 12.5, None),  # seconds of a recording, say
        (1e300, 1e300, None),
    ],
)
def test_times_of_many_kinds_are_read(time, kept, words):
    (document,) = conversation([Turn("Hello.", time=time)])
    assert document.metadata["time"] == kept
    assert document.metadata.get("title") == words


def test_only_the_end_of_a_long_question_is_repeated():
    asked = Turn(f"Why {'so ' * 500}late? Just saying. Anyone?? Or {'what ' * 50}then?", "Ann")
    first, answer = conversation([asked, Turn("Because.", "Bob")])
    assert first.title == "Ann"
    assert answer.title.startswith("Bob; asked: …") and answer.title.endswith("what then?")
    assert len(answer.title) < 150
    asked = Turn("\u4f60\u53bb\u54ea\u513f\uff1f", "Ann")
    assert list(conversation([asked, Turn("Home.", "Bob")]))[1].title.endswith(asked.text)


def test_a_short_answer_is_found_by_its_question_name_and_date(tiny_bert, tiny_codebook):
    with S3Index.create(host=str(tiny_bert), codebook=tiny_codebook, device="cpu") as index:
        index.add(conversation(CHAT, id="chat"), progress=False)

        def found(question, **limits):
            spans = index.search(question, 1, mode="bm25", **limits)
            return [span.text for span in spans]

        assert found("What did Bob say about shipping the beta?") == ["On Tuesday."]
        assert found("Monday 8 May", where={"speaker": "Ann"})[0] in CHAT[0]["text"]
        assert found("beta", where={"time": {"$gte": "2023-05-09"}}) == []
        assert found("beta", where={"speaker": "Bob"}) == ["On Tuesday."]


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        (5, "must be in a list"),
        (b"Hello", "are bytes"),
        ({"text": "Hello"}, "must be in a list"),
        (["Hello"], "Turn 1 must be a Turn or a mapping, not str"),
        ([Turn("Hello"), None], "Turn 2 must be"),
        ([{"speaker": "Ann"}], "Turn 1 has no text; a turn has text, speaker, time, metadata"),
        ([{"text": "Hello", "when": 1}], "unknown field 'when'"),
        ([{"text": 5}], "must be a string"),
        ([{"text": "Hello", "time": True}], "time of a turn must be"),
        ([{"text": "Hello"}, {"text": "Hi", "time": float("nan")}], "Turn 2 cannot.*nan"),
        ([{"text": "Hello", "metadata": 5}], "metadata of a turn must be a mapping"),
        ([{"text": "\ud800"}], "surrogate"),
    ],
)
def test_what_is_no_conversation_is_refused_in_a_sentence(turns, problem):
    with pytest.raises(InputError, match=problem):
        list(conversation(turns))
