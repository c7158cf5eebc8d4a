"""Indexes in other processes: forked, spawned, copied and pickled."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import threading

import pytest
import torch
from helpers.workers import answer
from transformers import AutoTokenizer

from s3_retriever import (
    Codebook,
    Compressor,
    Document,
    Host,
    HostError,
    IndexStoreError,
    S3Index,
)

QUESTION = "Who paints the seven boats?"
TEXTS = {
    "boats": "The old captain paints seven boats in the harbour.",
    "bread": "A baker mends warm bread before dawn.",
}


@pytest.fixture(scope="module")
def host(tiny_bert):
    return Host.load(str(tiny_bert), device="cpu", dtype="float32")


@pytest.fixture
def index(tmp_path, host, tiny_codebook):
    made = S3Index.create(tmp_path / "x.s3r", host, codebook=tiny_codebook)
    made.add([Document(text, name) for name, text in TEXTS.items()], progress=False)
    return made


def found(index):
    return [span.id for span in index.search(QUESTION, k=1)]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy])
def test_a_copy_is_another_object_for_the_same_index(index, again):
    copied = again(index)
    copied.add(Document("The night nurse counts the blue ledger.", "nurse"), progress=False)
    assert copied.encoder is index.encoder
    assert index.ids() == ["boats", "bread", "nurse"]
    copied.close()
    assert found(index) == ["boats:0-50"]


def test_a_copy_of_an_index_in_memory_shares_it(host, tiny_codebook):
    index = S3Index.create(host=host, codebook=Codebook.load(tiny_codebook))
    index.add(Document(TEXTS["boats"], "boats"), progress=False)
    assert found(copy.deepcopy(index)) == ["boats:0-50"]
    with pytest.raises(IndexStoreError, match=r"in memory cannot be pickled; .* save\(path\)"):
        pickle.dumps(index)


def test_a_pickled_index_is_opened_again_wherever_it_is_read(index, tmp_path, monkeypatch):
    # The host was loaded before; it is named, and loaded only when it is needed.
    content = pickle.dumps(index)
    assert len(content) < 2_000
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = pickle.loads(content)
    assert found(again) == found(index) == ["boats:0-50"]
    assert found(pickle.loads(pickle.dumps(again))) == ["boats:0-50"]
    assert found(pickle.loads(pickle.dumps(S3Index.open(index.path)))) == ["boats:0-50"]


def test_what_cannot_be_named_cannot_be_pickled(index, host, tiny_bert, tiny_codebook):
    own = Host.of(host.model, AutoTokenizer.from_pretrained(tiny_bert))
    other = S3Index.open(index.path, own, codebook=tiny_codebook)
    for thing in (own, other, Compressor(own, codebook=tiny_codebook)):
        with pytest.raises(HostError, match="cannot be pickled; load it by name"):
            pickle.dumps(thing)
    assert copy.deepcopy(own) is own
    assert found(copy.deepcopy(other)) == ["boats:0-50"]


def test_a_compressor_is_pickled_by_how_it_was_made(host, tiny_codebook):
    compressor = Compressor(host, codebook=tiny_codebook, cache_tokens=-1)
    spans = compressor.compress(QUESTION, list(TEXTS.values()), k=1)
    again = pickle.loads(pickle.dumps(compressor))
    assert again.compress(QUESTION, list(TEXTS.values()), k=1) == spans
    assert copy.deepcopy(compressor) is compressor


def test_a_spawned_worker_gets_an_index(index):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=answer, args=(theirs, index, QUESTION))
    worker.start()
    assert ours.poll(300)
    assert ours.recv() == ["boats:0-50"]
    worker.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_children_search_while_threads_of_the_parent_do(index):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    done = threading.Event()

    def search():
        while not done.is_set():
            index.search(f"{QUESTION} {'boats ' * 60}", k=1)

    searcher = threading.Thread(target=search)
    searcher.start()
    context = multiprocessing.get_context("fork")
    try:
        for _ in range(3):
            ours, theirs = context.Pipe()
            child = context.Process(target=answer, args=(theirs, index, QUESTION))
            child.start()
            arrived = ours.poll(30)
            child.kill()
            child.join()
            assert arrived, "the child hangs"
            assert ours.recv() == ["boats:0-50"]
    finally:
        done.set()
        searcher.join()
        torch.set_num_threads(threads)


def test_documents_and_spans_are_hashable(index):
    assert len({Document("x", metadata={"a": [1]}), Document("x", metadata={"a": [1]})}) == 1
    assert len({*index.search(QUESTION, k=1), *index.search(QUESTION, k=1)}) == 1
