"""Many calls at once, in one event loop and in threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.documents import Document

from langchain_s3_retriever import S3Compressor, S3Retriever
from s3_retriever import Host

CALLS = 64
QUESTIONS = [f"How many days of leave does department {n} have?" for n in range(CALLS)]
DOCUMENTS = [
    Document(
        f"Department {n} has {n + 20} days of paid leave. Ask the head of department {n} first. "
        f"Its gate is number {n % 7}. Parcels for it are left with the porter.",
        id=f"department-{n}",
    )
    for n in range(200)
]


@pytest.fixture(scope="module")
def departments():
    return S3Retriever.from_documents(DOCUMENTS, progress=False)


class Gate:
    """Holds the host's forward passes up until the event loop has seen that one is under way."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def pass_through(self) -> None:
        self._reached.set()
        opened = self._open.wait(60)
        self._open.set()  # One failure is enough.
        assert opened, "the event loop stands still while the host runs"

    async def open(self) -> None:
        while not self._reached.is_set():
            await asyncio.sleep(0.001)
        self._open.set()


@pytest.fixture
def gate(monkeypatch):
    made, forward = Gate(), Host.forward
    monkeypatch.setattr(
        Host, "forward", lambda host, batch: (made.pass_through(), forward(host, batch))[1]
    )
    return made


async def test_ainvoke_leaves_the_event_loop_free(departments, gate):
    calls = [departments.ainvoke(question) for question in QUESTIONS]
    *found, _ = await asyncio.gather(*calls, gate.open())
    assert found == [departments.invoke(question) for question in QUESTIONS]


async def test_acompress_documents_leaves_the_event_loop_free(gate):
    compressor = S3Compressor(k=3)
    questions, documents = QUESTIONS[:8], DOCUMENTS[:20]
    calls = [compressor.acompress_documents(documents, question) for question in questions]
    *found, _ = await asyncio.gather(*calls, gate.open())
    assert found == [compressor.compress_documents(documents, question) for question in questions]


async def test_aadd_documents_leaves_the_event_loop_free(gate):
    retriever = S3Retriever.from_texts([])
    added, _ = await asyncio.gather(
        retriever.aadd_documents(DOCUMENTS[:20], progress=False), gate.open()
    )
    assert added == [document.id for document in DOCUMENTS[:20]]


def test_threads_find_what_one_finds(departments):
    expected = [departments.invoke(question) for question in QUESTIONS]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(departments.invoke, QUESTIONS)) == expected


def test_searches_go_on_while_documents_come_and_go():
    retriever = S3Retriever.from_documents(DOCUMENTS[:20], k=1, progress=False)
    stays = "Its gate is number 3."

    def change():
        for n in range(5):
            retriever.add_documents(DOCUMENTS[20 + n : 25 + n], progress=False)
            retriever.delete([f"department-{20 + n}"])

    with ThreadPoolExecutor(4) as threads:
        changes = threads.submit(change)
        found = list(threads.map(retriever.invoke, ["What is the number of gate 3?"] * 40))
        changes.result()
    assert {document.page_content for (document,) in found} == {stays}


def test_compressors_in_threads_load_once(monkeypatch):
    import s3_retriever

    made = []
    original = s3_retriever.Compressor
    monkeypatch.setattr(
        s3_retriever, "Compressor", lambda *a, **b: made.append(1) or original(*a, **b)
    )
    compressor = S3Compressor(k=1)
    with ThreadPoolExecutor(8) as threads:
        found = list(
            threads.map(
                lambda question: compressor.compress_documents(DOCUMENTS[:4], question),
                [QUESTIONS[0]] * 8,
            )
        )
    assert all(one == found[0] for one in found)
    assert made == [1]
