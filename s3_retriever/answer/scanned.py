"""`ScannedContext`: a context that was scanned once and answers any number of questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from s3_retriever.answer.context import in_document
from s3_retriever.answer.generation import Answer, AnswerStream, generate
from s3_retriever.answer.prompt import Prompt, Request, fit_evidence, join_evidence
from s3_retriever.encoder import Encoder
from s3_retriever.engine import S3Index
from s3_retriever.errors import InputError
from s3_retriever.index import Store
from s3_retriever.recipe import Recipe
from s3_retriever.search import Span
from s3_retriever.types import Mode, check_choice, check_count, check_text

TOKEN_BUDGET = 1024
MAX_NEW_TOKENS = 256


class ScannedContext:
    """A context whose features are in an index; made by `LongContext.scan` or `LongContext.open`.

    Can be used as a context manager, and from several threads at once; the host runs for one of
    them at a time.
    """

    def __init__(
        self, store: Store, encoder: Encoder, recipe: Recipe, chat_options: Mapping[str, Any]
    ) -> None:
        """Prefer `LongContext.scan` and `LongContext.open`.

        Args:
            store: The context's pieces.
            encoder: What they were scanned with.
            recipe: How they were indexed and questions are scored.
            chat_options: Passed on to the tokenizer's chat template.
        """
        self._store = store
        self._host = encoder.host
        self._index = S3Index(store, encoder, recipe)
        self._chat_options = chat_options

    def __enter__(self) -> ScannedContext:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def tokens(self) -> int:
        """Length in tokens of the host."""
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
        self, question: str, *, token_budget: int = TOKEN_BUDGET, mode: Mode = "hybrid"
    ) -> list[Span]:
        """Find the evidence for a question: M_S3 U M_BM25 U M_bias (S3-Attention, section 4).

        Args:
            question: Any text.
            token_budget: Most tokens of the joined spans, as the host counts them.
            mode: As in `S3Index.search`: `hybrid` uses all three, `s3` only M_S3 and `bm25` only
                M_BM25.

        Returns:
            Spans in the context's order, with offsets into its documents. A context that fits
            into the budget is returned whole, with scores of 0 and no sources.

        Raises:
            InputError: The question is empty, the budget is below 1, or the mode is unknown.
        """
        check_text(question, "question")
        check_count(token_budget, "token_budget")
        check_choice(mode, "mode", Mode)
        tokenizer = self._host.tokenizer
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
            token_budget: Most tokens of evidence.
            max_new_tokens: Most tokens of the answer.
            prompt: A text with `{context}` and `{question}`.
            generation: Passed on to the model's `generate`, such as `do_sample=True`; decoding is
                greedy by default.

        Raises:
            InputError: The question is empty, leaves too few positions for evidence and answer, or
                has no evidence; or the prompt or an option cannot be used.
            HostError: The host cannot generate, or the device has too little memory for the
                prompt.
        """
        written = Prompt(self._host, prompt, self._chat_options)
        request = Request(self._host, question, token_budget, max_new_tokens, written, generation)
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
        """Like `answer`, but yields the text while it is generated, and has the answer at the end.

        Args and errors are those of `answer`.
        """
        written = Prompt(self._host, prompt, self._chat_options)
        request = Request(self._host, question, token_budget, max_new_tokens, written, generation)
        return AnswerStream(request, *self.find(request))

    def find(self, request: Request) -> tuple[list[Span], float]:
        """The evidence for a request, and the seconds that finding it took.

        Raises:
            InputError: The budget is too small for any evidence.
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
                "rephrase the question, or raise token_budget."
            )
        return spans, time.perf_counter() - began

    def _evidence(
        self,
        question: str,
        token_budget: int,
        count: Callable[[Sequence[Span]], int],
        mode: Mode = "hybrid",
    ) -> list[Span]:
        if self.tokens <= token_budget:
            whole = self._whole()
            # A text tokenised whole may have a token more or less than its pieces.
            if count(whole) <= token_budget:
                return whole
        spans = self._index.search(question, mode=mode, token_budget=token_budget, order="document")
        return fit_evidence([in_document(span) for span in spans], count, token_budget)

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
