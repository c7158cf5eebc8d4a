"""`Compressor`: the evidence that given documents hold for a question."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3_retriever.document import Document
from s3_retriever.engine.hosting import find_codebook, shared_host
from s3_retriever.engine.s3index import S3Index
from s3_retriever.index import Store
from s3_retriever.recipe import Recipe
from s3_retriever.search import Span
from s3_retriever.types import Mode, Order, Where

if TYPE_CHECKING:
    from s3_retriever.codebook import Codebook
    from s3_retriever.host import Host

# Tokens that the spans of a call may have unless it says otherwise.
DEFAULT_TOKEN_BUDGET = 1024


class Compressor:
    """Reduces documents that something else retrieved to the spans that answer a question.

    The host scans each document once: the features of recent documents are cached. Several
    threads may share a compressor.

    Args:
        host: `minilm`, a local folder, a model id on the Hugging Face Hub, or a loaded host.
        codebook: The host's codebook, its folder, or its id on the Hugging Face Hub. Defaults to
            the one shipped for the host, or the one in the folder `s3-codebook` beside the
            model's files.
        recipe: `default` (what the codebook measures best), `paper`, or your own.
        cache_tokens: Most tokens whose features are cached.
        host_options: For `Host.load`, such as `device="cuda"`.

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
            documents: Documents or plain texts; of several with the same id the first counts.
            k: Most spans to return.
            token_budget: Most tokens of the host that all spans together may have; defaults to
                1,024 unless `k` is given.
            mode: `s3` (co-activation of features), `bm25`, or `hybrid`, which fuses both.
            where: Metadata that documents must have, such as `{"year": 2024}`, or a function of
                a document's metadata.
            order: `score`, best first, or `document`, as in the documents.

        Returns:
            Spans that neither overlap nor repeat each other, even if the documents do.

        Raises:
            InputError: The question is empty, a document cannot be used, a number is below 1, or
                a name is unknown.
        """
        if k is None and token_budget is None:
            token_budget = DEFAULT_TOKEN_BUDGET
        named: dict[str, Document] = {}
        for item in documents:
            document = Document(item) if isinstance(item, str) else item
            named.setdefault(document.id, document)
        with S3Index(Store.create(None, {}), self.encoder, self.recipe) as index:
            index.add(named.values(), progress=False)
            return index.search(
                question, k, mode=mode, token_budget=token_budget, where=where, order=order
            )
