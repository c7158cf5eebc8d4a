"""The package's own search: S3, BM25, or both fused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from s3_retriever.document import Document
from s3_retriever.encoder import CachingEncoder, Encoder, TokenFeatures
from s3_retriever.encoder.encoder import QuestionFeatures
from s3_retriever.engine import S3Index
from s3_retriever.index import Store
from s3_retriever.recipe import Recipe
from s3_retriever.search import Mode, Span
from s3_retriever_bench.methods.base import Searcher

# More than the largest corpus has, so that it is scanned once for all methods.
_CACHE_TOKENS = 4_000_000
# Documents that take long enough for a progress bar of their own.
_MANY = 500


class DocumentCache(CachingEncoder):
    """Remembers documents, which recur; reads every question anew, so that its time counts."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder.host, encoder.codebook, _CACHE_TOKENS)

    def question(self, text: str, recipe: Recipe) -> dict[str, QuestionFeatures]:
        """As `Encoder.question`."""
        return Encoder.question(self, text, recipe)


class TokensOnly(Encoder):
    """Tokenises documents and reads no features: what BM25 alone costs."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder.host, encoder.codebook)

    def documents(
        self, texts: Iterable[tuple[str, str]], recipe: Recipe
    ) -> Iterator[TokenFeatures]:
        """As `Encoder.documents`, but no feature fires."""
        for number, (_, text) in enumerate(texts):
            ranges = self.host.tokenizer.split(text)
            starts = np.array([start for start, _ in ranges], dtype=np.int64)
            none = np.full((len(starts), 1), -1, dtype=np.int32)
            yield TokenFeatures(number, starts, dict.fromkeys(recipe.taps, none), last=True)


@dataclass(frozen=True, slots=True)
class Indexed:
    """An `S3Index` of the documents, searched in one mode under one recipe."""

    encoder: Encoder
    recipe: Recipe
    mode: Mode

    def prepare(self, documents: Sequence[Document]) -> Searcher:
        """See `Method`."""
        return IndexSearcher(self.encoder, self.recipe, self.mode, documents)


class IndexSearcher:
    """A searcher over a temporary `S3Index`."""

    def __init__(
        self, encoder: Encoder, recipe: Recipe, mode: Mode, documents: Sequence[Document]
    ) -> None:
        self._index = S3Index(Store.create(None, {}), encoder, recipe)
        self._mode = mode
        self._index.add(documents, progress=len(documents) > _MANY)

    def search(self, question: str, budget: int) -> Sequence[Span]:
        """See `Searcher`."""
        return self._index.search(question, mode=self._mode, token_budget=budget)

    def ranked(self, question: str, count: int) -> Sequence[Span]:
        """The best sentences, `count` at most."""
        return self._index.search(question, count, mode=self._mode)

    def size(self) -> int:
        """See `Searcher`."""
        files = (path for path in self._index.path.rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files)

    def close(self) -> None:
        """See `Searcher`."""
        self._index.close()
