"""Many questions at once give the answers of one at a time and leave the event loop free."""

from __future__ import annotations

import asyncio
import threading

import pytest
from llama_index.core.schema import NodeWithScore, QueryBundle
from s3_retriever import Host

from llama_index.retrievers.s3_attention import S3NodePostprocessor

TOPICS = [
    "leave",
    "lunch",
    "a stolen laptop",
    "a release",
    "Fridays",
    "soup",
    "the manager",
    "rain",
]
QUESTIONS = [
    f"{verb} {topic}?"
    for verb in ("Who decides about", "When is", "Where do I ask for", "Why is there no",
                 "How much is", "What about", "Is there", "Who reports")
    for topic in TOPICS
]  # fmt: skip


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

    def run(self, calls):
        """What calls that were made at once give, beside the event loop."""

        async def at_once():
            return await asyncio.gather(*calls(), self.open())

        return asyncio.run(at_once())[:-1]


@pytest.fixture
def gate(monkeypatch):
    made, forward = Gate(), Host.forward
    monkeypatch.setattr(
        Host, "forward", lambda host, batch: (made.pass_through(), forward(host, batch))[1]
    )
    return made


def test_64_retrievals_at_once(shared, gate):
    assert len(QUESTIONS) == 64
    results = gate.run(lambda: [shared.aretrieve(question) for question in QUESTIONS])
    assert results == [shared.retrieve(question) for question in QUESTIONS]


def test_64_postprocessings_at_once(nodes, gate):
    retrieved = [NodeWithScore(node=node, score=1.0) for node in nodes]
    bundles = [QueryBundle(question) for question in QUESTIONS]
    postprocessor = S3NodePostprocessor(similarity_top_k=3)
    results = gate.run(
        lambda: [postprocessor.apostprocess_nodes(retrieved, bundle) for bundle in bundles]
    )
    assert results == [postprocessor.postprocess_nodes(retrieved, bundle) for bundle in bundles]


def test_queries_with_filters_of_their_own_do_not_disturb_each_other(shared):
    from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

    def only(year):
        return MetadataFilters(filters=[MetadataFilter(key="year", value=year)])

    years = [2021, 2022, 2023, 2024] * 8

    async def ask():
        return await asyncio.gather(
            *(
                shared.with_settings(filters=only(year), similarity_top_k=5).aretrieve(
                    "Who decides on Friday?"
                )
                for year in years
            )
        )

    for year, items in zip(years, asyncio.run(ask()), strict=True):
        assert {item.metadata["year"] for item in items} == {year}
