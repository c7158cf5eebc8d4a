"""S3 as a model of `mteb`, for its retrieval tasks: `mteb.evaluate(S3Search("minilm"), tasks)`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mteb.models.model_meta import ModelMeta

from s3_retriever import Codebook, Document, Host, S3Index, __version__
from s3_retriever.types import Mode, check_choice

# Metadata that reranking tasks filter by.
_ID = "mteb_id"


class S3Search:
    """Indexes a task's corpus and ranks its documents; follows mteb's `SearchProtocol`.

    Args:
        host: As in `S3Index.create`.
        mode: `hybrid`, `s3` or `bm25`.
        codebook: As in `S3Index.create`.
        host_options: For `Host.load`, such as `device="cuda"`.
    """

    def __init__(
        self,
        host: str | Host = "minilm",
        *,
        mode: Mode = "hybrid",
        codebook: str | Codebook | None = None,
        **host_options: Any,
    ) -> None:
        check_choice(mode, "mode", Mode)
        self._host = host
        self._mode = mode
        self._codebook = codebook
        self._options = host_options
        self._documents: S3Index | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb writes beside the results."""
        name = (self._host if isinstance(self._host, str) else self._host.name).rpartition("/")[2]
        return ModelMeta.create_empty(
            {
                "name": f"s3-retriever/{name}-{self._mode}",
                "revision": __version__,
                "framework": ["PyTorch"],
                "open_weights": True,
            }
        )

    def index(self, corpus: Iterable[Mapping[str, Any]], **_task: Any) -> None:
        """Index a corpus in memory; the one before is forgotten."""
        if self._documents is not None:
            self._documents.close()
        self._documents = S3Index.create(None, self._host, codebook=self._codebook, **self._options)
        self._documents.add(_document(row) for row in corpus)

    def search(
        self,
        queries: Iterable[Mapping[str, Any]],
        *,
        top_k: int,
        top_ranked: Mapping[str, list[str]] | None = None,
        **_task: Any,
    ) -> dict[str, dict[str, float]]:
        """Scores of the best documents for each query, by the ids of query and document.

        Args:
            queries: Rows with `id`, `text` and perhaps `instruction`, which is read in front.
            top_k: Most documents.
            top_ranked: The documents to rank for each query, in reranking tasks.
        """
        assert self._documents is not None, "mteb indexes before it searches"
        found = {}
        for row in queries:
            question = f"{row.get('instruction') or ''} {row['text']}".strip()
            where = None if top_ranked is None else {_ID: {"$in": list(top_ranked[row["id"]])}}
            results = self._documents.search(
                question,
                top_k,
                mode=self._mode,
                where=where,
                group_by="document",
                spans_per_document=1,
                unique=False,
            )
            found[row["id"]] = {each.document_id: each.score for each in results}
        return found


def _document(row: Mapping[str, Any]) -> Document:
    title = row.get("title") or ""
    metadata = {_ID: row["id"]} | ({"title": title} if title else {})
    return Document(row["text"], row["id"], metadata)
