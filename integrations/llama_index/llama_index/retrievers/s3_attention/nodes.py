"""Conversion: nodes to documents of S3, and spans to nodes."""

from __future__ import annotations

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
from pydantic_core import to_jsonable_python
from s3_retriever import Document, InputError

if TYPE_CHECKING:
    from s3_retriever import Span

# Key of a document's metadata that keeps the other properties of its node.
NODE_KEY = "_llama_index"
# Properties that spans take over from their node.
_INHERITED = (
    "excluded_embed_metadata_keys",
    "excluded_llm_metadata_keys",
    "metadata_template",
    "metadata_separator",
    "text_template",
    "index_id",
)


def to_document(node: BaseNode) -> Document:
    """Convert a node to a document to index, with its id, text and metadata.

    Raises:
        s3_retriever.InputError: The metadata cannot be stored as JSON.
    """
    try:
        metadata = to_jsonable_python(described(node))
    except ValueError as error:
        raise InputError(
            f"Node {node.node_id!r} has metadata that JSON cannot hold: {error}."
        ) from None
    return Document(text=_text(node), id=node.node_id, metadata=metadata)


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
    return added | metadata | {NODE_KEY: kept}


def _text(node: BaseNode) -> str:
    return node.get_content(metadata_mode=MetadataMode.NONE)


def to_node(span: Span) -> NodeWithScore:
    """Convert a span to a node.

    Its SOURCE is the node it was cut from, and its offsets refer to that node's text. It has that
    node's metadata, plus `sources` and `ref_doc_id` unless the node has these keys; neither is
    shown to LLMs and embedding models. A document that was not made from a node counts as a node
    without further properties.
    """
    metadata: dict[str, Any] = dict(span.metadata)
    kept: dict[str, Any] = metadata.pop(NODE_KEY, {})
    added = set(kept.get("added", ()))
    own = {key: value for key, value in metadata.items() if key not in added}
    extra: dict[str, Any] = {"sources": list(span.sources)}
    if "ref_doc_id" in added:
        extra["ref_doc_id"] = metadata["ref_doc_id"]
    hidden = [key for key in extra if key not in own]
    inherited: dict[str, Any] = {name: kept[name] for name in _INHERITED if name in kept}
    for name in ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys"):
        inherited[name] = [*inherited.get(name, ()), *hidden]
    source = RelatedNodeInfo(
        node_id=span.document_id,
        node_type=ObjectType(kept.get("type", ObjectType.DOCUMENT)),
        metadata=own,
        hash=kept.get("hash"),
    )
    kind = IndexNode if "index_id" in inherited else TextNode
    node = kind(
        id_=span.id,
        text=span.text,
        start_char_idx=span.start,
        end_char_idx=span.end,
        metadata=extra | own,
        relationships={NodeRelationship.SOURCE: source},
        **inherited,
    )
    return NodeWithScore(node=node, score=span.score)
