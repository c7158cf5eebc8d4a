"""`ScannedContext`: a context that was scanned once and answers any number of questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from s3_retriever.answer.context import is_last, placed
from s3_retriever.answer.generation import Answer, AnswerStream, generate
from s3_retriever.answer.prompt import (
    Prompt,
    Request,
    append_span,
    check_count,
    check_text,
    fit_evidence,
    join_evidence,
)
from s3_retriever.document import Document
from s3_retriever.encoder import Encoder
from s3_retriever.engine import S3Index
from s3_retriever.engine.origin import Origin
from s3_retriever.errors import IndexStoreError, InputError
from s3_retriever.host import Host
from s3_retriever.index import Store
from s3_retriever.index.manifest import MANIFEST_NAME
from s3_retriever.recipe import Recipe
from s3_retriever.search import Span
from s3_retriever.types import Mode


@dataclass(frozen=True, slots=True)
class Reader:
    """What reads a context and answers from it.

    Attributes:
        encoder: Host and codebook.
        recipe: How the context is indexed and questions are scored.
        codebook: Where the codebook was named to be; None where it belongs to the host.
        chat_options: Passed on to the tokenizer's chat template.
    """

    encoder: Encoder
    recipe: Recipe
    codebook: str | Path | None
    chat_options: Mapping[str, Any]

    @property
    def host(self) -> Host:
        """The one model that scans and generates."""
        return self.encoder.host

    @property
    def identity(self) -> Origin:
        """What a scan keeps about how it was made."""
        return Origin.of(self.encoder, self.recipe, self.codebook)

    def index(self, store: Store) -> S3Index:
        """The index in a store."""
        return S3Index(store, self.encoder, self.recipe)

    def request(
        self,
        question: str,
        token_budget: int,
        max_new_tokens: int,
        prompt: str | None,
        options: Mapping[str, Any],
    ) -> Request:
        """A question for the host, checked before any work.

        Raises:
            InputError: It cannot be asked like this.
            HostError: The host cannot generate.
        """
        written = Prompt(self.host, prompt, self.chat_options)
        return Request(self.host, question, token_budget, max_new_tokens, written, options)


# Committed at once, about half a million characters; an interruption loses no more than that.
_COMMITTED_PIECES = 512


def scan_pieces(pieces: Iterator[Document], reader: Reader, *, progress: bool) -> Store:
    """Scan pieces into a temporary index.

    Raises:
        InputError: There are none.
    """
    pieces = _not_empty(pieces)
    store = Store.create(None, {})
    reader.index(store).add(pieces, progress=progress)
    return store


def keep_pieces(pieces: Iterator[Document], reader: Reader, path: Path, *, progress: bool) -> Store:
    """Scan pieces into an index on disk, or go on where that ended.

    Raises:
        InputError: There are none.
        IndexStoreError: There is something else at `path`, or a scan of another context or with
            another host, codebook or recipe; or it cannot be written.
    """
    pieces = _not_empty(pieces)
    if (path / MANIFEST_NAME).exists():
        store = open_kept(reader, path)
        _pass_over(pieces, store, path)
    else:
        store = Store.create(path, reader.identity.model_dump())
    index = reader.index(store)
    while batch := list(islice(pieces, _COMMITTED_PIECES)):
        index.add(batch, progress=progress)
    return store


def open_kept(reader: Reader, path: Path) -> Store:
    """Open a kept scan, whole or not.

    Raises:
        IndexStoreError: There is none, or it was made with another host, codebook or recipe.
    """
    store = Store.open(path)
    found, wanted = Origin.read(store), reader.identity
    for name in ("fingerprint", "codebook", "window", "overlap", "recipe"):
        if getattr(found, name) != getattr(wanted, name):
            what = "host" if name == "fingerprint" else name
            raise IndexStoreError(
                f"The scan at {path} was made with another {what}; use that one, or scan to "
                "another path."
            )
    return store


def check_whole(store: Store) -> None:
    """Refuse a kept scan that was interrupted.

    Raises:
        IndexStoreError: It was.
    """
    segments = store.snapshot().segments
    last = segments[-1].document(segments[-1].n_documents - 1) if segments else None
    if last is None or not is_last(last.metadata):
        raise IndexStoreError(
            f"The scan at {store.path} is no whole context: it was interrupted, or is another "
            "kind of index; scan the context with that path again, which goes on from there."
        )


def _pass_over(pieces: Iterator[Document], store: Store, path: Path) -> None:
    """Take the pieces that are in a store already."""
    for known in store.snapshot().ids():
        piece = next(pieces, None)
        if piece is None or piece.id != known:
            raise IndexStoreError(
                f"The scan at {path} is of another context; give the context that it was begun "
                "with, or another path."
            )


def _not_empty(pieces: Iterator[Document]) -> Iterator[Document]:
    first = next(pieces, None)
    if first is None:
        raise InputError("The context is empty; give a text to answer from.")
    return chain([first], pieces)


TOKEN_BUDGET = 1024
MAX_NEW_TOKENS = 256


class ScannedContext:
    """A context whose features are in an index; made by `LongContext.scan` or `LongContext.open`.

    It may be used as a context manager, and from several threads at once; the host runs for one
    of them at a time.

    Args:
        store: The scan.
        reader: What it was made with.
    """

    def __init__(self, store: Store, reader: Reader) -> None:
        self._store = store
        self._reader = reader
        self._index = reader.index(store)

    def __enter__(self) -> ScannedContext:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def tokens(self) -> int:
        """Length in tokens of the host."""
        return self._store.snapshot().n_tokens

    @property
    def path(self) -> Path:
        """Folder of the scan: an index, which `S3Index.open` and `s3 search` read as well."""
        return self._store.path

    def close(self) -> None:
        """Let go of the files; a scan without a path of its own is removed."""
        self._index.close()

    def compress(
        self, question: str, *, token_budget: int = TOKEN_BUDGET, mode: Mode = "hybrid"
    ) -> list[Span]:
        """Find the evidence for a question: M_S3 U M_BM25 U M_bias (S3-Attention, section 4).

        Args:
            question: Any text.
            token_budget: Tokens of the host at most, all spans joined.
            mode: As in `S3Index.search`: `hybrid` is all of it, `s3` M_S3 and `bm25` M_BM25 alone.

        Returns:
            Spans in the context's order, with offsets into its documents. A context that fits
            into the budget is returned whole, with scores of 0 and no sources.

        Raises:
            InputError: The question is empty, the budget is below 1, or there is no such mode.
        """
        check_text(question, "question")
        check_count(token_budget, "token_budget")
        tokenizer = self._reader.host.tokenizer
        return self._evidence(
            question, token_budget, lambda spans: tokenizer.count(join_evidence(spans)), mode
        )

    def answer(
        self,
        question: str,
        *,
        token_budget: int = TOKEN_BUDGET,
        max_new_tokens: int = MAX_NEW_TOKENS,
        prompt: str | None = None,
        **generation: Any,
    ) -> Answer:
        """Let the host answer a question from the evidence for it.

        Args:
            question: Any text.
            token_budget: Tokens of evidence at most.
            max_new_tokens: Tokens of the answer at most.
            prompt: A text with `{context}` and `{question}`.
            generation: Passed on to the model's `generate`, such as `do_sample=True`; decoding is
                greedy where nothing else is said.

        Raises:
            InputError: The question is empty, does not fit the host together with budget and
                answer, or has no evidence; the prompt or an option cannot be used.
            HostError: The host cannot generate, or the device has no memory for the prompt.
        """
        request = self._reader.request(question, token_budget, max_new_tokens, prompt, generation)
        return generate(request, *self.find(request))

    def stream(
        self,
        question: str,
        *,
        token_budget: int = TOKEN_BUDGET,
        max_new_tokens: int = MAX_NEW_TOKENS,
        prompt: str | None = None,
        **generation: Any,
    ) -> AnswerStream:
        """As `answer`, but gives the text as it is generated, and the answer at the end.

        Args and errors are those of `answer`.
        """
        request = self._reader.request(question, token_budget, max_new_tokens, prompt, generation)
        return AnswerStream(request, *self.find(request))

    def find(self, request: Request) -> tuple[list[Span], float]:
        """The evidence for a request, and the seconds it took.

        Raises:
            InputError: There is none under this budget.
        """
        began = time.perf_counter()
        spans = self._evidence(
            request.question,
            request.token_budget,
            lambda spans: len(request.ids(spans)) - request.overhead,
        )
        if not spans:
            raise InputError(
                f"The context has no evidence for the question in {request.token_budget} tokens; "
                "ask in other words, or raise token_budget."
            )
        return spans, time.perf_counter() - began

    def _evidence(
        self,
        question: str,
        budget: int,
        tokens: Callable[[Sequence[Span]], int],
        mode: Mode = "hybrid",
    ) -> list[Span]:
        if self.tokens <= budget:
            whole = self._whole()
            # Read in one piece, a text may have a token more or less than in several.
            if tokens(whole) <= budget:
                return whole
        found = self._index.search(question, mode=mode, token_budget=budget, order="document")
        return fit_evidence([placed(span) for span in found], tokens, budget)

    def _whole(self) -> list[Span]:
        """Every document of the context as a span, or as several around pieces left out."""
        spans: list[Span] = []
        for segment in self._store.snapshot().segments:
            for ordinal in segment.live_documents().tolist():
                row, text = segment.document(ordinal), segment.document_text(ordinal)
                tokens = int(segment.documents[ordinal]["n_tokens"])
                span = Span(text, 0.0, row.id, 0, len(text), (), row.metadata, tokens)
                append_span(spans, placed(span))
        return spans
