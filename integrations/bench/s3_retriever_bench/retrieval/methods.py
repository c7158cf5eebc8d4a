"""The methods that `quality` compares: baselines as pipelines use them, and the package's own."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import cast

import numpy as np

from s3_retriever import (
    Codebook,
    Document,
    Host,
    InputError,
    Recipe,
    S3Index,
    Span,
    Turn,
    conversation,
)
from s3_retriever.calibration.question_sets import Piece
from s3_retriever.encoder import CachingEncoder, Encoder
from s3_retriever.encoder.words import WordsEncoder
from s3_retriever.engine import Compressor
from s3_retriever.engine.reranking import second_look
from s3_retriever.engine.s3index import MIN_RELEVANCE, new_store
from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever.search import Limits, knows_relevance, search
from s3_retriever.search.reranking import Passage as RerankedPassage
from s3_retriever.search.reranking import PassageReader, SecondLook
from s3_retriever.types import ContextForm, Mode
from s3_retriever_bench.retrieval.passages import (
    Cut,
    Passage,
    chunks,
    cut_all,
    fill,
    fill_and_cut,
    large_chunks,
    sentences,
    text_bytes,
)
from s3_retriever_bench.retrieval.rankers import (
    Embedder,
    FaissRanker,
    LlamaIndexRanker,
    OkapiRanker,
    Ranker,
    Scores,
    StemmedRanker,
    ZScoreRanker,
    z_scores,
)

# More than the largest corpus has: it is scanned once for all methods.
_CACHE_TOKENS = 4_000_000
# Documents that take long enough to deserve their own progress bar.
_MANY = 500
# Candidates from each half of an ensemble: all sentences of a context except a large corpus.
_DEPTH = 1_000
# The constant of LangChain's EnsembleRetriever.
_RANK_CONSTANT = 60
# A turn of a transcript.
_TURN = re.compile(
    r"^(?:\[(?P<time>[^\]\n]+)\] )?(?P<speaker>[^:\n]{1,100}): ?(?P<text>.*)$", re.MULTILINE
)
# Chunks that the compressor gets from the vector store.
_CHUNKS = 20
# Sentences that get a second look: about as many as fill the largest budget.
_RERANKED = 32


class Searcher(ABC):
    """Prepared documents that can be searched."""

    @abstractmethod
    def search(self, question: str, budget: int) -> Sequence[Piece]:
        """Pieces of the documents, best first, of at most `budget` tokens of the host."""

    @abstractmethod
    def size(self) -> int:
        """Approximate bytes kept of the documents."""

    def close(self) -> None:  # noqa: B027 - most have nothing to release
        """Release what the searcher holds."""


class Resources:
    """What the methods share: a host, its codebook, and what they computed of texts.

    Args:
        host: The loaded host.
        codebook: Its codebook.
        rerank_host: Name of the language model that takes a second look; None for the host.
    """

    def __init__(self, host: Host, codebook: Codebook, rerank_host: str | None = None) -> None:
        self.host = host
        self.codebook = codebook
        self.rerank_host = rerank_host
        self.tokenizer = host.tokenizer
        # Questions are read again each time, because their time counts.
        self.scans = CachingEncoder(host, codebook, _CACHE_TOKENS, cache_questions=0)
        self.tokens = WordsEncoder(host)

    @cached_property
    def embedder(self) -> Embedder:
        """The host's embeddings, remembered."""
        return Embedder(self.host, self.codebook)

    @cached_property
    def compressor(self) -> Compressor:
        """The host's compressor."""
        return Compressor(self.host, codebook=self.codebook)

    @cached_property
    def look(self) -> SecondLook:
        """The second look; what it last read is remembered, as other budgets have the same."""
        found = second_look(_RERANKED, self.rerank_host, lambda: self.scans)
        assert found is not None
        return replace(found, reader=_Remembering(found.reader))

    def emptied(self) -> Resources:
        """The same host with nothing remembered."""
        return Resources(self.host, self.codebook, self.rerank_host)


class _Remembering:
    """Remembers the scores of the passages that were read last."""

    def __init__(self, reader: PassageReader) -> None:
        self._reader = reader
        self._last: tuple[object, Scores] | None = None

    def scores(self, question: str, passages: Sequence[RerankedPassage]) -> Scores:
        key = question, tuple(passages)
        if self._last is None or self._last[0] != key:
            self._last = key, self._reader.scores(question, passages)
        return self._last[1]


class _RankedPassages(Searcher):
    """Passages that a ranker orders; with a tokenizer, the last is cut to fit the budget."""

    def __init__(
        self, passages: Sequence[Passage], ranker: Ranker, tokenizer: OffsetTokenizer | None
    ) -> None:
        self._passages = passages
        self._ranker = ranker
        self._tokenizer = tokenizer

    def search(self, question: str, budget: int) -> Sequence[Passage]:
        # A passage has at least one token.
        count = min(budget, len(self._passages))
        ranked = (self._passages[number] for number in self._ranker.rank(question, count))
        if self._tokenizer is None:
            return fill(ranked, budget)
        return fill_and_cut(ranked, budget, self._tokenizer)

    def size(self) -> int:
        return text_bytes(self._passages) + self._ranker.size()


class _IndexSearcher(Searcher):
    """A searcher over an `S3Index` in memory, in one mode with one recipe and form of evidence."""

    def __init__(
        self,
        encoder: Encoder,
        recipe: Recipe,
        mode: Mode,
        documents: Sequence[Document],
        context: ContextForm = "sentence",
    ) -> None:
        self._index = S3Index(new_store(None, encoder, recipe, None), encoder, recipe)
        self._mode = mode
        self._context: ContextForm = context
        self._index.add(documents, progress=len(documents) > _MANY)

    def search(self, question: str, budget: int) -> Sequence[Span]:
        # BM25 is a baseline: it fills the budget, as retrievers do.
        floor = 0.0 if self._mode == "bm25" else None
        return self._index.search(
            question,
            mode=self._mode,
            token_budget=budget,
            min_relevance=floor,
            context=self._context,
        )

    def ranked(self, question: str, count: int) -> Sequence[Span]:
        return self._index.search(question, count, mode=self._mode, context=self._context)

    def size(self) -> int:
        return int(self._index.stats()["bytes"])

    def close(self) -> None:
        self._index.close()


class _Reranked(_IndexSearcher):
    """`s3` or `hybrid`, whose best sentences get a second look."""

    def __init__(self, mode: Mode, shared: Resources, documents: Sequence[Document]) -> None:
        self._recipe = shared.codebook.named_recipe("default")
        self._look = shared.look
        super().__init__(shared.scans, self._recipe, mode, documents)

    def search(self, question: str, budget: int) -> Sequence[Span]:
        floor = MIN_RELEVANCE if knows_relevance(self._recipe, self._mode) else 0.0
        limits = Limits(token_budget=budget, min_relevance=floor)
        found = search(
            self._index.snapshot(),
            question,
            self._recipe,
            self._index.encoder,
            limits,
            mode=self._mode,
            look=self._look,
        )
        return cast("list[Span]", found)


# The parts of a document, as documents, and where each begins in it.
Parts = Callable[[Document, OffsetTokenizer], Iterator[tuple[Document, int]]]


class _InParts(Searcher):
    """`hybrid` over documents whose parts are indexed as documents of their own."""

    def __init__(self, parts: Parts, shared: Resources, documents: Sequence[Document]) -> None:
        # The document that a part is from, and where the part begins.
        self._places: dict[str, tuple[str, int]] = {}
        indexed = []
        for document in documents:
            for part, start in parts(document, shared.tokenizer):
                self._places[part.id] = document.id, start
                indexed.append(part)
        self._searcher = _indexed("hybrid", "default", shared, indexed)

    def search(self, question: str, budget: int) -> Sequence[Passage]:
        return [self._placed(piece) for piece in self._searcher.search(question, budget)]

    def _placed(self, piece: Piece) -> Passage:
        document_id, shift = self._places[piece.document_id]
        start, end = piece.start + shift, piece.end + shift
        return Passage(document_id, start, end, piece.tokens, piece.text, "")

    def size(self) -> int:
        return self._searcher.size()

    def close(self) -> None:
        self._searcher.close()


def _turns(document: Document, _: OffsetTokenizer) -> Iterator[tuple[Document, int]]:
    """The turns of a transcript (`speaker: text`, a line per turn); any other document whole."""
    found = list(_TURN.finditer(document.text))
    if len(found) < max(2, len(document.text.splitlines())):
        yield document, 0
        return
    spoken = (Turn(turn["text"], turn["speaker"], turn["time"]) for turn in found)
    for part in conversation(spoken, title=document.title, id=document.id):
        yield part, found[int(part.metadata["turn"]) - 1].start("text")


def _sections(document: Document, tokenizer: OffsetTokenizer) -> Iterator[tuple[Document, int]]:
    """Runs of whole sentences of up to 254 tokens."""
    for part in chunks(document, tokenizer):
        yield Document(part.text, f"{document.id}#{part.start}", document.metadata), part.start


class _Ensemble(Searcher):
    """BM25 as in `S3Index` and FAISS over title and sentence, fused.

    Candidates are the 1,000 best sentences of each; a sentence missing from a ranking has the
    ranking's lowest score (for BM25 0, as it shares no word with the question). `fuse` combines
    BM25 scores and negative distances, both [n].
    """

    def __init__(
        self,
        fuse: Callable[[Scores, Scores], Scores],
        shared: Resources,
        documents: Sequence[Document],
    ) -> None:
        self._lexical = _bm25(shared, documents)
        self._passages = cut_all(documents, sentences, shared.tokenizer)
        texts = [passage.titled() for passage in self._passages]
        self._dense = FaissRanker(texts, shared.embedder)
        self._fuse = fuse
        self._numbers = {(p.document_id, p.start): i for i, p in enumerate(self._passages)}

    def search(self, question: str, budget: int) -> Sequence[Passage]:
        lexical = {
            self._numbers[span.document_id, span.start]: span.score
            for span in self._lexical.ranked(question, _DEPTH)
        }
        count = min(_DEPTH, len(self._passages))
        near = {n: -distance for n, distance in self._dense.distances(question, count).items()}
        lowest = min(near.values())
        candidates = sorted(lexical.keys() | near.keys())
        fused = self._fuse(
            np.array([lexical.get(number, 0.0) for number in candidates]),
            np.array([near.get(number, lowest) for number in candidates]),
        )
        order = np.argsort(-fused, kind="stable")
        return fill((self._passages[candidates[place]] for place in order), budget)

    def size(self) -> int:
        return self._lexical.size() + self._dense.size()

    def close(self) -> None:
        self._lexical.close()


def reciprocal_ranks(lexical: Scores, dense: Scores) -> Scores:
    """Reciprocal rank fusion with LangChain's formula (EnsembleRetriever), equal weights."""
    return _reciprocal(lexical) + _reciprocal(dense)


def _reciprocal(scores: Scores) -> Scores:
    fused: Scores = np.empty(len(scores))
    order = np.argsort(-scores, kind="stable")
    fused[order] = 1 / (np.arange(1, len(scores) + 1) + _RANK_CONSTANT)
    return fused


class _Compressed(Searcher):
    """`Compressor.compress` on the 20 best chunks of a FAISS store.

    As in use, a chunk scanned for one question is remembered for the next.
    """

    def __init__(self, shared: Resources, documents: Sequence[Document]) -> None:
        self._compressor = shared.compressor
        self._passages = cut_all(documents, chunks, shared.tokenizer)
        texts = [passage.text for passage in self._passages]
        self._ranker = FaissRanker(texts, shared.embedder)

    def search(self, question: str, budget: int) -> Sequence[Passage]:
        numbers = self._ranker.rank(question, min(_CHUNKS, len(self._passages)))
        documents = [
            Document(self._passages[n].text, str(n), {"title": self._passages[n].title})
            for n in numbers
        ]
        spans = self._compressor.compress(
            question, documents, token_budget=budget, context="sentence"
        )
        return [_within(self._passages[int(span.document_id)], span) for span in spans]

    def size(self) -> int:
        return text_bytes(self._passages) + self._ranker.size()


def _within(chunk: Passage, span: Span) -> Passage:
    start, end = chunk.start + span.start, chunk.start + span.end
    return Passage(chunk.document_id, start, end, span.tokens, span.text, chunk.title)


def _okapi(shared: Resources, documents: Sequence[Document]) -> Searcher:
    """BM25Okapi over chunks, without title, stemming or stop words."""
    passages = cut_all(documents, chunks, shared.tokenizer)
    return _RankedPassages(passages, OkapiRanker([p.text for p in passages]), shared.tokenizer)


def _bm25(shared: Resources, documents: Sequence[Document]) -> _IndexSearcher:
    recipe = shared.codebook.named_recipe("default")
    # An index made by `WordsEncoder` has no features and no sentence vectors.
    words = shared.tokens.named_recipe(recipe)
    return _IndexSearcher(shared.tokens, words, "bm25", documents)


def _dense(
    cut: Cut,
    ranker: Callable[[Sequence[str], Embedder], Ranker],
    shared: Resources,
    documents: Sequence[Document],
    *,
    titled: bool = False,
) -> Searcher:
    passages = cut_all(documents, cut, shared.tokenizer)
    texts = [passage.titled() if titled else passage.text for passage in passages]
    ranked = ranker(texts, shared.embedder)
    return _RankedPassages(passages, ranked, None if cut is sentences else shared.tokenizer)


def _bm25_chunks(cut: Cut, shared: Resources, documents: Sequence[Document]) -> Searcher:
    """BM25 over title and chunk, with stemming and stop words."""
    passages = cut_all(documents, cut, shared.tokenizer)
    ranker = StemmedRanker([passage.titled() for passage in passages])
    return _RankedPassages(passages, ranker, shared.tokenizer)


def _ensemble_chunks(cut: Cut, shared: Resources, documents: Sequence[Document]) -> Searcher:
    """BM25 and FAISS over title and chunk, their scores standardised and added."""
    passages = cut_all(documents, cut, shared.tokenizer)
    ranker = ZScoreRanker([passage.titled() for passage in passages], shared.embedder)
    return _RankedPassages(passages, ranker, shared.tokenizer)


def _indexed(
    mode: Mode,
    recipe: str,
    shared: Resources,
    documents: Sequence[Document],
    *,
    context: ContextForm = "sentence",
) -> Searcher:
    chosen = shared.codebook.named_recipe(recipe)
    return _IndexSearcher(shared.scans, chosen, mode, documents, context)


METHODS: Mapping[str, Callable[[Resources, Sequence[Document]], Searcher]] = {
    "bm25-framework": _okapi,
    "bm25": _bm25,
    "dense-sentence": partial(_dense, sentences, FaissRanker),
    "dense-titled": partial(_dense, sentences, FaissRanker, titled=True),
    "dense-chunk": partial(_dense, chunks, FaissRanker),
    "bm25-chunk": partial(_bm25_chunks, chunks),
    "ensemble-chunk": partial(_ensemble_chunks, chunks),
    "bm25-chunk-512": partial(_bm25_chunks, large_chunks),
    "dense-chunk-512": partial(_dense, large_chunks, FaissRanker, titled=True),
    "ensemble-chunk-512": partial(_ensemble_chunks, large_chunks),
    "dense-llamaindex": partial(_dense, chunks, LlamaIndexRanker),
    "ensemble-rrf": partial(_Ensemble, reciprocal_ranks),
    "ensemble-zscore": partial(_Ensemble, z_scores),
    "s3": partial(_indexed, "s3", "default"),
    "hybrid": partial(_indexed, "hybrid", "default"),
    "hybrid-passage": partial(_indexed, "hybrid", "default", context="passage"),
    "hybrid-neighbours": partial(_indexed, "hybrid", "default", context="neighbours"),
    "hybrid-section": partial(_indexed, "hybrid", "default", context="section"),
    "s3-rerank": partial(_Reranked, "s3"),
    "hybrid-rerank": partial(_Reranked, "hybrid"),
    "hybrid-turns": partial(_InParts, _turns),
    "hybrid-sections": partial(_InParts, _sections),
    "s3-paper": partial(_indexed, "s3", "paper"),
    "s3-paper-literal": partial(_indexed, "s3", "paper-literal"),
    "hybrid-paper": partial(_indexed, "hybrid", "paper"),
    "hybrid-paper-literal": partial(_indexed, "hybrid", "paper-literal"),
    "compressor": _Compressed,
}


# They take seconds a question and a language model, so they run only where they are asked for.
RERANKING = ("s3-rerank", "hybrid-rerank")


def method_names(codebook: Codebook, chosen: Sequence[str] | None) -> list[str]:
    """The methods to run, in the order of `METHODS`.

    Args:
        codebook: Codebook of the host; the recipes of the paper need a key tap.
        chosen: Names; None for all that the codebook can serve, but for `RERANKING`.

    Raises:
        InputError: A name is unknown, or the codebook cannot serve it.
    """
    has_keys = any(tap.site == "key" for tap in codebook.saes)
    served = [name for name in METHODS if has_keys or "-paper" not in name]
    for name in chosen or ():
        if name not in served:
            raise InputError(
                f"There is no method {name!r} for this codebook; choose from {', '.join(served)}."
            )
    usual = [name for name in served if name not in RERANKING]
    return usual if chosen is None else [name for name in served if name in chosen]
