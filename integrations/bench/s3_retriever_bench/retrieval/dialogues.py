"""Made-up dialogues with known facts, and questions with the names and dates in them.

Friends tell each other what they did. Each kind of fact is told by several of them, and on several
days, so that only the name or the date in a question tells which is meant; some facts are short
answers to a question that was asked just before. Everything else is small talk.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from s3_retriever.calibration.question_sets import Labelled, QuestionSet, Source

NAME = "dialogues"
_DIALOGUES, _DAYS, _TALK, _FRIENDS = 20, 24, 9, 6
_NAMES = ("Ann", "Bob", "Carla", "Dario", "Emine", "Farid", "Grace", "Hugo", "Ines", "Jonas")
# What someone tells, and what is asked about it: by the name, by the name and the day.
_TOLD = (
    ("I finally bought {} for the flat.", "What did {name} buy{day}?"),
    ("Tonight I am making {} for everybody.", "Which dish did {name} cook{day}?"),
    ("I have just come back from {}, I am exhausted.", "Where had {name} travelled to{day}?"),
    ("They want me to start at {} next month!", "Who offered {name} a job{day}?"),
)
# What someone else asks, what is answered, and what is asked about it.
_ASKED = (
    ("{name}, which instrument are you learning now?", "{}, believe it or not.",
     "What instrument is {name} learning{day}?"),
    ("What are you allergic to again, {name}?", "Mostly {}.",
     "Which allergy does {name} mention{day}?"),
    ("So {name}, what did you call the new dog?", "{}. The children chose.",
     "What is the name of the dog of {name}{day}?"),
)  # fmt: skip
_THINGS = (
    ("a standing lamp", "a walnut shelf", "two wicker chairs", "a record player", "a blue carpet",
     "a juice press"),
    ("lentil soup", "mushroom risotto", "lamb stew", "fish curry", "spinach pie", "bean tacos"),
    ("Lisbon", "Tromso", "Kyoto", "Marrakesh", "Quito", "Tbilisi"),
    ("the harbour office", "a small bakery", "the tax bureau", "a seed bank", "the opera house",
     "a bike courier"),
    ("The accordion", "The cello", "The oboe", "The banjo", "The harp", "The trombone"),
    ("hazelnuts", "birch pollen", "cat hair", "shellfish", "penicillin", "latex"),
    ("Biscuit", "Admiral", "Pepper", "Socks", "Waffle", "Juno"),
)  # fmt: skip
_SMALL_TALK = (
    "Did anyone see the game last night?", "I could sleep for a week.", "Same here, to be honest.",
    "The train was late again this morning.", "Ha, that sounds like you.", "Nobody told me.",
    "It has been raining since breakfast.", "Shall we call later?", "Sure, after eight is fine.",
    "My phone is nearly dead.", "How is everybody today?", "Pretty good, thanks for asking.",
    "I saw your cousin at the market.", "That film was far too long.", "Send me the pictures!",
    "We still have to decide about the weekend.", "Good morning!", "I will think about it.",
    "The neighbours are renovating, it is so loud.", "You always say that.", "Coffee tomorrow?",
    "Can you bring the big cooler on Sunday?", "No idea, ask the others.", "Happy to help.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Fact:
    """A fact: the number of the turn that has it, and the question about it."""

    turn: int
    question: str
    answer: str


def dialogues(seed: int = 0) -> QuestionSet:
    """Dialogues as documents, a line per turn: `[8 May 2023, 13:56] Ann: Hello.`."""
    rows: list[Labelled] = []
    for number in range(_DIALOGUES):
        turns, facts = _dialogue(random.Random(f"{seed}-{number}"))  # noqa: S311
        source = Source(f"dialogue-{number}", "", tuple(turns), sentences=False)
        rows += (
            Labelled(f"{source.name}-{n}", fact.question, (fact.answer,), (source,),
                     ((source, fact.turn),))
            for n, fact in enumerate(facts)
        )  # fmt: skip
    return QuestionSet(NAME, "documents", rows)


def _dialogue(chance: random.Random) -> tuple[list[str], list[_Fact]]:
    """The turns of a dialogue, and its facts."""
    friends = chance.sample(_NAMES, _FRIENDS)
    start = datetime(2023, chance.randint(1, 12), chance.randint(1, 28))
    told = _told(chance, friends)
    turns: list[str] = []
    facts: list[_Fact] = []
    for day in range(_DAYS):
        time = start + timedelta(days=3 * day, hours=chance.randint(8, 19))
        name, said, question, answer, asked = next(told)
        others = [friend for friend in friends if friend != name]
        before = chance.randint(1, _TALK - 1)
        lines = [(chance.choice(friends), chance.choice(_SMALL_TALK)) for _ in range(before)]
        if asked:
            lines.append((chance.choice(others), asked))
        # Every other question names the day.
        on_day = f" on {time.day} {time:%B}" if day % 2 else ""
        facts.append(_Fact(len(turns) + len(lines), question.format(name=name, day=on_day), answer))
        lines.append((name, said))
        lines += (
            (chance.choice(friends), chance.choice(_SMALL_TALK)) for _ in range(before, _TALK)
        )
        for speaker, text in lines:
            turns.append(f"[{time.day} {time:%B %Y, %H:%M}] {speaker}: {text}")
            time += timedelta(minutes=chance.randint(1, 4))
    return turns, [fact for fact in facts if _is_known(fact, facts)]


def _told(chance: random.Random, friends: list[str]) -> Iterator[tuple[str, str, str, str, str]]:
    """Speaker, turn, question, answer, and what was asked before (or nothing), without end."""
    kinds = [("", *told) for told in _TOLD] + [tuple(asked) for asked in _ASKED]
    while True:
        for number, (asked, said, question) in enumerate(kinds):
            name, thing = chance.choice(friends), chance.choice(_THINGS[number])
            yield name, said.format(thing), question, thing, asked.format(name=name)


def _is_known(fact: _Fact, facts: list[_Fact]) -> bool:
    """Whether no other fact has the question."""
    return sum(other.question.startswith(fact.question[:-1]) for other in facts) == 1
