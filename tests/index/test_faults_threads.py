"""Eight readers beside a writer: each result is that of a state that was committed meanwhile.

`S3_FAULT_SECONDS` is how long they go on, 5 where it is not set.
"""

from __future__ import annotations

import os
import threading

import pytest

from s3_retriever import Codebook, Document, Host, S3Index

SECONDS = float(os.environ.get("S3_FAULT_SECONDS", "5"))
READERS = 8
QUESTIONS = [
    ("Who paints the seven boats in the harbour?", "bm25"),
    ("Who paints the seven boats in the harbour?", "hybrid"),
    ("the night nurse and the blue ledger", "s3"),
]


def pair(name, text):
    """Two documents that come and go together."""
    return [
        Document(f"{text} Left of the harbour.", f"{name}-left"),
        Document(text, f"{name}-right"),
    ]


def compact(index):
    index.compact()


# A round of commits that ends where it began; only compacting leaves the results as they are.
ROUND = [
    lambda index: index.add(pair("a", "The old captain paints seven boats."), progress=False),
    lambda index: index.add(pair("b", "A baker paints seven boats at night."), progress=False),
    lambda index: index.add(
        [*pair("a", "The night nurse carries the blue ledger."), *pair("c", "Seven ledgers.")],
        replace=True,
        progress=False,
    ),
    lambda index: index.delete(["b-left", "b-right", "c-left"]),
    compact,
    lambda index: index.delete(["a-left", "a-right", "c-right"]),
]


@pytest.fixture(scope="module")
def host(tiny_bert):
    return Host.load(str(tiny_bert), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def codebook(tiny_codebook):
    return Codebook.load(tiny_codebook)


@pytest.fixture
def index(tmp_path, host, codebook, sentences):
    made = S3Index.create(tmp_path / "x.s3r", host, codebook=codebook)
    made.add([Document(text, f"d{n}") for n, text in enumerate(sentences[::12])], progress=False)
    return made


def results(index, question, mode):
    """Everything that is found, by place, with its score."""
    return {(s.id, s.text): s.score for s in index.search(question, 500, mode=mode)}


def same(found, expected):
    return found.keys() == expected.keys() and all(
        abs(score - expected[place]) < 1e-6 for place, score in found.items()
    )


class Crowd:
    """Readers and a writer, who note what should not have been.

    A reader knows how many commits were done before its search, and how many begun after it: what
    it found must be the result of one of the states in between.
    """

    def __init__(self, index, expected):
        self.index = index
        self.expected = expected
        self.begun = self.done = 0
        self.searches = [0] * READERS
        self.failures = []
        self.stop = threading.Event()

    def read(self, reader, place):
        number = self.searches[place] % len(QUESTIONS)
        first = self.done
        found = results(reader, *QUESTIONS[number])
        states = {state % len(ROUND) for state in range(first, self.begun + 1)}
        assert any(same(found, self.expected[state][number]) for state in states), (found, states)
        self.searches[place] += 1

    def write(self):
        change = ROUND[self.begun % len(ROUND)]
        self.begun += 1
        change(self.index)
        self.done += 1

    def keep_on(self, work, *arguments):
        try:
            while not self.stop.is_set():
                work(*arguments)
        except BaseException as error:
            self.failures.append(error)
            self.stop.set()

    def run(self, readers, seconds):
        work = [(self.read, reader, place) for place, reader in enumerate(readers)]
        threads = [threading.Thread(target=self.keep_on, args=w) for w in [*work, (self.write,)]]
        for thread in threads:
            thread.start()
        self.stop.wait(seconds)
        self.stop.set()
        for thread in threads:
            thread.join()


def test_readers_see_what_was_committed_and_nothing_else(index, host, codebook):
    expected = [[results(index, *asked) for asked in QUESTIONS]]
    for change in ROUND:
        change(index)
        expected.append([results(index, *asked) for asked in QUESTIONS])
    for number in range(len(QUESTIONS)):
        assert same(expected[-1][number], expected[0][number])
        for before, after in zip(range(6), range(1, 7), strict=True):
            unchanged = ROUND[before] is compact
            assert same(expected[before][number], expected[after][number]) == unchanged
    # Half of them share the writer's index, half have one of their own.
    own = [S3Index.open(index.path, host, codebook=codebook) for _ in range(READERS // 2)]
    crowd = Crowd(index, expected)
    crowd.run([*own, *[index] * (READERS - len(own))], SECONDS)
    assert crowd.failures == []
    assert crowd.done > 1 and min(crowd.searches) > 0
    index.verify(progress=False)
