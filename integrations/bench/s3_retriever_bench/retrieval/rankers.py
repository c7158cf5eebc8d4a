"""Rankers of texts, as pipelines use them: FAISS, LlamaIndex and BM25; and embeddings."""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast

import bm25s
import numpy as np
import Stemmer
import torch
from langchain_core.embeddings import Embeddings
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from numpy.typing import NDArray
from pydantic import PrivateAttr
from rank_bm25 import BM25Okapi
from torch.nn import functional

from s3_retriever import Codebook, Document, Host
from s3_retriever.codebook.sentence_map import SentenceMap, mean_states
from s3_retriever.host.source import locate
from s3_retriever.progress import progress_bar
from s3_retriever.search.fusion import standardise

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


_LONGEST = 256
_BATCH = 64
# Texts that take long enough to deserve their own progress bar.
_MANY = 2_000
# A decoder makes an attention sink of the first token, so that should not be a word of the text.
_BEFORE = {"title": "Text:"}
_Encode = Callable[[Sequence[str]], NDArray[np.float32]]


class Embedder(Embeddings):
    """Embeds texts in the best way known for a host, as unit vectors in float32.

    A decoder whose codebook has a whitening: the mean states of the whitening's layer, weighted
    by IDF and without attention sinks, whitened. Any other host: as all-MiniLM-L6-v2 is published
    to do, the mean of the last hidden states over the attention mask, of at most 256 tokens.

    Remembers texts, which recur among contexts, but not questions, so that search times include
    theirs.

    Args:
        host: The host whose weights embed; without a whitening they are loaded again, with all
            layers.
        codebook: The host's codebook.
    """

    def __init__(self, host: Host, codebook: Codebook | None = None) -> None:
        self._encode = _whitened(host, codebook) or _published(host)
        self._known: dict[str, NDArray[np.float32]] = {}

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings [n, width] of texts; new ones are embedded in batches of similar length."""
        fresh = list(dict.fromkeys(text for text in texts if text not in self._known))
        if fresh:
            self._known.update(zip(fresh, self._encode(fresh), strict=True))
        return np.stack([self._known[text] for text in texts])

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """See LangChain's `Embeddings`."""
        # Rows as they are: the vector store makes an array of them anyway.
        return cast("list[list[float]]", list(self.vectors(texts)))

    def embed_query(self, text: str) -> list[float]:
        """See LangChain's `Embeddings`."""
        return cast("list[float]", self._encode([text])[0].tolist())


def _whitened(host: Host, codebook: Codebook | None) -> _Encode | None:
    """Embeds with the codebook's whitening; None if it has none."""
    for layer, whitening in codebook.sentence_maps.items() if codebook else ():
        if whitening.token_weights is not None:
            return functools.partial(_encode_whitened, host, layer, whitening)
    return None


@torch.inference_mode()
def _encode_whitened(
    host: Host, layer: int, whitening: SentenceMap, texts: Sequence[str]
) -> NDArray[np.float32]:
    # A text without line breaks, read as a line, is a single sentence.
    lines = [Document(" ".join(text.split()), metadata=_BEFORE, unit="line") for text in texts]
    total = sum(len(line.text) for line in lines)
    shown = len(texts) > _MANY
    with progress_bar(shown, total=total, unit="char", unit_scale=True, desc="Embedding") as bar:
        parts = mean_states(host, layer, lines, bar, whitening.token_weights)
        means = torch.cat([means for _, means in parts])
    # Without a single token that counts, a text has no direction.
    vectors = (means @ whitening.weights + whitening.bias).nan_to_num(0.0)
    return cast("NDArray[np.float32]", functional.normalize(vectors, dim=1).numpy())


def _published(host: Host) -> _Encode:
    model = _sentence_transformer(locate(host.name), min(_LONGEST, host.shape.size))

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        shown = len(texts) > _MANY and sys.stderr.isatty()
        vectors = model.encode(list(texts), batch_size=_BATCH, show_progress_bar=shown)
        return cast("NDArray[np.float32]", vectors)

    return encode


@functools.cache
def _sentence_transformer(path: str, longest: int) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(path, max_seq_length=longest, model_kwargs={"dtype": torch.float32})
    tokenizer = transformer.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()])
