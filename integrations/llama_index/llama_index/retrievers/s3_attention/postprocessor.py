"""`S3NodePostprocessor`: reduces retrieved nodes to the evidence."""

from __future__ import annotations

import threading
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import s3_retriever
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
from s3_retriever.processes import renew_after_fork
from s3_retriever.types import DEFAULT_CONTEXT, ContextForm, Mode, Order

from llama_index.retrievers.s3_attention.base import in_thread
from llama_index.retrievers.s3_attention.nodes import check_nodes, described, to_node, to_scan
from llama_index.retrievers.s3_attention.settings import Budget, Limit, Share

if TYPE_CHECKING:
    from s3_retriever import Compressor, Span

_LOADING = threading.Lock()


def _renew() -> None:
    """In a forked child, free the lock that another thread may have held."""
    global _LOADING
    _LOADING = threading.Lock()


renew_after_fork(_renew)


class S3NodePostprocessor(BaseNodePostprocessor):
    """Reduces the nodes of any retriever to the spans that answer the question.

    The host is loaded on first use, once per process, and scans the nodes; recent scans are
    remembered. Nodes without text are dropped, and a sentence that occurs in several nodes is
    returned once. Several threads may share a postprocessor.
    """

    model_config = ConfigDict(extra="forbid")

    similarity_top_k: Limit = Field(
        default=None, description="Maximum number of spans; 0 keeps nothing."
    )
    token_budget: Budget = Field(
        default=None,
        description="Maximum tokens of all spans together, as the host counts them; 1,024 if "
        "neither this nor similarity_top_k is given.",
    )
    min_relevance: Share = Field(
        default=None,
        description="Spans of a lower relevance, 0 to 1, are left out; by default, without "
        "similarity_top_k, those that are unlikely to be evidence.",
    )
    mode: Mode = Field(default="hybrid", description="`hybrid`, `s3` or `bm25`.")
    order: Order = Field(
        default="score", description="`score`, best first, or `document`, as in the nodes."
    )
    context: ContextForm = Field(
        default=DEFAULT_CONTEXT,
        description="What a span takes along of the text around it: `sentence`, `passage`, "
        "`neighbours` or `section`.",
    )
    rerank: Budget = Field(
        default=None,
        description="How many of the best sentences a language model reads again, together with "
        "the question, and ranks by its attention; none by default.",
    )
    rerank_host: str | None = Field(
        default=None, description="Name of that model; by default the host, if it is one."
    )
    host: str = Field(default="minilm", description="Host: `minilm`, a folder, or a model id.")
    codebook: str | None = Field(default=None, description="Name of the host's codebook.")
    recipe: str = Field(default="default", description="`default` or `paper`.")
    _compressor: Any = PrivateAttr(default=None)

    @classmethod
    def from_compressor(cls, compressor: Compressor, **settings: Any) -> S3NodePostprocessor:
        """Make a postprocessor that uses an existing compressor.

        Args:
            compressor: The compressor, with its host, codebook and recipe; may be shared.
            settings: Any of similarity_top_k, token_budget, min_relevance, mode, order,
                context, rerank and rerank_host.
        """
        postprocessor = cls(**settings)
        postprocessor._compressor = compressor
        return postprocessor

    @classmethod
    def class_name(cls) -> str:
        """Name of the class, for LlamaIndex."""
        return "S3NodePostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError(
                "S3NodePostprocessor needs the question; pass query_bundle or query_str."
            )
        sources: dict[str, BaseNode] = {}
        for node in check_nodes(nodes):
            sources.setdefault(node.node_id, node)
        if not sources or self.similarity_top_k == 0:
            return []
        spans = self._loaded().compress(
            query_bundle.query_str,
            [to_scan(node) for node in sources.values()],
            k=self.similarity_top_k,
            token_budget=self.token_budget,
            min_relevance=self.min_relevance,
            mode=self.mode,
            order=self.order,
            context=self.context,
            rerank=self.rerank,
            rerank_host=self.rerank_host,
        )
        return [_with_metadata(span, sources[span.document_id]) for span in spans]

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await in_thread(self._postprocess_nodes, nodes, query_bundle)

    def _loaded(self) -> Compressor:
        with _LOADING:
            if self._compressor is None:
                self._compressor = s3_retriever.Compressor(
                    self.host, codebook=self.codebook, recipe=self.recipe
                )
            compressor: Compressor = self._compressor
            return compressor


def _with_metadata(span: Span, source: BaseNode) -> NodeWithScore:
    """The node of a span, with a copy of its source's metadata, JSON or not."""
    return to_node(replace(span, metadata=deepcopy(described(source))))
