"""LangChain and LlamaIndex take a sharded index where they take an index."""

from __future__ import annotations

import pytest

from s3_retriever import Document, S3Index


@pytest.fixture(scope="module")
def sharded(cluster, tmp_path_factory):
    from s3_retriever.cluster import ShardedIndex

    folder = tmp_path_factory.mktemp("integrations")
    texts = {"tea": "Green tea is steamed.", "kite": "A kite pulled the ship."}
    for name, text in texts.items():
        with S3Index.create(folder / name) as index:
            index.add(Document(text, name, {"kind": name}), progress=False)
    with ShardedIndex.open([folder / name for name in texts]) as index:
        yield index


def test_langchain(sharded):
    package = pytest.importorskip("langchain_s3_retriever")
    retriever = package.S3Retriever(index=sharded, k=1)
    (found,) = retriever.invoke("What pulled the ship?")
    assert (found.page_content, found.metadata["kind"]) == ("A kite pulled the ship.", "kite")
    store = package.S3VectorStore(sharded)
    (found,) = store.similarity_search("How is tea made?", k=1, filter={"kind": "tea"})
    assert found.page_content == "Green tea is steamed."
    assert store.add_texts(["The comet was seen."], ids=["comet"]) == ["comet"]
    assert [each.page_content for each in store.get_by_ids(["comet"])] == ["The comet was seen."]
    assert store.delete(["comet"])


def test_llama_index(sharded):
    package = pytest.importorskip("llama_index.retrievers.s3_attention")
    retriever = package.S3Retriever(sharded, similarity_top_k=1)
    (found,) = retriever.retrieve("What pulled the ship?")
    assert found.node.get_content() == "A kite pulled the ship."
