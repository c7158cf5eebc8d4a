"""`S3Retriever`: sources, span nodes, settings, changes, disk."""

from __future__ import annotations

import json
from datetime import date

import pytest
from llama_index.core import SummaryIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.schema import (
    Document,
    IndexNode,
    MetadataMode,
    ObjectType,
    TextNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from s3_retriever import Document as S3Document
from s3_retriever import IndexStoreError, InputError, S3Index

from llama_index.retrievers.s3 import S3Retriever

QUESTION = "How much holiday do I get?"


def year(value, operator="=="):
    return MetadataFilters(filters=[MetadataFilter(key="year", value=value, operator=operator)])


def found(retriever, question=QUESTION):
    return [(item.node_id, item.score) for item in retriever.retrieve(question)]


# Sources


def test_nodes_docstore_and_index_are_sources_alike(nodes):
    docstore = SimpleDocumentStore()
    docstore.add_documents(nodes)
    expected = found(S3Retriever.from_defaults(nodes=nodes))
    assert expected
    assert found(S3Retriever.from_defaults(docstore=docstore)) == expected
    assert found(S3Retriever.from_defaults(SummaryIndex(nodes))) == expected


def test_an_s3_index_is_used_as_it_is():
    index = S3Index.create()
    index.add(S3Document("Staff have 28 days of leave.", id="leave", metadata={"year": 2024}))
    item = S3Retriever.from_defaults(index).retrieve("leave")[0]
    assert item.node.metadata == {"sources": ["s3", "bm25"], "year": 2024}
    assert item.node.ref_doc_id == "leave"
    assert item.node.source_node.node_type == ObjectType.DOCUMENT
    with pytest.raises(ValueError, match="has its host"):
        S3Retriever.from_defaults(index, recipe="paper")


def test_exactly_one_source(nodes):
    docstore = SimpleDocumentStore()
    for sources in (
        {},
        {"nodes": nodes, "docstore": docstore},
        {"index": SummaryIndex([]), "nodes": []},
    ):
        with pytest.raises(ValueError, match="exactly one of index, nodes and docstore"):
            S3Retriever.from_defaults(**sources)


def test_unknown_arguments_are_refused(nodes):
    with pytest.raises(TypeError, match="top_k"):
        S3Retriever.from_defaults(nodes=nodes, top_k=3)


def test_the_index_may_have_a_folder_of_its_own(nodes, tmp_path):
    retriever = S3Retriever.from_defaults(nodes=nodes, path=tmp_path / "own.s3")
    retriever.index.close()
    with S3Index.open(tmp_path / "own.s3") as index:
        assert found(S3Retriever.from_defaults(index)) == found(S3Retriever(index))
    with pytest.raises(IndexStoreError, match="already"):
        S3Retriever.from_defaults(nodes=nodes, path=tmp_path / "own.s3")


def test_a_bad_setting_leaves_no_index_behind(nodes, tmp_path):
    with pytest.raises(ValueError, match="mode"):
        S3Retriever.from_defaults(nodes=nodes, path=tmp_path / "own.s3", mode="dense")
    assert not (tmp_path / "own.s3").exists()


# Span nodes


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
    ours = {"sources": span.metadata["sources"], "ref_doc_id": "book-0"}
    assert span.metadata == parent.metadata | ours
    assert span.excluded_llm_metadata_keys == ["tags", "sources", "ref_doc_id"]
    assert span.excluded_embed_metadata_keys == ["year", "sources", "ref_doc_id"]
    assert span.get_content(MetadataMode.LLM) == f"year: 2021\ntopic: leave\n\n{span.text}"
    assert span.get_content(MetadataMode.NONE) == span.text
    assert parent.excluded_llm_metadata_keys == ["tags"]
    span.metadata["year"] = 0
    assert parent.metadata["year"] == 2021


def test_the_nodes_own_keys_win():
    own = {"sources": "the intranet", "ref_doc_id": "mine"}
    node = TextNode(text="Staff have 28 days of leave.", metadata=own)
    span = S3Retriever.from_defaults(nodes=[node]).retrieve("leave")[0].node
    assert span.metadata == own
    assert span.excluded_llm_metadata_keys == []


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
    assert span.metadata == {key: "Holidays", "sources": ["bm25"]}
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
    retriever = S3Retriever.from_defaults(nodes=[door])
    ids = [item.node_id for item in retriever.retrieve(QUESTION)]
    assert ids == [item.node_id for item in details.retrieve(QUESTION)]
    bare = S3Retriever(retriever.index).retrieve("leave")
    assert [(type(item.node), item.node.index_id) for item in bare] == [(IndexNode, "hr")]
    given = S3Retriever.from_defaults(retriever.index, objects=[door])
    assert [item.node_id for item in given.retrieve("leave")] == [
        item.node_id for item in details.retrieve("leave")
    ]


# Settings


def test_settings_take_effect(nodes):
    question = "When are releases tested and shipped?"
    assert len(S3Retriever.from_defaults(nodes=nodes).retrieve(question)) == 5
    retriever = S3Retriever.from_defaults(nodes=nodes, token_budget=24)
    texts = [item.text for item in retriever.retrieve(question)]
    assert len(texts) == 3
    in_order = retriever.with_settings(order="document").retrieve(question)
    assert sorted(item.text for item in in_order) == sorted(texts)
    starts = [(item.node.source_node.node_id, item.node.start_char_idx) for item in in_order]
    assert starts == sorted(starts, key=lambda at: ([n.node_id for n in nodes].index(at[0]), at[1]))
    retriever.similarity_top_k = 1
    assert [item.text for item in retriever.retrieve(question)] == texts[:1]
    lexical = retriever.with_settings(mode="bm25").retrieve(question)[0]
    assert lexical.node.metadata["sources"] == ["bm25"]


def test_settings_are_checked(nodes, shared):
    for name, value in (
        ("similarity_top_k", -1),
        ("similarity_top_k", 2.0),
        ("similarity_top_k", True),
        ("token_budget", 0),
        ("mode", "dense"),
        ("order", "best"),
        ("filters", year("x", "in")),
        ("top_k", 3),
    ):
        with pytest.raises(ValueError, match=name):
            shared.with_settings(**{name: value})
    retriever = shared.with_settings()
    retriever.token_budget = "many"
    with pytest.raises(ValueError, match="token_budget"):
        retriever.retrieve(QUESTION)


def test_with_settings_shares_the_index_and_leaves_the_retriever(shared):
    other = shared.with_settings(similarity_top_k=1, filters=year(2024))
    assert other.index is shared.index
    assert (shared.similarity_top_k, shared.filters) == (None, None)
    assert [item.metadata["year"] for item in other.retrieve("rules")] == [2024]
    assert other.with_settings(filters=None).filters is None


def test_an_empty_question_says_so(shared):
    with pytest.raises(ValueError, match="question is empty"):
        shared.retrieve(" ")


def test_callbacks_are_told(nodes):
    handler = LlamaDebugHandler(print_trace_on_end=False)
    retriever = S3Retriever.from_defaults(nodes=nodes, callback_manager=CallbackManager([handler]))
    retriever.retrieve(QUESTION)
    assert len(handler.get_event_pairs(CBEventType.RETRIEVE)) == 1


# Changes


def test_add_replace_delete(nodes):
    retriever = S3Retriever.from_defaults(nodes=nodes[1:])
    assert retriever.add_nodes(nodes[:1]) == ["leave"]
    assert retriever.retrieve(QUESTION)[0].node.ref_doc_id == "leave"
    with pytest.raises(InputError, match="'leave' is there already"):
        retriever.add_nodes(nodes[:1])
    retriever.add_nodes([TextNode(id_="leave", text="There is no holiday.")], replace=True)
    assert retriever.retrieve(QUESTION)[0].text == "There is no holiday."
    assert retriever.delete_nodes(["leave"]) == 1
    assert all(item.node.ref_doc_id != "leave" for item in retriever.retrieve(QUESTION))
    with pytest.raises(InputError, match="no document 'leave'"):
        retriever.delete_nodes(["leave"])


# On disk


def test_a_reopened_retriever_is_the_same(nodes, tmp_path):
    retriever = S3Retriever.from_defaults(
        nodes=nodes,
        similarity_top_k=3,
        token_budget=60,
        mode="bm25",
        order="document",
        filters=MetadataFilters(filters=[year(2021), year([2022, 2024], "in")], condition="or"),
    )
    before = retriever.retrieve("release leave lunch")
    assert before
    retriever.persist(tmp_path / "kept")
    retriever.index.close()
    again = S3Retriever.from_persist_dir(tmp_path / "kept")
    for name in ("similarity_top_k", "token_budget", "mode", "order", "filters"):
        assert getattr(again, name) == getattr(retriever, name)
    assert again.retrieve("release leave lunch") == before


def test_what_is_on_disk_is_json_and_arrays(nodes, tmp_path):
    S3Retriever.from_defaults(nodes=nodes).persist(str(tmp_path))
    kept = json.loads((tmp_path / "retriever.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == [kept["index"], "retriever.json"]
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".jsonl", ".npy", ".bin"}


def test_persisting_again_replaces_what_was_there(nodes, tmp_path):
    (tmp_path / "docstore.json").write_text("{}")
    S3Retriever.from_defaults(nodes=nodes[:1]).persist(tmp_path)
    S3Retriever.from_defaults(nodes=nodes[1:], similarity_top_k=1).persist(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    again = S3Retriever.from_persist_dir(tmp_path)
    assert again.similarity_top_k == 1
    assert again.index.ids() == ["releases", "laptops", "canteen"]


def test_an_opened_retriever_persists_in_place(nodes, tmp_path):
    S3Retriever.from_defaults(nodes=nodes[1:]).persist(tmp_path)
    again = S3Retriever.from_persist_dir(tmp_path)
    again.add_nodes(nodes[:1])
    again.mode = "bm25"
    again.persist(tmp_path)
    third = S3Retriever.from_persist_dir(tmp_path)
    assert (third.mode, len(third.index)) == ("bm25", 4)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_persist_leaves_what_was_there(nodes, tmp_path, monkeypatch):
    S3Retriever.from_defaults(nodes=nodes[:1]).persist(tmp_path)
    retriever = S3Retriever.from_defaults(nodes=nodes[1:])
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr("shutil.copytree", _full)
        retriever.persist(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert S3Retriever.from_persist_dir(tmp_path).index.ids() == ["leave"]


def _full(_source, target, **_options):
    target.mkdir()
    raise OSError("disk full")


def test_a_change_while_it_is_copied_is_noticed(nodes, tmp_path, monkeypatch):
    import shutil

    retriever = S3Retriever.from_defaults(nodes=nodes[1:])
    copytree, waiting = shutil.copytree, [nodes[0]]

    def copy_then_change(*args, **options):
        copytree(*args, **options)
        if waiting:
            retriever.add_nodes([waiting.pop()])

    monkeypatch.setattr("shutil.copytree", copy_then_change)
    retriever.persist(tmp_path)
    assert len(S3Retriever.from_persist_dir(tmp_path).index) == 4


def test_an_index_that_never_rests_is_not_copied(nodes, tmp_path, monkeypatch):
    import shutil

    def vanish(*_args, **_options):
        raise shutil.Error("a file is gone")

    retriever = S3Retriever.from_defaults(nodes=nodes)
    monkeypatch.setattr("shutil.copytree", vanish)
    with pytest.raises(OSError, match="changed too often"):
        retriever.persist(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_index_that_persist_did_not_copy_is_never_removed(nodes, tmp_path):
    S3Retriever.from_defaults(nodes=nodes[:1], path=tmp_path / "own.s3").persist(tmp_path)
    assert S3Retriever.from_persist_dir(tmp_path).index.path == tmp_path / "own.s3"
    S3Retriever.from_defaults(nodes=nodes[1:]).persist(tmp_path)
    assert len(S3Index.open(tmp_path / "own.s3")) == 1
    assert len(S3Retriever.from_persist_dir(tmp_path).index) == 3


@pytest.mark.parametrize("name", ["..", "../elsewhere", "/tmp", ""])
def test_the_file_cannot_name_an_index_elsewhere(nodes, tmp_path, name):
    retriever = S3Retriever.from_defaults(nodes=nodes[:1])
    retriever.persist(tmp_path)
    kept = json.loads((tmp_path / "retriever.json").read_text())
    (tmp_path / "retriever.json").write_text(json.dumps(kept | {"index": name}))
    for use in (S3Retriever.from_persist_dir, retriever.persist):
        with pytest.raises(ValueError, match="not in the retriever's folder"):
            use(tmp_path)


def test_there_is_no_retriever(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no retriever\.json"):
        S3Retriever.from_persist_dir(tmp_path)
    (tmp_path / "retriever.json").write_text('{"schema_version": 2}')
    with pytest.raises(ValueError, match="newer release"):
        S3Retriever.from_persist_dir(tmp_path)
