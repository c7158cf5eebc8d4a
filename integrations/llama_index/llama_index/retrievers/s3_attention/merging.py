"""Evidence of one node, or of one document, as one node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode

from llama_index.retrievers.s3_attention.nodes import NODE_KEY, RELEVANCE, SOURCES, to_node

if TYPE_CHECKING:
    from s3_retriever import Span

# Whose evidence becomes one node.
Merge = Literal["node", "document"]

_MISSING = object()


def merge_spans(spans: Iterable[Span], merge: Merge) -> list[NodeWithScore]:
    """Make one node of the spans of each node or document, a line each.

    Args:
        spans: Spans in the order of the documents.
        merge: `node`, the nodes that were indexed, or `document`, those that they come from.

    Returns:
        Nodes in the order of the documents, with the id of their node or document, the metadata
        that all their nodes share, and the highest score and relevance of their spans.
    """
    groups: dict[str, list[Span]] = {}
    name: Callable[[Span], str] = _document_of if merge == "document" else lambda s: s.document_id
    for span in spans:
        groups.setdefault(name(span), []).append(span)
    return [_merged(group, node_id) for node_id, group in groups.items()]


def _merged(spans: list[Span], node_id: str) -> NodeWithScore:
    if all(type(_kept(span).get("start")) is int for span in spans):
        # Nodes may have been indexed in another order than that of their document.
        spans = sorted(spans, key=lambda span: (_kept(span)["start"], span.start))
    items = [to_node(span) for span in spans]
    first = items[0].node
    assert isinstance(first, TextNode)
    shared = {
        key: value
        for key, value in first.metadata.items()
        if all(item.metadata.get(key, _MISSING) == value for item in items)
    }
    ours = {
        RELEVANCE: max(span.relevance for span in spans),
        SOURCES: ", ".join(dict.fromkeys(source for span in spans for source in span.sources)),
    }
    one_node = len({span.document_id for span in spans}) == 1
    source = RelatedNodeInfo(node_id=_document_of(spans[0]))
    merged = first.model_copy(
        update={
            "id_": node_id,
            "text": "\n".join(span.text for span in spans),
            "metadata": shared | ours,
            "relationships": (first.relationships if one_node else {})
            | {NodeRelationship.SOURCE: source},
            "start_char_idx": spans[0].start if one_node else None,
            "end_char_idx": spans[-1].end if one_node else None,
        }
    )
    return NodeWithScore(node=merged, score=max(item.score or 0.0 for item in items))


def _document_of(span: Span) -> str:
    """The id of the document that the span's node comes from; the node's if it has none."""
    return _kept(span).get("document") or span.document_id


def _kept(span: Span) -> dict[str, Any]:
    kept: dict[str, Any] = span.metadata.get(NODE_KEY, {})
    return kept
