"""BM25 as LangChain's BM25Retriever does it: rank_bm25's BM25Okapi, words split at blanks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s3_retriever.document import Document
from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever_bench.methods.base import Searcher
from s3_retriever_bench.methods.passages import chunks, cut_all
from s3_retriever_bench.methods.ranked import RankedPassages

# A word's number and how often it occurs.
_POSTING_BYTES = 8


@dataclass(frozen=True, slots=True)
class Okapi:
    """BM25Okapi over chunks, without title, stemming or stop words."""

    tokenizer: OffsetTokenizer

    def prepare(self, documents: Sequence[Document]) -> Searcher:
        """See `Method`."""
        passages = cut_all(documents, chunks, self.tokenizer)
        ranker = _Ranker([passage.text for passage in passages])
        return RankedPassages(passages, ranker, self.tokenizer)


class _Ranker:
    def __init__(self, texts: Sequence[str]) -> None:
        from rank_bm25 import BM25Okapi

        self._okapi: Any = BM25Okapi([text.split() for text in texts])

    def rank(self, question: str, count: int) -> Sequence[int]:
        scores = self._okapi.get_scores(question.split())
        best: list[int] = np.argsort(-scores, kind="stable")[:count].tolist()
        return best

    def size(self) -> int:
        return _POSTING_BYTES * sum(len(words) for words in self._okapi.doc_freqs)
