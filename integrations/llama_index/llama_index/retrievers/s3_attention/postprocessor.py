"""`S3NodePostprocessor`: the evidence that retrieved nodes hold."""

from __future__ import annotations

import threading
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import s3_retriever
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle

from llama_index.retrievers.s3_attention.nodes import described, to_node, to_scan
from llama_index.retrievers.s3_attention.settings import Budget, Limit, Mode, Order
from llama_index.retrievers.s3_attention.threads import in_thread

if TYPE_CHECKING:
    from s3_retriever import Compressor, Span

_LOADING = threading.Lock()


class S3NodePostprocessor(BaseNodePostprocessor):
    """Reduces nodes that any retriever found to the spans that answer the question.

    The host scans the nodes; what it scanned lately is remembered. It is loaded at the first use,
    once per process. Nodes without text are dropped, and a sentence that stands in several nodes
    comes once. May be used from several threads at once.
    """

    model_config = ConfigDict(extra="forbid")

    similarity_top_k: Limit | None = Field(
        default=None, description="Spans at most; 0 keeps nothing."
    )
    token_budget: Budget | None = Field(
        default=None,
        description="Tokens of the host at most, all spans together; 1,024 where neither this "
        "nor similarity_top_k is given.",
    )
    mode: Mode = Field(default="hybrid", description="`hybrid`, `s3` or `bm25`.")
    order: Order = Field(
        default="score", description="`score`, best first, or `document`, as in the nodes."
    )
    host: str = Field(default="minilm", description="Host: `minilm`, a folder, or a model id.")
    codebook: str | None = Field(default=None, description="Where the host's codebook is.")
    recipe: str = Field(default="default", description="`default` or `paper`.")
    _compressor: Any = PrivateAttr(default=None)

    @classmethod
    def from_compressor(cls, compressor: Compressor, **settings: Any) -> S3NodePostprocessor:
        """Make one that uses a compressor, which has its host, codebook and recipe already.

        Args:
            compressor: A compressor, which may be shared.
            settings: Any of similarity_top_k, token_budget, mode and order.
        """
        made = cls(**settings)
        made._compressor = compressor
        return made

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
        if not nodes or self.similarity_top_k == 0:
            return []
        sources: dict[str, BaseNode] = {}
        for item in nodes:
            sources.setdefault(item.node.node_id, item.node)
        spans = self._loaded().compress(
            query_bundle.query_str,
            [to_scan(node) for node in sources.values()],
            k=self.similarity_top_k,
            token_budget=self.token_budget,
            mode=self.mode,
            order=self.order,
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
    """A span's node with a copy of the metadata, which JSON need not be able to hold."""
    return to_node(replace(span, metadata=deepcopy(described(source))))
