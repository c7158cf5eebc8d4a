"""S3 in the retrievers of `langchain_classic`."""

from __future__ import annotations

from langchain_classic.retrievers import ContextualCompressionRetriever, EnsembleRetriever

from langchain_s3_retriever import S3Compressor, S3Retriever

QUESTION = "How much holiday do I get?"


async def test_in_a_contextual_compression_retriever(retriever):
    compressor = S3Compressor(k=2)
    both = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=retriever)
    found = both.invoke(QUESTION)
    assert found[0].page_content == "Staff have 28 days of paid leave a year."
    assert await both.ainvoke(QUESTION) == found


async def test_in_an_ensemble(retriever):
    words = S3Retriever.from_index(retriever.index, mode="bm25")
    ensemble = EnsembleRetriever(retrievers=[retriever, words])
    found = ensemble.invoke("How many days of leave?")
    assert found[0].page_content == "Staff have 28 days of paid leave a year."
    assert len({d.page_content for d in found}) == len(found)
    assert await ensemble.ainvoke("How many days of leave?") == found
