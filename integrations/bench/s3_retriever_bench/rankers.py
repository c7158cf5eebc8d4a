"""Rankers of texts, as pipelines use them: FAISS, LlamaIndex and BM25Okapi."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import bm25s
import numpy as np
import Stemmer
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from numpy.typing import NDArray
from pydantic import PrivateAttr
from rank_bm25 import BM25Okapi

from s3_retriever.search.fusion import standardise
from s3_retriever_bench.embedder import Embedder

with warnings.catch_warnings():
    # The package announces that it is no longer developed. Its FAISS store has no successor and
    # is what most pipelines use.
    warnings.simplefilter("ignore", DeprecationWarning)
    from langchain_community.vectorstores import FAISS

Scores = NDArray[np.float64]

_FLOAT_BYTES = 4
# A word's number and its count.
_POSTING_BYTES = 8


class Ranker(Protocol):
    """Ranks texts by their number."""

    def rank(self, question: str, count: int) -> Sequence[int]:
        """Numbers of the best texts, best first, at most `count`."""

    def size(self) -> int:
        """Approximate bytes kept beside the texts."""


class FaissRanker:
    """An exact FAISS index of texts, through LangChain's vector store."""

    def __init__(self, texts: Sequence[str], embedder: Embedder) -> None:
        self._store: Any = FAISS.from_texts(
            list(texts), embedder, metadatas=[{"number": i} for i in range(len(texts))]
        )

    def rank(self, question: str, count: int) -> Sequence[int]:
        """See `Ranker`."""
        return list(self.distances(question, count))

    def distances(self, question: str, count: int) -> dict[int, float]:
        """Squared distances of the nearest texts by number, nearest first."""
        hits = self._store.similarity_search_with_score(question, k=count)
        return {document.metadata["number"]: float(distance) for document, distance in hits}

    def size(self) -> int:
        """See `Ranker`."""
        return _FLOAT_BYTES * int(self._store.index.ntotal) * int(self._store.index.d)


class StemmedRanker:
    """BM25 as `mteb` has it: bm25s with its defaults, English stop words and stemmer."""

    def __init__(self, texts: Sequence[str]) -> None:
        # The library sets its own logger to DEBUG.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        self._tokenize = partial(
            bm25s.tokenize,
            stopwords="en",
            stemmer=Stemmer.Stemmer("english"),
            show_progress=False,
        )
        self._bm25 = bm25s.BM25()
        self._words = self._tokenize(list(texts))
        self._bm25.index(self._words, show_progress=False)

    def scores(self, question: str) -> Scores:
        """BM25 of every text, float64 [n]."""
        (words,) = self._tokenize([question], return_ids=False)
        return np.asarray(self._bm25.get_scores(words), dtype=np.float64)

    def rank(self, question: str, count: int) -> Sequence[int]:
        """See `Ranker`."""
        return best(self.scores(question), count)

    def size(self) -> int:
        """See `Ranker`."""
        return _POSTING_BYTES * sum(len(set(words)) for words in self._words.ids)


class ZScoreRanker:
    """BM25 and FAISS, the standardised scores of all texts added."""

    def __init__(self, texts: Sequence[str], embedder: Embedder) -> None:
        self._lexical = StemmedRanker(texts)
        self._dense = FaissRanker(texts, embedder)
        self._count = len(texts)

    def rank(self, question: str, count: int) -> Sequence[int]:
        """See `Ranker`."""
        distances = self._dense.distances(question, self._count)
        near = np.array([-distances[number] for number in range(self._count)])
        return best(z_scores(self._lexical.scores(question), near), count)

    def size(self) -> int:
        """See `Ranker`."""
        return self._lexical.size() + self._dense.size()


def z_scores(lexical: Scores, dense: Scores) -> Scores:
    """The sum of both scores, each standardised over the candidates."""
    every = np.ones(len(lexical), dtype=np.bool_)
    return standardise(lexical, every) + standardise(dense, every)


def best(scores: Scores, count: int) -> list[int]:
    """Numbers of the best texts, best first."""
    order: list[int] = np.argsort(-scores, kind="stable")[:count].tolist()
    return order


class LlamaIndexRanker:
    """Dense retrieval with LlamaIndex's VectorStoreIndex, in memory."""

    def __init__(self, texts: Sequence[str], embedder: Embedder) -> None:
        nodes = [TextNode(id_=str(number), text=text) for number, text in enumerate(texts)]
        self._index: Any = VectorStoreIndex(nodes, embed_model=_Embedding(embedder))
        self._bytes = _FLOAT_BYTES * embedder.vectors(texts).size

    def rank(self, question: str, count: int) -> Sequence[int]:
        """See `Ranker`."""
        hits = self._index.as_retriever(similarity_top_k=count).retrieve(question)
        return [int(hit.node.node_id) for hit in hits]

    def size(self) -> int:
        """See `Ranker`."""
        return self._bytes


class OkapiRanker:
    """BM25 as LangChain's BM25Retriever does it: BM25Okapi, words split at white space."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._okapi: Any = BM25Okapi([text.split() for text in texts])

    def rank(self, question: str, count: int) -> Sequence[int]:
        """See `Ranker`."""
        return best(self._okapi.get_scores(question.split()), count)

    def size(self) -> int:
        """See `Ranker`."""
        return _POSTING_BYTES * sum(len(words) for words in self._okapi.doc_freqs)


class _Embedding(BaseEmbedding):
    _embedder: Embedder = PrivateAttr()

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self._embedder = embedder

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._embedder.vectors(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embedder.embed_query(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)
