"""Searches over real workers; that parts give what one index gives is in search/test_parts.py."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from s3_retriever import (
    Document,
    IndexStoreError,
    InputError,
    Interleave,
    MaxToken,
    Recipe,
    S3Index,
    ServerError,
    TapRecipe,
)
from s3_retriever.index import Store

PAPER = Recipe(taps={"hidden.1": TapRecipe()}, scoring=MaxToken(), fusion=Interleave(edge_tokens=8))
QUESTION = "Who mends the broken clock after the storm?"


def documents(sentences, first, n):
    return [
        Document(" ".join(sentences[i::97][:5]), f"d{i}", {"n": i, "kind": "ab"[i % 2]})
        for i in range(first, first + n)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_bert, tiny_codebook, sentences):
    """Folders of three indexes, and an index with all of their documents."""
    folder = tmp_path_factory.mktemp("shards")
    options = {"host": str(tiny_bert), "codebook": str(tiny_codebook)}
    whole = S3Index.create(folder / "whole", **options)
    paths = [folder / name for name in "abc"]
    for place, path in enumerate(paths):
        part = documents(sentences, 10 * place, 10)
        with S3Index.create(path, **options) as index:
            index.add(part, progress=False)
        whole.add(part, progress=False)
    return paths, whole


@pytest.fixture(scope="module")
def sharded(cluster, made):
    from s3_retriever.cluster import ShardedIndex

    with ShardedIndex.open(made[0]) as index:
        yield index


def ids_and_scores(found):
    return [(getattr(each, "id", None) or each.document_id, each.score) for each in found]


def same(found, wanted):
    found, wanted = ids_and_scores(found), ids_and_scores(wanted)
    return [name for name, _ in found] == [name for name, _ in wanted] and [
        score for _, score in found
    ] == pytest.approx([score for _, score in wanted], abs=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 3, "mode": "s3"},
        {"k": 3, "mode": "bm25", "order": "document"},
        {"k": 4, "group_by": "document"},
        {"token_budget": 200, "context": "section", "unique": False},
        {"k": 9, "where": {"kind": "b"}},
        {"k": 9, "where": lambda metadata: metadata["n"] % 3 == 1},
        {"k": 9, "recipe": PAPER},
        {"k": 9, "where": {"n": 1_000}},
    ],
)
def test_results_are_those_of_one_index(sharded, made, options):
    assert same(sharded.search(QUESTION, **options), made[1].search(QUESTION, **options))


def test_a_second_look_is_that_of_one_index(sharded, made, tiny_llama):
    look = {"rerank": 12, "rerank_host": str(tiny_llama)}
    for options in ({"k": 9}, {"k": 4, "group_by": "document"}):
        found = sharded.search(QUESTION, **options, **look)
        assert same(found, made[1].search(QUESTION, **options, **look))
    (span,) = sharded.search(QUESTION, 1, **look)
    own, other = sharded.explain(QUESTION, span, **look), made[1].explain(QUESTION, span, **look)
    assert own.contributions == pytest.approx(other.contributions, abs=1e-9)
    assert own.contributions["rerank"] > 0


def test_other_methods_are_those_of_one_index(sharded, made):
    whole = made[1]
    assert (len(sharded), sharded.ids()) == (len(whole), whole.ids())
    assert list(sharded) == list(whole)
    assert "d11" in sharded
    assert "x" not in sharded
    assert sharded.get(["d29", "d0"]) == whole.get(["d29", "d0"])
    (span,) = sharded.search(QUESTION, 1)
    assert sharded.get(span) == whole.get(span)
    own, other = sharded.explain(QUESTION, span), whole.explain(QUESTION, span)
    assert own.contributions == pytest.approx(other.contributions, abs=1e-9)
    assert [share.feature for share in own.features] == [share.feature for share in other.features]
    assert (own.bridge and own.bridge.id) == (other.bridge and other.bridge.id)
    assert sharded.heat(QUESTION, "d7").scores.keys() == whole.heat(QUESTION, "d7").scores.keys()
    assert sharded.stats()["sentences"] == whole.stats()["sentences"]
    refused = (sharded.compact, sharded.verify, sharded.snapshot, lambda: sharded.save("x"))
    for method in refused:
        with pytest.raises(InputError, match=r"has no .*\(\); open one of its folders"):
            method()


def test_changes_are_found_while_searches_run(cluster, made, tmp_path, sentences):
    from s3_retriever.cluster import ShardedIndex

    paths = [tmp_path / path.name for path in made[0]]
    for path, copied in zip(made[0], paths, strict=True):
        S3Index.open(path).save(copied)
    zebra = Document("The zebra counts seven boats.", "zebra")
    failed = []
    with ShardedIndex.open(paths) as index:
        stop = threading.Event()

        def search():
            while not stop.is_set():
                names = {span.document_id for span in index.search("zebra", 40, mode="bm25")}
                if names - {"zebra"}:
                    failed.append(names)

        threads = [threading.Thread(target=search) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert index.add(zebra, progress=False) == ["zebra"]
        assert index.ids()[-1] == "zebra"
        assert index.search("zebra", 1, mode="bm25")[0].document_id == "zebra"
        with pytest.raises(InputError, match="'d3' was already added"):
            index.add([Document("New.", "new"), Document("Old.", "d3")], progress=False)
        assert "new" not in index
        index.add(Document("Zebra again.", "d3"), replace=True, progress=False)
        assert index.get("d3").text == "Zebra again."
        assert index.ids()[-1] == "d3"
        assert len(index) == 31
        with pytest.raises(InputError, match="no document 'nobody'"):
            index.delete(["d4", "nobody"])
        assert index.delete(["d4", "zebra", "d3", "nobody"], missing_ok=True) == 3
        stop.set()
        for thread in threads:
            thread.join()
        assert not index.search("zebra", 1, mode="bm25")
        assert len(index) == 28
    assert all(names <= {"zebra", "d3"} for names in failed)
    index.close()
    began = time.monotonic()
    for attempt in (
        lambda: index.search(QUESTION),
        index.ids,
        lambda: index.add("New."),
        lambda: index.add("New.", replace=True),
    ):
        with pytest.raises(IndexStoreError, match="is closed; open it again"):
            attempt()
    assert time.monotonic() - began < 5


def test_a_killed_worker_is_started_again_during_the_search(sharded, made):
    wanted = made[1].search(QUESTION, 5)
    for place in (0, 2):
        os.kill(sharded.pids()[place], signal.SIGKILL)
        assert same(sharded.search(QUESTION, 5), wanted)


def test_a_shard_that_does_not_answer_is_named(sharded, made):
    process = sharded.pids()[1]
    os.kill(process, signal.SIGSTOP)
    sharded.timeout, before = 0.3, sharded.timeout
    try:
        with pytest.raises(ServerError, match=r"shard .*/b did not answer within 0\.3 seconds"):
            sharded.search(QUESTION, 1)
    finally:
        sharded.timeout = before
        os.kill(process, signal.SIGCONT)
    assert same(sharded.search(QUESTION, 5), made[1].search(QUESTION, 5))


def test_segments_of_one_index_are_shared_out(cluster, made, caplog):
    from s3_retriever.cluster import ShardedIndex

    whole = made[1]
    assert whole.stats()["segments"] > 1
    with ShardedIndex.open(whole.path, shards=2, replicas=2, timeout=4) as index:
        assert "of the tokens" not in caplog.text
        assert index.ids() == whole.ids()
        for _ in range(3):  # in turn of both replicas
            assert same(index.search(QUESTION, 5), whole.search(QUESTION, 5))
        sizes = index._all("sizes")
        assert all(0 < each.documents < 30 for each in sizes)
        # A replica that hangs is replaced by another within the time that a search may take.
        process = index.pids()[1]
        os.kill(process, signal.SIGSTOP)
        try:
            for _ in range(3):
                assert same(index.search(QUESTION, 5), whole.search(QUESTION, 5))
            assert index.ids() == whole.ids()
        finally:
            os.kill(process, signal.SIGCONT)


def test_a_line_needs_the_secret_and_outlives_errors(cluster, made):
    from s3_retriever.cluster.lines import connect
    from s3_retriever.cluster.shard import Begin, End, Shard, Share, Step, packed
    from s3_retriever.search import Limits
    from s3_retriever.search.part import Request
    from s3_retriever.search.pipeline import Query

    shard = Shard(str(made[0][0]), Share(0, 1))
    place = shard.ready()
    assert shard.ready() == place
    for wrong in (b"x" * 32, b"x" * 100_000):
        connected = closing(connect(place._replace(secret=wrong), 5))
        with connected as line, pytest.raises((EOFError, OSError)):
            line.receive()

    def asked(message):
        line.send(packed(message))
        return pickle.loads(line.receive())

    query = Query(QUESTION, None, Recipe(taps={}), "bm25", frozenset({"en"}))
    with closing(connect(place, 5)) as line:
        where = {"n": {"$unknown": 1}}
        request = packed(Request(query, Limits(), where))
        assert isinstance(asked(Begin(request, 1)), InputError)
        assert isinstance(asked(Step("rows", (1,))), RuntimeError)
        request = packed(Request(query, Limits()))
        state, _ = asked(Begin(request, 1))
        assert state.index == Store.open(made[0][0]).manifest.uuid
        line.send(packed(End()))
        assert isinstance(asked(Step("advance", (None, 1))), RuntimeError)


def test_indexes_that_do_not_go_together_are_refused(
    cluster, made, tmp_path, tiny_bert, tiny_codebook
):
    from s3_retriever.cluster import ShardedIndex

    a, *_ = made[0]
    with S3Index.create(tmp_path / "recipe", str(tiny_bert), codebook=str(tiny_codebook),
                        recipe="paper"):  # fmt: skip
        pass
    with S3Index.create(tmp_path / "minilm"):
        pass
    for other, problem in (
        (a, "given twice"),
        (tmp_path / "recipe", "with another recipe"),
        (tmp_path / "minilm", "with another host"),
        (tmp_path / "none", "There is no index at"),
    ):
        with pytest.raises(IndexStoreError, match=problem):
            ShardedIndex.open([a, other])
    for wrong in ([], 7, {"a": 1}, "memory://x", ["memory://x"]):
        with pytest.raises(InputError):
            ShardedIndex.open(wrong)
    for options in ({"shards": 0}, {"replicas": 0}, {"timeout": 0}):
        with pytest.raises(InputError):
            ShardedIndex.open(a, **options)
    for wrong in (7, {"nonsense": 1}, {"num_cpus": "x"}):
        with pytest.raises(InputError, match="worker_options"):
            ShardedIndex.open(a, worker_options=wrong)
    with pytest.raises(InputError, match="is one shard"):
        ShardedIndex.open(made[0], shards=2)
    with pytest.raises(InputError, match="opened, not created"):
        ShardedIndex.create()


def test_a_damaged_shard_is_refused_in_one_sentence(cluster, made, tmp_path):
    from s3_retriever.cluster import ShardedIndex

    S3Index.open(made[0][0]).save(tmp_path / "x")
    (segment,) = (tmp_path / "x").glob("segment-*")
    (segment / "sentences.npy").write_bytes(b"")
    with pytest.raises(IndexStoreError, match="damaged"):
        ShardedIndex.open([made[0][1], tmp_path / "x"])


def test_what_cannot_be_sent_to_workers_is_refused(sharded):
    lock = threading.Lock()
    with pytest.raises(InputError, match="write where as a mapping"):
        sharded.search(QUESTION, where=lambda metadata: lock.locked())
    with pytest.raises(InputError, match="fails for document"):
        sharded.search(QUESTION, where=lambda metadata: metadata["absent"])
    with pytest.raises(IndexStoreError, match="cannot be pickled"):
        pickle.dumps(sharded)
    assert copy.deepcopy(sharded) is sharded


def test_without_ray_the_extra_is_named():
    program = "import sys; sys.modules['ray'] = None; import s3_retriever.cluster"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "pip install 's3-retriever[ray]'" in done.stderr.splitlines()[-1]


def test_a_part_of_an_index_opens_its_own_segments_only(made):
    from s3_retriever.cluster.shard import Share

    path = made[1].path
    whole = Store.open(path).snapshot()
    for of in (1, 2, 3, 7):
        parts = [Store.open(path, Share(place, of)).snapshot().segments for place in range(of)]
        names = [segment.name for part in parts for segment in part]
        assert names == [segment.name for segment in whole.segments]


def test_shards_of_an_index_that_cannot_be_shared_out_evenly_are_warned_of(made, caplog):
    from s3_retriever.cluster import sharded

    compacted = Store.open(made[0][0])
    assert len(compacted.manifest.segments) == 1
    sharded._warn_if_uneven(compacted, 1)
    sharded._warn_if_uneven(compacted, 2)  # twice its share: not more
    assert not caplog.text
    sharded._warn_if_uneven(compacted, 4)
    assert "One of the 4 shards has 100 % of the tokens" in caplog.text
    assert "s3r split" in caplog.text
