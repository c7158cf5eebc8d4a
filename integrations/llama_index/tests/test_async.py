"""Many questions at once give the answers of one at a time and leave the event loop free."""

from __future__ import annotations

import asyncio
import gc
import logging
import time

from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index.retrievers.s3 import S3NodePostprocessor, S3Retriever

logger = logging.getLogger(__name__)

TICK = 0.005
LIMIT = 0.05
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


async def longest_delay(done: asyncio.Event) -> float:
    """The longest that a sleep of `TICK` was overslept until the event is set, in seconds."""
    longest = 0.0
    while not done.is_set():
        due = time.perf_counter() + TICK
        await asyncio.sleep(TICK)
        longest = max(longest, time.perf_counter() - due)
    return longest


async def at_once(calls):
    done = asyncio.Event()
    ticker = asyncio.create_task(longest_delay(done))
    await asyncio.sleep(0)
    results = await asyncio.gather(*calls)
    done.set()
    return results, await ticker


def run(calls):
    """Results and longest delay; without garbage collections of all that torch and LlamaIndex
    made, each of which stops Python for 0.3 s, whoever causes it.
    """
    gc.collect()
    gc.freeze()
    try:
        results, delay = asyncio.run(at_once(calls))
    finally:
        gc.unfreeze()
    logger.info("longest delay: %.1f ms", 1e3 * delay)
    return results, delay


def test_64_retrievals_at_once():
    nodes = [
        TextNode(id_=f"n{number}", text=f"Note {number}: {question} It depends on the weather.")
        for number, question in enumerate(QUESTIONS)
    ]
    retriever = S3Retriever.from_defaults(nodes=nodes)
    assert len(QUESTIONS) == 64
    sequential = [retriever.retrieve(question) for question in QUESTIONS]
    calls = (retriever.aretrieve(question) for question in QUESTIONS)
    results, delay = run(calls)
    assert results == sequential
    assert delay < LIMIT


def test_64_postprocessings_at_once(nodes):
    retrieved = [NodeWithScore(node=node, score=1.0) for node in nodes]
    bundles = [QueryBundle(question) for question in QUESTIONS]
    postprocessor = S3NodePostprocessor(similarity_top_k=3)
    sequential = [postprocessor.postprocess_nodes(retrieved, bundle) for bundle in bundles]
    calls = (postprocessor.apostprocess_nodes(retrieved, bundle) for bundle in bundles)
    results, delay = run(calls)
    assert results == sequential
    assert delay < LIMIT


def test_queries_with_filters_of_their_own_do_not_disturb_each_other(shared):
    from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

    def only(year):
        return MetadataFilters(filters=[MetadataFilter(key="year", value=year)])

    years = [2021, 2022, 2023, 2024] * 8

    async def ask():
        return await asyncio.gather(
            *(
                shared.with_settings(filters=only(year)).aretrieve("Who decides on Friday?")
                for year in years
            )
        )

    for year, items in zip(years, asyncio.run(ask()), strict=True):
        assert {item.metadata["year"] for item in items} == {year}
