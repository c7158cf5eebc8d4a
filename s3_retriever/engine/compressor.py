"""`Compressor`: the evidence for a question in documents that something else retrieved."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from s3_retriever.document import Document, as_documents
from s3_retriever.engine.hosting import find_codebook, host_name, shared_host
from s3_retriever.engine.reranking import checked_rerank
from s3_retriever.engine.s3index import S3Index, new_store
from s3_retriever.paths import lasting
from s3_retriever.recipe import Recipe
from s3_retriever.search import Span
from s3_retriever.types import (
    DEFAULT_CONTEXT,
    ContextForm,
    Mode,
    Order,
    Where,
    check_count,
    refuse_arguments,
)

if TYPE_CHECKING:
    from s3_retriever.codebook import Codebook
    from s3_retriever.host import Host

# Token budget of a call that sets no limit.
DEFAULT_TOKEN_BUDGET = 1024


class Compressor:
    """Reduces documents that something else retrieved to the spans that answer a question.

    The host scans the documents, and everything stays in memory: no files are written, and a
    document that was scanned lately is not scanned again. Several threads may share a compressor.

    Args:
        host: `minilm`, `smollm2`, a local folder or GGUF file, a model id on the Hub, or a loaded
            host.
        codebook: The host's codebook, or its name; found as in `S3Index.create`.
        recipe: `default`, `paper`, or your own.
        cache_tokens: Most tokens whose features are remembered; with 0 or less, none.
        host_options: For `Host.load`, such as `device="cuda"`.

    Attributes:
        recipe: How documents and questions are scored.
        encoder: The host and its codebook.

    Raises:
        HostError: The host cannot be loaded.
        CodebookError: There is no codebook for the host, or it does not fit host or recipe.
    """

    def __init__(
        self,
        host: str | Host = "minilm",
        *,
        codebook: str | Path | Codebook | None = None,
        recipe: str | Recipe = "default",
        cache_tokens: int = 1_000_000,
        **host_options: Any,
    ) -> None:
        from s3_retriever.encoder import CachingEncoder

        cache_tokens = check_count(cache_tokens, "cache_tokens", least=-sys.maxsize)
        host = host_name(host)
        book = find_codebook(host, codebook)
        self.recipe = book.named_recipe(recipe)
        self.encoder = CachingEncoder(shared_host(host, book, host_options), book, cache_tokens)
        # What makes it again in another process and working directory.
        if isinstance(host, str):
            host = lasting(host)
        if isinstance(codebook, (str, Path)):
            codebook = lasting(str(codebook))
        self._arguments = (host, codebook, recipe, cache_tokens, host_options)

    def __copy__(self) -> Compressor:
        """The compressor itself, which may be shared."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Compressor:
        """As `__copy__`."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle how it was made; what it remembers stays here.

        Raises:
            HostError: Its host cannot be loaded by name.
        """
        return _make_again, self._arguments

    def compress(
        self,
        question: str,
        documents: Iterable[Document | str] | Document | str,
        *,
        k: int | None = None,
        token_budget: int | None = None,
        min_relevance: float | None = None,
        mode: Mode = "hybrid",
        where: Where | None = None,
        order: Order = "score",
        context: ContextForm = DEFAULT_CONTEXT,
        rerank: int | None = None,
        rerank_host: str | Host | None = None,
        **_unknown: NoReturn,
    ) -> list[Span]:
        """Find the spans of the documents that answer a question.

        Args:
            question: Any text.
            documents: Documents or plain texts, any number; of those with the same id, the first
                counts.
            k: Most spans.
            token_budget: Most tokens of all spans together, as the host counts them; 1,024 if
                neither `k` nor `token_budget` is given.
            min_relevance: As in `S3Index.search`.
            mode: As in `S3Index.search`.
            where: As in `S3Index.search`.
            order: As in `S3Index.search`.
            context: As in `S3Index.search`.
            rerank: As in `S3Index.search`.
            rerank_host: As in `S3Index.search`.

        Returns:
            Spans that do not overlap or repeat each other, even if the documents do.

        Raises:
            InputError: The question is empty, a document cannot be used, a number is below 1, or
                a name is unknown.
        """
        refuse_arguments("compress", _unknown)
        checked_rerank(rerank, rerank_host)
        if k is None and token_budget is None:
            token_budget = DEFAULT_TOKEN_BUDGET
        unique: dict[str, Document] = {}
        for document in as_documents(documents):
            unique.setdefault(document.id, document)
        store = new_store(None, self.encoder, self.recipe, None)
        with S3Index(store, self.encoder, self.recipe) as index:
            index.add(unique.values(), progress=False)
            return index.search(
                question,
                k,
                mode=mode,
                token_budget=token_budget,
                min_relevance=min_relevance,
                where=where,
                order=order,
                context=context,
                rerank=rerank,
                rerank_host=rerank_host,
            )


def _make_again(
    host: Any, codebook: Any, recipe: Any, cache_tokens: int, options: dict[str, Any]
) -> Compressor:
    return Compressor(host, codebook=codebook, recipe=recipe, cache_tokens=cache_tokens, **options)
