"""`ScannedContext`: a context that was scanned once and answers any number of questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3_retriever.answer.budget import default_token_budget
from s3_retriever.answer.context import in_document
from s3_retriever.answer.generation import Answer, AnswerStream, generate
from s3_retriever.answer.prompt import (
    Request,
    Requests,
    fit_evidence,
    join_evidence,
)
from s3_retriever.engine import S3Index
from s3_retriever.engine.hosting import answering_host
from s3_retriever.engine.s3index import MIN_RELEVANCE
from s3_retriever.errors import InputError
from s3_retriever.host import Host
from s3_retriever.search import Span, knows_relevance
from s3_retriever.types import (
    DEFAULT_CONTEXT,
    ContextForm,
    Mode,
    Refresh,
    Where,
    check_choice,
    check_count,
    check_share,
    check_text,
)

if TYPE_CHECKING:
    from s3_retriever.answer.evidence_cache import EvidenceCache

MAX_NEW_TOKENS = 256


class ScannedContext:
    """A context whose features are in an index, and a host that answers questions about it.

    Made by `LongContext.scan` or `LongContext.open` from a context, and by `of_index` from an index
    of documents. Can be used as a context manager, and from several threads at once; the host runs
    for one of them at a time.

    Attributes:
        memory: What the host cached of the context, for `evidence="cache"`; else None.
    """

    def __init__(
        self, index: S3Index, requests: Requests, memory: EvidenceCache | None = None
    ) -> None:
        """Prefer `LongContext.scan`, `LongContext.open` and `of_index`.

        Args:
            index: The context's pieces, or documents.
            requests: Makes the requests to the host that answers.
            memory: What the host cached of the context; None to read the evidence.
        """
        self._store = index._store
        self._requests = requests
        self._index = index
        self.memory = memory

    @classmethod
    def of_index(
        cls,
        index: S3Index,
        host: str | Host,
        *,
        context: ContextForm = DEFAULT_CONTEXT,
        chat_options: Mapping[str, Any] | None = None,
        **host_options: Any,
    ) -> ScannedContext:
        """Let a host answer questions about the documents of an index.

        Args:
            index: The index; it finds the evidence, and what is added to it later is found too.
            host: What answers: a local folder or GGUF file, a model id on the Hub, or a host that
                was loaded with `generates=True`, such as the index's own.
            context: As in `LongContext`.
            chat_options: As in `LongContext`.
            host_options: For `Host.load`.

        Raises:
            HostError: The host cannot be loaded, or cannot generate.
        """
        check_choice(context, "context", ContextForm)
        answering = answering_host(host, host_options)
        _ = answering.causal
        return cls(index, Requests(answering, dict(chat_options or {}), None, context))

    def __enter__(self) -> ScannedContext:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def tokens(self) -> int:
        """Length in tokens of the host that scanned it."""
        return self._store.snapshot().n_tokens

    @property
    def path(self) -> Path | None:
        """Folder of the scan; None if it lives in memory.

        The folder is an index whose documents are pieces of the context; `S3Index.open` and
        `s3r search` read it as well. If `LongContext` was given the codebook as an object, give it
        to `S3Index.open` too; with the fallback, neither needs one.
        """
        return self._store.path

    def close(self) -> None:
        """Let go of the files, or of a scan in memory."""
        self._index.close()

    def compress(
        self,
        question: str,
        *,
        token_budget: int | None = None,
        min_relevance: float | None = None,
        mode: Mode = "hybrid",
        context: ContextForm | None = None,
    ) -> list[Span]:
        """Find the evidence for a question: M_S3 U M_BM25 U M_bias (S3-Attention, section 4).

        Args:
            question: Any text.
            token_budget: Most tokens of the joined spans, as the host counts them; by default 256
                for a causal host of less than a billion parameters, else 1,024.
            min_relevance: Spans of a lower `relevance`, 0 to 1, are left out. By default 0.05 in
                mode `bm25`, and in mode `hybrid` if the relevance of the retriever's recipe is
                known; else 0, which leaves nothing out.
            mode: As in `S3Index.search`: `hybrid` uses all three, `s3` only M_S3 and `bm25` only
                M_BM25.
            context: As in `S3Index.search`; by default what `LongContext` was given.

        Returns:
            Spans in the context's order, with offsets into its documents; none if nothing is
            relevant. Unless `min_relevance` is given and above 0, a context that fits into the
            budget is returned whole if anything in it is relevant, with scores and relevance of 0
            and no sources.

        Raises:
            InputError: The question is empty, a number is out of range, or a name is unknown.
        """
        check_text(question, "question")
        check_choice(mode, "mode", Mode)
        if context is None:
            context = self._requests.context
        check_choice(context, "context", ContextForm)
        check_share(min_relevance, "min_relevance")
        if token_budget is None:
            token_budget = default_token_budget(self._requests.host)
        check_count(token_budget, "token_budget")
        tokenizer = self._requests.host.tokenizer
        return self._evidence(
            question,
            token_budget,
            lambda spans: tokenizer.count(join_evidence(spans)),
            context,
            mode,
            min_relevance,
        )

    def answer(
        self,
        question: str,
        *,
        token_budget: int | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        min_relevance: float | None = None,
        refresh: Refresh | None = None,
        prompt: str | None = None,
        mode: Mode = "hybrid",
        where: Where | None = None,
        context: ContextForm | None = None,
        **generation: Any,
    ) -> Answer:
        """Let the host answer a question from the evidence for it.

        Args:
            question: Any text.
            token_budget: Most tokens of evidence; the default is that of `compress`, or what
                question and answer leave of the host's positions.
            max_new_tokens: Most tokens of the answer.
            min_relevance: As in `compress`.
            refresh: After that many new tokens each time, search again with the question and what
                is written so far, and go on with that evidence; `uncertain`: before each token of
                which the host is not sure. Defaults to what `LongContext` was given.
            prompt: A text with `{context}` and `{question}`.
            mode: As in `S3Index.search`.
            where: Metadata that the documents of the evidence must have, as in `S3Index.search`.
            context: As in `compress`.
            generation: Passed on to the model's `generate`, such as `do_sample=True`; decoding is
                greedy by default.

        Returns:
            The answer. If nothing in the context is relevant, `found` is False and nothing was
            generated.

        Raises:
            InputError: The question is empty or leaves too few positions for evidence and answer;
                no evidence fits into the budget; or the prompt or an option cannot be used.
            HostError: The host cannot generate, or the device has too little memory for the
                prompt.
        """
        return self.answer_to(
            self._requests.make(
                question,
                token_budget,
                max_new_tokens,
                min_relevance,
                refresh,
                prompt,
                generation,
                mode,
                where,
                context,
            )
        )

    def stream(
        self,
        question: str,
        *,
        token_budget: int | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        min_relevance: float | None = None,
        refresh: Refresh | None = None,
        prompt: str | None = None,
        mode: Mode = "hybrid",
        where: Where | None = None,
        context: ContextForm | None = None,
        **generation: Any,
    ) -> AnswerStream:
        """Like `answer`, but yields the text while it is generated, and has the answer at the end.

        Args and errors are those of `answer`.
        """
        request = self._requests.make(
            question,
            token_budget,
            max_new_tokens,
            min_relevance,
            refresh,
            prompt,
            generation,
            mode,
            where,
            context,
        )
        return self.stream_to(request)

    def answer_to(self, request: Request) -> Answer:
        """Answer a request that is checked already.

        Raises:
            S3Error: As `answer`.
        """
        request = replace(request, memory=self.memory)
        return generate(request, *self._find(request), partial(self._find, request))

    def stream_to(
        self, request: Request, on_end: Callable[[], None] = lambda: None
    ) -> AnswerStream:
        """Stream the answer to a request that is checked already.

        Args:
            request: The question.
            on_end: Called once the stream needs the context no more.

        Raises:
            S3Error: As `answer`.
        """
        request = replace(request, memory=self.memory)
        found = self._find(request)
        return AnswerStream(request, *found, partial(self._find, request), on_end)

    def _find(self, request: Request, written: str = "") -> tuple[list[Span], float]:
        """The evidence for a request, and the seconds that finding it took.

        Args:
            request: The question.
            written: What the host has written of the answer.

        Raises:
            InputError: There is evidence, but none fits into the budget.
        """
        began = time.perf_counter()
        question = f"{request.question} {written}".strip() if written else request.question
        mode, where = request.mode, request.where
        floor = self._floor(request.min_relevance, mode)
        spans = self._evidence(
            question,
            request.evidence_tokens,
            lambda spans: len(request.ids(spans)) - request.overhead,
            request.context,
            mode,
            request.min_relevance,
            where,
        )
        if not (spans or written) and self._index.search(
            question, 1, mode=mode, min_relevance=floor, where=where
        ):
            raise InputError(
                f"No evidence for the question fits into {request.evidence_tokens} tokens; raise "
                "token_budget."
            )
        return spans, time.perf_counter() - began

    def _evidence(
        self,
        question: str,
        token_budget: int,
        count: Callable[[Sequence[Span]], int],
        context: ContextForm,
        mode: Mode = "hybrid",
        min_relevance: float | None = None,
        where: Where | None = None,
    ) -> list[Span]:
        floor = self._floor(min_relevance, mode)
        if not min_relevance and where is None and self.tokens <= token_budget:
            whole = self._whole()
            # A text tokenised whole may have a token more or less than its pieces.
            if count(whole) <= token_budget:
                relevant = not floor or self._index.search(
                    question, 1, mode=mode, min_relevance=floor
                )
                return whole if relevant else []
        room = token_budget
        while True:
            found = self._index.search(
                question,
                mode=mode,
                token_budget=room,
                min_relevance=floor,
                where=where,
                order="document",
                context=context,
            )
            spans = [in_document(span) for span in found]
            surplus = count(spans) - token_budget
            # To drop a sentence loses little; to drop a wider span may lose most of the evidence.
            if surplus <= 0 or surplus >= room or context == "sentence":
                return fit_evidence(spans, count, token_budget)
            room -= surplus

    def _floor(self, min_relevance: float | None, mode: Mode) -> float:
        """The lowest relevance of evidence."""
        if min_relevance is not None:
            return min_relevance
        return MIN_RELEVANCE if knows_relevance(self._index.recipe, mode) else 0.0

    def _whole(self) -> list[Span]:
        """Every document of the context as a span, or as several if it has skipped pieces."""
        spans: list[Span] = []
        for segment in self._store.snapshot().segments:
            for ordinal in segment.live_documents().tolist():
                row, text = segment.document(ordinal), segment.document_text(ordinal)
                tokens = int(segment.documents[ordinal]["n_tokens"])
                piece = Span(text, 0.0, 0.0, row.id, 0, len(text), (), row.metadata, tokens)
                span = in_document(piece)
                last = spans[-1] if spans else None
                if last is None or (last.document_id, last.end) != (span.document_id, span.start):
                    spans.append(span)
                    continue
                text, tokens = last.text + span.text, last.tokens + span.tokens
                spans[-1] = replace(last, text=text, end=span.end, tokens=tokens)
        return spans
