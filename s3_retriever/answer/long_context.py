"""`LongContext`: one model that reads contexts of any length and answers from their evidence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from s3_retriever.answer.context import Context, pieces
from s3_retriever.answer.generation import Answer, AnswerStream, generate
from s3_retriever.answer.prompt import check_count, check_text
from s3_retriever.answer.scanned import (
    MAX_NEW_TOKENS,
    TOKEN_BUDGET,
    Reader,
    ScannedContext,
    check_whole,
    keep_pieces,
    open_kept,
    scan_pieces,
)
from s3_retriever.codebook import Codebook
from s3_retriever.encoder import Encoder
from s3_retriever.encoder.words import WordsEncoder
from s3_retriever.engine import find_codebook
from s3_retriever.engine.hosting import answering_host
from s3_retriever.errors import CodebookError, InputError
from s3_retriever.host import Host
from s3_retriever.recipe import Recipe
from s3_retriever.search import Span


class LongContext:
    """Answers questions about contexts that are longer than the model could read at once.

    The model is loaded once. It scans a context window by window, up to the deepest tap and
    without a KV cache; the features go into an index on the CPU. To a question it generates an
    answer from the evidence alone, so that the KV cache is that of a short prompt
    (S3-Attention, section 4).

    Args:
        host: A local folder, a model id on the Hugging Face Hub, or a host that was loaded with
            `generates=True`. An encoder such as `minilm` can `scan` and `compress`, not answer.
        codebook: The host's codebook, or where it is; found as in `S3Index.create`.
        recipe: `default`, `paper`, or your own.
        fallback: `bm25` retrieves with BM25 and the edges of the context where the host has no
            codebook; the host then does not scan at all.
        chat_options: Passed on to the tokenizer's chat template, such as
            `{"enable_thinking": False}`.
        host_options: For `Host.load`, such as `device="cuda"`.

    Raises:
        HostError: The host cannot be loaded.
        CodebookError: There is no codebook for the host, or it does not fit host or recipe.
        InputError: There is no such fallback, or an option does not fit the host.
    """

    def __init__(
        self,
        host: str | Host,
        *,
        codebook: str | Path | Codebook | None = None,
        recipe: str | Recipe = "default",
        fallback: Literal["bm25"] | None = None,
        chat_options: Mapping[str, Any] | None = None,
        **host_options: Any,
    ) -> None:
        if fallback not in (None, "bm25"):
            raise InputError(f"The fallback is 'bm25' or None, not {fallback!r}.")
        book = _codebook(host, codebook, fallback)
        chosen = book.named_recipe(recipe) if book else None
        self.host = answering_host(host, host_options)
        encoder: Encoder
        if book is None or chosen is None:
            encoder = words = WordsEncoder(self.host)
            chosen = words.recipe(recipe)
        else:
            encoder = Encoder(self.host, book)
        named = None if isinstance(codebook, Codebook) else codebook
        self._reader = Reader(encoder, chosen, named, dict(chat_options or {}))

    def scan(
        self, context: Context, *, path: str | Path | None = None, progress: bool = True
    ) -> ScannedContext:
        """Scan a context once, for any number of questions.

        Args:
            context: A text (str), a file of UTF-8 text (pathlib.Path), which is read in blocks, a
                `Document`, or any number of these, also from an iterator, each a document of its
                own.
            path: A folder that keeps the scan. It is committed about every half a million
                characters; after an interruption the same call goes on from there, and a context
                that was scanned already is not scanned again. Left out, the scan vanishes with
                the object.
            progress: Whether a bar shows how far it is (only in a terminal).

        Raises:
            InputError: The context is empty or cannot be read.
            IndexStoreError: There is something else at `path`, or the scan of another context or
                with another host, codebook or recipe.
            HostError: The device has no memory for a single window.
        """
        stream = pieces(context)
        if path is None:
            store = scan_pieces(stream, self._reader, progress=progress)
        else:
            store = keep_pieces(stream, self._reader, Path(path), progress=progress)
        return ScannedContext(store, self._reader)

    def open(self, path: str | Path) -> ScannedContext:
        """Open a scan that was kept, without its context at hand.

        Raises:
            IndexStoreError: There is none, it was interrupted, or it was made with another host,
                codebook or recipe.
        """
        store = open_kept(self._reader, Path(path))
        check_whole(store)
        return ScannedContext(store, self._reader)

    def compress(
        self,
        question: str,
        context: Context,
        *,
        path: str | Path | None = None,
        token_budget: int = TOKEN_BUDGET,
        progress: bool = True,
    ) -> list[Span]:
        """Scan a context and find the evidence for a question.

        Args and errors are those of `scan` and of `ScannedContext.compress`, which returns the
        same.
        """
        check_text(question, "question")
        check_count(token_budget, "token_budget")
        with self.scan(context, path=path, progress=progress) as scanned:
            return scanned.compress(question, token_budget=token_budget)

    def answer(
        self,
        question: str,
        context: Context,
        *,
        path: str | Path | None = None,
        token_budget: int = TOKEN_BUDGET,
        max_new_tokens: int = MAX_NEW_TOKENS,
        prompt: str | None = None,
        progress: bool = True,
        **generation: Any,
    ) -> Answer:
        """Scan a context and answer a question from the evidence for it.

        What is wrong with the question is told before the scan begins. Args and errors are those
        of `scan` and of `ScannedContext.answer`.
        """
        request = self._reader.request(question, token_budget, max_new_tokens, prompt, generation)
        with self.scan(context, path=path, progress=progress) as scanned:
            return generate(request, *scanned.find(request))

    def stream(
        self,
        question: str,
        context: Context,
        *,
        path: str | Path | None = None,
        token_budget: int = TOKEN_BUDGET,
        max_new_tokens: int = MAX_NEW_TOKENS,
        prompt: str | None = None,
        progress: bool = True,
        **generation: Any,
    ) -> AnswerStream:
        """As `answer`, but gives the text as it is generated, and the answer at the end."""
        request = self._reader.request(question, token_budget, max_new_tokens, prompt, generation)
        with self.scan(context, path=path, progress=progress) as scanned:
            return AnswerStream(request, *scanned.find(request))


def _codebook(
    host: str | Host, codebook: str | Path | Codebook | None, fallback: str | None
) -> Codebook | None:
    """The host's codebook; None where there is none and the fallback takes its place."""
    try:
        return find_codebook(host, codebook)
    except CodebookError as error:
        if codebook is not None:
            raise
        if fallback:
            return None
        raise CodebookError(
            f"{error}; or let the fallback 'bm25' retrieve by words alone."
        ) from error
