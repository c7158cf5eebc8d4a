"""Encoders that remember: texts and questions that recur are read once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Generic, TypeVar, get_args

from s3_retriever.codebook import Codebook
from s3_retriever.document import Document, as_documents
from s3_retriever.encoder.encoder import Encoder
from s3_retriever.features import EncodedChunk, EncodedQuestion, HeadQueries, TapFeatures
from s3_retriever.host import Host
from s3_retriever.host.taps import Tap
from s3_retriever.processes import renew_after_fork
from s3_retriever.recipe import (
    FeatureAttention,
    Interleave,
    MaxToken,
    Recipe,
    SentenceRecipe,
    TapRecipe,
)
from s3_retriever.text import language_of
from s3_retriever.types import QuerySide

Value = TypeVar("Value")

# A question counts once more for so many bytes of its queries to taps.
_QUESTION_BYTES = 1 << 16


class RecentlyUsed(Generic[Value]):
    """Values by key; the least recently used ones are dropped. Threads may share it.

    Args:
        limit: Largest total size of the kept values.
        measure: Size of a value.
    """

    def __init__(self, limit: int, measure: Callable[[Value], int]) -> None:
        self._limit = limit
        self._measure = measure
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        renew_after_fork(self._renew)

    def get(self, key: Hashable) -> Value | None:
        """Look up a value, which makes it the most recently used; None if it is not there."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def _renew(self) -> None:
        """In a forked child, begin anew: another thread may have been at work here."""
        self._lock = threading.Lock()
        self._values.clear()
        self._size = 0

    def put(self, key: Hashable, value: Value) -> None:
        """Keep a value, unless its key is there already, and drop others to make room."""
        with self._lock:
            if key in self._values:
                return
            self._values[key] = value
            self._size += self._measure(value)
            while self._values and self._size > self._limit:
                _, dropped = self._values.popitem(last=False)
                self._size -= self._measure(dropped)


class CachingEncoder(Encoder):
    """Remembers recent texts and questions.

    Args:
        host: The host.
        codebook: Its codebook.
        cache_tokens: Most tokens whose chunks are kept: about 70 bytes per token and tap, and as
            many for its terms.
        cache_questions: Most questions that are kept; fewer with scoring `FeatureAttention`, where
            a question has numbers for every feature.
    """

    def __init__(
        self,
        host: Host,
        codebook: Codebook,
        cache_tokens: int = 1_000_000,
        cache_questions: int = 256,
    ) -> None:
        super().__init__(host, codebook)
        self._scans: RecentlyUsed[list[EncodedChunk]] = RecentlyUsed(cache_tokens, _n_tokens)
        self._questions: RecentlyUsed[EncodedQuestion] = RecentlyUsed(cache_questions, _size)

    def documents(
        self, documents: Iterable[Document | str] | Document | str, recipe: Recipe
    ) -> Iterator[EncodedChunk]:
        """As `Encoder.documents`; holds all documents of the call in memory."""
        wanted = list(as_documents(documents))
        heads = sorted(self.layout(recipe).key_bytes)
        settings = (recipe.advanced.doc_top_k, *sorted(recipe.taps), recipe.sentence_layer, *heads)

        def key_of(document: Document) -> Hashable:
            language = language_of(document.text, document.metadata)
            return document.title, document.text, document.unit, language, settings

        scans: dict[Hashable, list[EncodedChunk]] = {}
        unread: dict[Hashable, Document] = {}
        for document in wanted:
            key = key_of(document)
            scan = self._scans.get(key)
            if scan is None:
                unread[key] = document
            else:
                scans[key] = scan
        for chunk in super().documents(unread.values(), recipe):
            scans.setdefault(key_of(chunk.document), []).append(chunk)
        for key in unread:
            self._scans.put(key, scans[key])
        for document in wanted:
            for chunk in scans[key_of(document)]:
                yield replace(chunk, document=document)

    def question(self, text: str, recipe: Recipe) -> EncodedQuestion:
        """As `Encoder.question`."""
        sides = sorted((name, part.query_side) for name, part in recipe.taps.items())
        heads = () if recipe.heads is None else recipe.heads.query_heads
        attends = isinstance(recipe.scoring, FeatureAttention)
        key = (text, recipe.advanced.query_top_k, attends, *sides, recipe.sentence_layer, *heads)
        question = self._questions.get(key)
        if question is None:
            question = super().question(text, recipe)
            self._questions.put(key, question)
        return question


class OnceEncoder(CachingEncoder):
    """Reads all taps of the codebook at once, and gives each recipe what it needs.

    Documents are read with as many features as the SAEs have. Features come strongest first, so
    a recipe gets the first `doc_top_k` of them.

    Args:
        host: The host.
        codebook: Its codebook.
        cache_tokens: Most tokens times taps that are kept.
        cache_questions: Most questions that are kept.
    """

    def __init__(
        self,
        host: Host,
        codebook: Codebook,
        cache_tokens: int = 2_000_000,
        cache_questions: int = 4_096,
    ) -> None:
        super().__init__(host, codebook, cache_tokens // len(codebook.saes), cache_questions)

    def documents(
        self, documents: Iterable[Document | str] | Document | str, recipe: Recipe
    ) -> Iterator[EncodedChunk]:
        """As `Encoder.documents`."""
        k = max(sae.k for sae in self.codebook.saes.values())
        whole = with_all_taps(recipe, self.codebook, "same").changed("advanced.doc_top_k", k)
        for chunk in super().documents(documents, whole):
            features = {
                name: chunk.features[name][:, : recipe.advanced.doc_top_k] for name in recipe.taps
            }
            vectors = chunk.vectors if recipe.sentence else None
            keys = {head: chunk.keys[head] for head in self.layout(recipe).key_bytes}
            yield replace(chunk, features=features, vectors=vectors, keys=keys)

    def question(self, text: str, recipe: Recipe) -> EncodedQuestion:
        """As `Encoder.question`."""
        features: dict[str, TapFeatures] = {}
        direction = None
        queries: Mapping[str, HeadQueries] = {}
        tap_queries: dict[str, HeadQueries] = {}
        sides: set[QuerySide] = {part.query_side for part in recipe.taps.values()}
        if not sides:
            # Heads and sentences may be all that a recipe scores.
            sides.add("same")
        for side in sorted(sides):
            whole = super().question(text, with_all_taps(recipe, self.codebook, side))
            names = [name for name, part in recipe.taps.items() if part.query_side == side]
            features |= {name: whole.features[name] for name in names if name in whole.features}
            tap_queries |= {n: whole.tap_queries[n] for n in names if n in whole.tap_queries}
            if recipe.sentence:
                direction = whole.direction
            if recipe.heads:
                queries = whole.queries
        return EncodedQuestion(features, direction, queries, tap_queries)


def with_all_taps(recipe: Recipe, codebook: Codebook, side: QuerySide) -> Recipe:
    """Extend a recipe to all taps that support a query side.

    It also scores sentences, if the codebook has a hidden tap, and heads, if it has any.
    """
    if side != "decoder" and isinstance(recipe.scoring, FeatureAttention):
        # Other sides have no such scoring, and documents are read alike for every scoring.
        recipe = recipe.changed("scoring", MaxToken())
    taps = [tap for tap in codebook.saes if side in query_sides(tap, recipe, codebook)]
    layer = codebook.sentence_layer
    deepest = None if layer is None else SentenceRecipe(layer=layer)
    every = {str(tap): TapRecipe(query_side=side) for tap in taps}
    extended = recipe.changed("taps", every).changed("sentence", recipe.sentence or deepest)
    if isinstance(recipe.fusion, Interleave):
        return extended
    return extended.changed("heads", recipe.heads or codebook.recipe.heads)


def query_sides(tap: Tap, recipe: Recipe, codebook: Codebook) -> tuple[QuerySide, ...]:
    """The query sides that a tap of a codebook supports, with a recipe's scoring."""
    if isinstance(recipe.scoring, FeatureAttention):
        known = codebook.saes[tap].mean_activations is not None
        return ("decoder",) if tap.site == "key" and known else ()
    return get_args(QuerySide) if tap.site == "key" else ("same",)


def _size(question: EncodedQuestion) -> int:
    """What a question counts among those that are kept."""
    asked = question.tap_queries.values()
    return 1 + sum(queries.factors.nbytes for queries in asked) // _QUESTION_BYTES


def _n_tokens(chunks: list[EncodedChunk]) -> int:
    # A text without tokens takes room too.
    return 1 + sum(len(chunk.starts) for chunk in chunks)
