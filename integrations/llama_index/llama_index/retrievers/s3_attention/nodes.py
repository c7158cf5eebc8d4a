"""Conversion: nodes to documents of S3, and spans to nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import (
    BaseNode,
    IndexNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from s3_retriever import Document, InputError
from s3_retriever.types import check_items

if TYPE_CHECKING:
    from s3_retriever import DocumentResult, Span

# Key of a document's metadata that keeps the other properties of its node.
NODE_KEY = "_llama_index"
# Keys of this package in a span's metadata; texts and numbers, as some vector stores take no lists.
RELEVANCE = "s3_relevance"
SOURCES = "s3_sources"
EVIDENCE = "s3_evidence"
# Relationships that spans take over from their node.
_NEIGHBOURS = {
    "previous": NodeRelationship.PREVIOUS,
    "next": NodeRelationship.NEXT,
    "parent": NodeRelationship.PARENT,
}
# Properties that spans take over from their node.
_INHERITED = (
    "excluded_embed_metadata_keys",
    "excluded_llm_metadata_keys",
    "metadata_template",
    "metadata_separator",
    "text_template",
    "index_id",
)


def check_nodes(nodes: Any) -> list[BaseNode]:
    """List nodes; a single one need not be in a list, and retrieved ones lose their scores.

    Raises:
        s3_retriever.InputError: They are of another type.
    """
    return [_check_node(item) for item in check_items(nodes, "nodes", (BaseNode, NodeWithScore))]


def _check_node(item: Any) -> BaseNode:
    node = item.node if isinstance(item, NodeWithScore) else item
    if not isinstance(node, BaseNode):
        hint = "; make a TextNode(text=...) of it" if isinstance(node, str) else ""
        raise InputError(f"A node must be a node of LlamaIndex, not {type(node).__name__}{hint}.")
    return node


def to_document(node: BaseNode) -> Document:
    """Convert a node to a document to index, with its id, text and metadata.

    Raises:
        s3_retriever.InputError: The metadata cannot be stored as JSON.
    """
    return Document(text=_text(node), id=node.node_id, metadata=described(node))


def to_scan(node: BaseNode) -> Document:
    """Convert a node to a document to scan, with its id, text and title."""
    title = described(node).get("title")
    metadata = {"title": title} if isinstance(title, str) else {}
    return Document(text=_text(node), id=node.node_id, metadata=metadata)


def described(node: BaseNode) -> dict[str, Any]:
    """A node's metadata and, under `NODE_KEY`, the properties that its spans take over.

    Adds `title` from `document_title`, which LlamaIndex's `TitleExtractor` writes, and the node's
    own source as `ref_doc_id`, unless the metadata has these keys.
    """
    metadata = dict(node.metadata)
    added = {}
    if isinstance(title := metadata.get("document_title"), str):
        added["title"] = title
    if node.ref_doc_id:
        added["ref_doc_id"] = node.ref_doc_id
    added = {key: value for key, value in added.items() if key not in metadata}
    kept = {name: getattr(node, name) for name in _INHERITED if hasattr(node, name)}
    kept |= {"type": node.get_type(), "hash": node.hash, "added": list(added)}
    kept |= {"length": len(_text(node).strip()), "start": getattr(node, "start_char_idx", None)}
    kept["document"] = node.ref_doc_id
    kept["neighbours"] = {
        name: {"node_id": related.node_id, "node_type": related.node_type, "hash": related.hash}
        for name, relationship in _NEIGHBOURS.items()
        if isinstance(related := node.relationships.get(relationship), RelatedNodeInfo)
    }
    return added | metadata | {NODE_KEY: kept}


def _text(node: BaseNode) -> str:
    return node.get_content(metadata_mode=MetadataMode.NONE)


def to_node(span: Span) -> NodeWithScore:
    """Convert a span to a node.

    Its SOURCE is the node it was cut from, and its offsets refer to that node's text; PREVIOUS,
    NEXT and PARENT are that node's. A span that is all of its node has the node's id. It has the
    node's metadata, plus `s3_relevance`, `s3_sources` and, unless the node has it, `ref_doc_id`;
    these are not shown to LLMs and embedding models. A document that was not made from a node
    counts as a node without further properties.
    """
    metadata: dict[str, Any] = dict(span.metadata)
    kept: dict[str, Any] = metadata.pop(NODE_KEY, {})
    added = set(kept.get("added", ()))
    own = {key: value for key, value in metadata.items() if key not in added}
    extra: dict[str, Any] = {RELEVANCE: span.relevance, SOURCES: ", ".join(span.sources)}
    if "ref_doc_id" in added:
        extra["ref_doc_id"] = metadata["ref_doc_id"]
    inherited: dict[str, Any] = {name: kept[name] for name in _INHERITED if name in kept}
    for name in ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys"):
        inherited[name] = list(dict.fromkeys([*inherited.get(name, ()), *extra]))
    source = RelatedNodeInfo(
        node_id=span.document_id,
        node_type=ObjectType(kept.get("type", ObjectType.DOCUMENT)),
        metadata=own,
        hash=kept.get("hash"),
    )
    neighbours = {
        _NEIGHBOURS[name]: RelatedNodeInfo(**related)
        for name, related in kept.get("neighbours", {}).items()
    }
    kind = IndexNode if "index_id" in inherited else TextNode
    node = kind(
        id_=span.document_id if kept.get("length") == len(span.text) else span.id,
        text=span.text,
        start_char_idx=span.start,
        end_char_idx=span.end,
        metadata=own | extra,
        relationships={NodeRelationship.SOURCE: source, **neighbours},
        **inherited,
    )
    return NodeWithScore(node=node, score=span.score)


def to_whole_node(result: DocumentResult, document: Document) -> NodeWithScore:
    """Convert a document that a search found to the node it was made from, with all of its text.

    It has the node's id; `s3_evidence` in its metadata has its best spans, a line each.
    """
    start = len(document.text) - len(document.text.lstrip())
    text = document.text.strip()
    whole = replace(
        result.spans[0],
        text=text,
        score=result.score,
        relevance=result.relevance,
        start=start,
        end=start + len(text),
        sources=tuple(dict.fromkeys(source for span in result.spans for source in span.sources)),
    )
    item = to_node(whole)
    node = item.node
    node.id_ = result.document_id
    node.metadata[EVIDENCE] = "\n".join(" ".join(span.text.split()) for span in result.spans)
    node.excluded_embed_metadata_keys.append(EVIDENCE)
    node.excluded_llm_metadata_keys.append(EVIDENCE)
    return item
