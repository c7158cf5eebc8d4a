"""`Compressor`: the evidence that given documents hold for a question."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from s3_retriever.codebook import Codebook
from s3_retriever.document import Document
from s3_retriever.encoder import CachingEncoder
from s3_retriever.engine.hosting import find_codebook, shared_host
from s3_retriever.engine.s3index import S3Index
from s3_retriever.host import Host
from s3_retriever.index import Store
from s3_retriever.recipe import Recipe
from s3_retriever.search import Span
from s3_retriever.types import Mode, Order, Where


class Compressor:
    """Reduces documents that something else retrieved to the spans that answer a question.

    Documents are scanned by the host; what was scanned lately is remembered, so that a document
    that comes again is not scanned again. May be used from several threads at once.

    Args:
        host: `minilm`, a local folder, a model id on the Hugging Face Hub, or a loaded host.
        codebook: The host's codebook, or where it is; found as in `S3Index.create`.
        recipe: `default`, `paper`, or your own.
        cache_tokens: Tokens whose features are remembered at most.
        host_options: For `Host.load`.

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
        book = find_codebook(host, codebook)
        self.recipe = book.named_recipe(recipe)
        self.encoder = CachingEncoder(shared_host(host, book, host_options), book, cache_tokens)

    def compress(
        self,
        question: str,
        documents: Iterable[Document | str],
        *,
        k: int | None = None,
        token_budget: int | None = None,
        mode: Mode = "hybrid",
        where: Where | None = None,
        order: Order = "score",
    ) -> list[Span]:
        """Find the spans of the documents that answer a question.

        Args:
            question: Any text.
            documents: What to compress; of several with the same id the first counts.
            k: Spans at most.
            token_budget: Tokens of the host at most, all spans together; 1,024 where neither
                `k` nor `token_budget` is given.
            mode: As in `S3Index.search`.
            where: As in `S3Index.search`.
            order: As in `S3Index.search`.

        Returns:
            Spans that do not overlap or repeat each other, also where the documents do.

        Raises:
            InputError: The question is empty, a document is not usable, a number is below 1.
        """
        if k is None and token_budget is None:
            token_budget = 1024
        named: dict[str, Document] = {}
        for item in documents:
            document = Document(item) if isinstance(item, str) else item
            named.setdefault(document.id, document)
        with S3Index(Store.create(None, {}), self.encoder, self.recipe) as index:
            index.add(named.values(), progress=False)
            return index.search(
                question, k, mode=mode, token_budget=token_budget, where=where, order=order
            )
