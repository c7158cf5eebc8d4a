"""What the nodes of spans carry, and what they have from the nodes they are cut from."""

from __future__ import annotations

from datetime import date

import pytest
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.schema import (
    Document,
    IndexNode,
    MetadataMode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from s3_retriever import InputError

from llama_index.retrievers.s3_attention import S3Retriever

QUESTION = "How much holiday do I get?"


def test_offsets_are_exact_and_ids_distinct(nodes):
    texts = {node.node_id: node.text for node in nodes}
    retriever = S3Retriever.from_defaults(nodes=nodes, similarity_top_k=50)
    items = retriever.retrieve("When are releases shipped, and who eats lunch on Fridays?")
    assert len(items) > 3
    assert len({item.node_id for item in items}) == len(items)
    assert {item.node_id for item in items}.isdisjoint(texts)
    for item in items:
        span = item.node
        text = texts[span.source_node.node_id]
        assert type(span) is TextNode
        assert text[span.start_char_idx : span.end_char_idx] == span.text
    again = S3Retriever.from_defaults(nodes=nodes[::-1])
    assert retriever.retrieve(QUESTION)[0].node_id == again.retrieve(QUESTION)[0].node_id


def test_whole_nodes_are_ranked_by_their_evidence(nodes):
    spans = S3Retriever.from_defaults(nodes=nodes)
    whole = spans.with_settings(group_by="node", similarity_top_k=2)
    first, second = whole.retrieve(QUESTION)
    assert (first.node_id, first.node.text) == ("leave", nodes[0].text)
    assert first.node.metadata["s3_evidence"].splitlines()[0] in nodes[0].text
    assert "s3_evidence" not in first.node.get_content(MetadataMode.LLM)
    assert first.node.metadata["topic"] == "leave"
    assert first.score > second.score
    one = spans.with_settings(spans_per_node=1, similarity_top_k=9).retrieve(QUESTION)
    sources = [item.node.source_node.node_id for item in one]
    assert len(set(sources)) == len(sources)
    with pytest.raises(ValueError, match="either merge"):
        spans.with_settings(group_by="node", merge="node")


def test_a_span_points_to_its_node_and_its_document(nodes):
    span = S3Retriever.from_defaults(nodes=nodes).retrieve(QUESTION)[0].node
    parent = nodes[0]
    source = span.source_node
    assert (source.node_id, source.hash) == ("leave", parent.hash)
    assert source.node_type == parent.get_type()
    assert source.metadata == parent.metadata
    assert span.metadata["ref_doc_id"] == parent.ref_doc_id == "book-0"


def test_metadata_is_the_nodes_and_ours_is_not_shown_to_models(nodes):
    parent = nodes[0]
    span = S3Retriever.from_defaults(nodes=nodes).retrieve(QUESTION)[0].node
    ours = {key: span.metadata[key] for key in ("s3_relevance", "s3_sources")}
    ours["ref_doc_id"] = "book-0"
    assert span.metadata == parent.metadata | ours
    assert span.excluded_llm_metadata_keys == ["tags", "s3_relevance", "s3_sources", "ref_doc_id"]
    assert span.excluded_embed_metadata_keys == ["year", "s3_relevance", "s3_sources", "ref_doc_id"]
    assert span.get_content(MetadataMode.LLM) == f"year: 2021\ntopic: leave\n\n{span.text}"
    assert span.get_content(MetadataMode.NONE) == span.text
    assert parent.excluded_llm_metadata_keys == ["tags"]
    span.metadata["year"] = 0
    assert parent.metadata["year"] == 2021


def test_the_nodes_own_metadata_stays():
    own = {
        "sources": "the intranet",
        "ref_doc_id": "mine",
        "score": 1,
        "relevance_score": 0.5,
        "s3": "s3://bucket/key",
    }
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book")}
    node = TextNode(text="Staff have 28 days of leave.", metadata=own, relationships=source)
    span = S3Retriever.from_defaults(nodes=[node]).retrieve("leave")[0].node
    assert set(span.metadata) - set(own) == {"s3_relevance", "s3_sources"}
    assert {key: span.metadata[key] for key in own} == own
    assert span.excluded_llm_metadata_keys == ["s3_relevance", "s3_sources"]


def test_templates_are_kept():
    node = TextNode(
        text="Staff have 28 days of leave.",
        metadata={"year": 2024},
        metadata_template="{key} is {value}",
        text_template="<{metadata_str}> {content}",
        metadata_separator="; ",
    )
    span = S3Retriever.from_defaults(nodes=[node]).retrieve("leave")[0].node
    assert span.get_content(MetadataMode.LLM) == "<year is 2024> Staff have 28 days of leave."
    assert span.metadata_separator == "; "


def test_a_whole_document_is_indexed_without_its_metadata():
    document = Document(
        text="Take notes. Staff have 28 days of leave.", metadata={"file_name": "zebra.txt"}
    )
    retriever = S3Retriever.from_defaults(nodes=[document], mode="bm25")
    assert retriever.retrieve("zebra") == []
    span = retriever.retrieve("leave")[0].node
    assert span.ref_doc_id == document.doc_id
    assert "ref_doc_id" not in span.metadata
    assert document.text[span.start_char_idx : span.end_char_idx] == span.text


@pytest.mark.parametrize("key", ["title", "document_title"])
def test_a_title_is_read_with_the_text_and_left_as_it_was(key):
    node = TextNode(text="Ask two weeks ahead.", metadata={key: "Holidays"})
    retriever = S3Retriever.from_defaults(nodes=[node], mode="bm25")
    span = retriever.retrieve("holidays")[0].node
    assert span.text == "Ask two weeks ahead."
    assert (span.metadata.pop("s3_sources"), span.metadata.pop("s3_relevance") > 0) == (
        "bm25",
        True,
    )
    assert span.metadata == {key: "Holidays"}
    assert span.source_node.metadata == {key: "Holidays"}


def test_offsets_count_in_the_chunk_also_where_that_has_offsets_of_its_own():
    text = " ".join(f"Room {n} has {n + 2} chairs and a lamp." for n in range(40))
    chunks = TokenTextSplitter(chunk_size=64, chunk_overlap=0).get_nodes_from_documents(
        [Document(text=text, id_="rooms")]
    )
    by_id = {chunk.node_id: chunk for chunk in chunks}
    items = S3Retriever.from_defaults(nodes=chunks).retrieve("How many chairs has room 37?")
    assert any(by_id[item.node.source_node.node_id].start_char_idx for item in items)
    for item in items:
        span, chunk = item.node, by_id[item.node.source_node.node_id]
        assert chunk.text[span.start_char_idx : span.end_char_idx] == span.text
        start = chunk.start_char_idx + span.start_char_idx
        assert text[start : start + len(span.text)] == span.text
        assert span.metadata["ref_doc_id"] == "rooms"


def test_values_that_json_does_not_know_become_texts_or_are_refused():
    node = TextNode(text="Staff have leave.", metadata={"day": date(2024, 5, 1)})
    span = S3Retriever.from_defaults(nodes=[node]).retrieve("leave")[0].node
    assert span.metadata["day"] == "2024-05-01"
    node = TextNode(id_="odd", text="Staff have leave.", metadata={"thing": object()})
    with pytest.raises(InputError, match="'odd' has metadata that JSON cannot hold"):
        S3Retriever.from_defaults(nodes=[node])


def test_index_nodes_lead_to_what_they_stand_for_once(nodes):
    details = S3Retriever.from_defaults(nodes=nodes)
    door = IndexNode(text="About leave. All about paid leave.", index_id="hr", obj=details)
    retriever = S3Retriever.from_defaults(nodes=[door], min_relevance=0)
    ids = [item.node_id for item in retriever.retrieve(QUESTION)]
    assert ids == [item.node_id for item in details.retrieve(QUESTION)]
    bare = S3Retriever(retriever.index).retrieve("leave")
    assert [(type(item.node), item.node.index_id) for item in bare] == [(IndexNode, "hr")]
    given = S3Retriever.from_defaults(retriever.index, objects=[door])
    assert [item.node_id for item in given.retrieve("leave")] == [
        item.node_id for item in details.retrieve("leave")
    ]
