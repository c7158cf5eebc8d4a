"""Nodes come and go."""

from __future__ import annotations

import pytest
from llama_index.core.schema import TextNode
from s3_retriever import InputError

from llama_index.retrievers.s3_attention import S3Retriever

QUESTION = "How much holiday do I get?"


def test_add_replace_delete(nodes):
    retriever = S3Retriever.from_defaults(nodes=nodes[1:])
    assert retriever.add_nodes(nodes[:1]) == ["leave"]
    assert retriever.retrieve(QUESTION)[0].node.ref_doc_id == "leave"
    with pytest.raises(InputError, match="'leave' was already added"):
        retriever.add_nodes(nodes[:1])
    retriever.add_nodes([TextNode(id_="leave", text="There is no holiday.")], replace=True)
    assert retriever.retrieve(QUESTION)[0].text == "There is no holiday."
    assert retriever.delete_nodes(["leave"]) == 1
    assert all(item.node.ref_doc_id != "leave" for item in retriever.retrieve(QUESTION))
    with pytest.raises(InputError, match="no document 'leave'"):
        retriever.delete_nodes("leave")
    assert retriever.delete_nodes(["leave", "canteen"], missing_ok=True) == 1
    assert retriever.index.ids() == ["releases", "laptops"]
