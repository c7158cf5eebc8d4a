"""What follows or evaluates the relationships of nodes works behind the retriever."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import Document, StorageContext
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import (
    HierarchicalNodeParser,
    SentenceSplitter,
    SentenceWindowNodeParser,
    get_leaf_nodes,
)
from llama_index.core.postprocessor import (
    MetadataReplacementPostProcessor,
    PrevNextNodePostprocessor,
)
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import AutoMergingRetriever
from llama_index.core.schema import NodeRelationship, NodeWithScore
from llama_index.core.storage.docstore import SimpleDocumentStore

from llama_index.retrievers.s3_attention import S3NodePostprocessor, S3Retriever

TEXT = (
    "Staff have 28 days of paid leave a year. Ask your manager two weeks ahead. "
    "Report a stolen laptop at once. The help desk has spare ones. "
    "Lunch is served from noon. On Fridays there is soup only."
)
QUESTION = "My laptop was stolen"


@pytest.fixture(scope="module")
def chunks():
    """Three chunks of a document, two sentences each."""
    splitter = SentenceSplitter(chunk_size=22, chunk_overlap=0)
    made = splitter.get_nodes_from_documents([Document(text=TEXT, id_="handbook")])
    assert len(made) == 3
    return made


@pytest.fixture(scope="module")
def store(chunks):
    made = SimpleDocumentStore()
    made.add_documents(chunks)
    return made


@pytest.fixture(scope="module")
def retriever(chunks):
    return S3Retriever.from_defaults(nodes=chunks, similarity_top_k=2)


def texts(items):
    return [item.node.get_content() for item in items]


@pytest.mark.parametrize("merge", [None, "node"])
def test_a_span_has_the_neighbours_of_its_node(chunks, retriever, merge):
    span = retriever.with_settings(merge=merge, similarity_top_k=1).retrieve(QUESTION)[0].node
    assert span.text == "Report a stolen laptop at once."
    assert (span.prev_node.node_id, span.next_node.node_id) == (
        chunks[0].node_id,
        chunks[2].node_id,
    )
    assert span.prev_node.hash == chunks[1].prev_node.hash


@pytest.mark.parametrize(("mode", "places"), [("previous", {0}), ("next", {2}), ("both", {0, 2})])
def test_previous_and_next_nodes(chunks, store, retriever, mode, places):
    found = retriever.with_settings(similarity_top_k=1).retrieve(QUESTION)
    post = PrevNextNodePostprocessor(docstore=store, num_nodes=1, mode=mode)
    expected = {"Report a stolen laptop at once."} | {chunks[n].text for n in places}
    assert set(texts(post.postprocess_nodes(found))) == expected


def test_spans_of_the_postprocessor_have_the_neighbours_too(chunks, store):
    items = [NodeWithScore(node=node, score=1.0) for node in chunks]
    found = S3NodePostprocessor(similarity_top_k=1).postprocess_nodes(items, query_str=QUESTION)
    post = PrevNextNodePostprocessor(docstore=store, num_nodes=1, mode="both")
    assert len(post.postprocess_nodes(found)) == 3


def test_parents_of_many_spans():
    text = " ".join(f"Road {n} was built by team {n % 7} in {1900 + n}." for n in range(60))
    text += " The ferry is paid by the board. The ferry carries sixty cars."
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[512, 64], chunk_overlap=0)
    tree = parser.get_nodes_from_documents([Document(doc_id="big", text=text)])
    context = StorageContext.from_defaults()
    context.docstore.add_documents(tree)
    leaves = S3Retriever.from_defaults(nodes=get_leaf_nodes(tree), similarity_top_k=12)
    merging = AutoMergingRetriever(leaves, context, simple_ratio_thresh=0.2)
    parents = {node.node_id for node in tree} - {node.node_id for node in get_leaf_nodes(tree)}
    assert parents & {item.node_id for item in merging.retrieve("Who pays the ferry?")}


def test_an_evaluator_finds_the_nodes_that_hold_the_evidence(chunks, retriever):
    by_node = retriever.with_settings(merge="node")
    evaluator = RetrieverEvaluator.from_metric_names(["hit_rate", "mrr"], retriever=by_node)
    result = asyncio.run(evaluator.aevaluate(QUESTION, expected_ids=[chunks[1].node_id]))
    assert result.metric_vals_dict == {"hit_rate": 1.0, "mrr": 1.0}


def test_a_span_that_is_all_of_its_node_has_its_id():
    windows = SentenceWindowNodeParser.from_defaults(window_size=1).get_nodes_from_documents(
        [Document(text=TEXT)]
    )
    retriever = S3Retriever.from_defaults(nodes=windows, similarity_top_k=1)
    (item,) = retriever.retrieve(QUESTION)
    assert item.node_id in {node.node_id for node in windows}
    post = MetadataReplacementPostProcessor(target_metadata_key="window")
    (window,) = texts(post.postprocess_nodes([item]))
    assert "Ask your manager" in window and "spare ones" in window


def test_evidence_of_a_node_as_one_node(chunks, retriever):
    apart = retriever.with_settings(similarity_top_k=6).retrieve(QUESTION)
    items = retriever.with_settings(similarity_top_k=6, merge="node").retrieve(QUESTION)
    assert {item.node_id for item in items} == {node.node_id for node in chunks}
    assert items[0].node.text == "Report a stolen laptop at once.\nThe help desk has spare ones."
    assert items[0].node.ref_doc_id == "handbook"
    assert items[0].score == max(item.score for item in apart)
    scores = [item.score for item in items]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("reverse", [False, True])
def test_evidence_of_a_document_as_one_node_in_its_order(chunks, reverse):
    nodes = chunks[::-1] if reverse else chunks
    other = Document(text="Laptops are replaced every three years.", id_="laptops")
    retriever = S3Retriever.from_defaults(
        nodes=[*nodes, other], similarity_top_k=7, merge="document"
    )
    first, second = retriever.retrieve(QUESTION)
    assert first.node_id == first.node.ref_doc_id == "handbook"
    lines = first.node.text.split("\n")
    assert lines == sorted(lines, key=TEXT.index)
    assert len(lines) == 6
    assert second.node.text == other.text
    in_order = retriever.with_settings(order="document").retrieve("laptops replaced")
    assert [item.node_id for item in in_order] == ["handbook", "laptops"]
    assert asyncio.run(retriever.aretrieve(QUESTION)) == [first, second]


def test_merging_is_kept_on_disk_and_checked(retriever, tmp_path):
    retriever.with_settings(merge="document").persist(tmp_path)
    assert S3Retriever.from_persist_dir(tmp_path).merge == "document"
    with pytest.raises(ValueError, match="merge"):
        retriever.with_settings(merge="all")


def test_metadata_that_the_nodes_of_a_document_do_not_share_is_left_out(chunks):
    nodes = [node.model_copy(deep=True) for node in chunks]
    for page, node in enumerate(nodes):
        node.metadata = {"page": page, "file": "handbook.md"}
    retriever = S3Retriever.from_defaults(nodes=nodes, similarity_top_k=6, merge="document")
    (item,) = retriever.retrieve(QUESTION)
    assert item.metadata["file"] == "handbook.md"
    assert "page" not in item.metadata
    assert NodeRelationship.PREVIOUS not in item.node.relationships


def test_a_streaming_engine(retriever):
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM(), streaming=True)
    answer = engine.query(QUESTION)
    assert "Report a stolen laptop at once." in "".join(answer.response_gen)
