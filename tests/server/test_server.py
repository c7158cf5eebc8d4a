"""A served index, its client, and the command."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import numpy as np
import pytest
from helpers.serving import running
from server.conftest import DOCUMENTS, TOKEN
from typer.testing import CliRunner
from uvicorn.server import ServerState

from s3_retriever import Document, InputError, RemoteIndex, S3Error, S3Index, ServerError
from s3_retriever.cli.app import app as command
from s3_retriever.index import mirroring
from s3_retriever.recipe import Recipe
from s3_retriever.server import wire
from s3_retriever.server.app import create_app
from s3_retriever.server.guard import Limits
from s3_retriever.server.serving import PatientProtocol, listen, server_for, url_of

QUESTION = "When does the captain sail?"
AUTH = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def remote(served):
    with RemoteIndex(served, token=TOKEN) as remote:
        yield remote


@pytest.fixture
def own(sentences):
    """An index of a tiny host that a test may change, with the address of its server."""
    index = S3Index.create(host="minilm", device="cpu", dtype="float32")
    index.add([Document(text, str(i), {"version": 0}) for i, text in enumerate(sentences[:20])])
    with running(create_app({"own": index})) as url:
        yield index, url


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"k": 1},
        {"mode": "bm25"},
        {"mode": "s3", "k": 3, "order": "document", "unique": False},
        {"where": {"year": {"$gte": 2}}, "token_budget": 30},
        {"min_relevance": 0.9},
        {"recipe": "default"},
        {"recipe": Recipe(taps={})},
        {"group_by": "document", "spans_per_document": 1},
        {"group_by": "document", "where": {"year": 0}},
    ],
)
def test_the_client_finds_what_the_index_finds(remote, minilm_index, arguments):
    assert remote.search(QUESTION, **arguments) == minilm_index.search(QUESTION, **arguments)


def test_the_client_sees_where_features_fire(remote, minilm_index):
    here, there = (index.heat(QUESTION, "boats/a") for index in (minilm_index, remote))
    assert there.tokens.dtype == np.int64
    np.testing.assert_array_equal(there.tokens, here.tokens)
    assert list(there.scores) == list(here.scores)
    for source, scores in here.scores.items():
        np.testing.assert_allclose(there.scores[source], scores, rtol=1e-3)
    assert there.features == here.features
    strongest = here.features[0]
    found = remote.firings(strongest.tap, strongest.feature, 1)
    assert found == minilm_index.firings(strongest.tap, strongest.feature, 1)
    assert found.sentences


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://x",
        "http://",
        "http://x:y",
        "http://a:b@x",
        "http://x/?q",
        "//x",
    ],
)
def test_an_address_that_is_no_url_of_a_server_is_refused(url):
    with pytest.raises(InputError):
        RemoteIndex(url)


def test_the_client_explains_and_reads_as_the_index_does(remote, minilm_index):
    [span] = minilm_index.search(QUESTION, 1)
    assert remote.explain(QUESTION, span) == minilm_index.explain(QUESTION, span)
    assert (len(remote), remote.ids()) == (2, ["boats/a", "bread/b"])
    assert list(remote) == DOCUMENTS
    assert dict(remote.rows()) == {each.id: each.metadata for each in DOCUMENTS}
    assert remote.get(span) == minilm_index.get(span)
    assert "boats/a" in remote
    assert "boats" not in remote
    stats = remote.stats()
    assert (stats["documents"], stats["host"], stats["recipes"]) == (2, "minilm", ["default"])


@pytest.mark.parametrize(
    "call",
    [
        lambda index: index.search(" "),
        lambda index: index.search("x", k=0),
        lambda index: index.search("x", mode="fast"),
        lambda index: index.search("x", where={"year": {"$near": 1}}),
        lambda index: index.search("x", filter={"year": 1}),
        lambda index: index.search("x", recipe="none"),
        lambda index: index.search("x", min_relevance=float("nan")),
        lambda index: index.search("x", rerank=0),
        lambda index: index.search("x", rerank=3),
        lambda index: index.search("x", rerank_host="smollm2"),
        lambda index: index.get("none"),
        lambda index: index.add(Document("x", "boats/a")),
        lambda index: index.delete("none"),
        lambda index: index.explain("x", index.get),
    ],
)
def test_errors_are_those_of_the_index(remote, minilm_index, call):
    with pytest.raises(S3Error) as here:
        call(minilm_index)
    with pytest.raises(S3Error) as there:
        call(remote)
    assert there.type is here.type


IDS = ["..", ".", "a/../b", "%2e%2e", "x?y#z", "line\nbreak", "/first", "last/", " ", "ü", "a:0-1"]
LONGEST = "x" * 4_096


def test_ids_of_every_kind_go_there_and_back(own, http):
    _, url = own
    with RemoteIndex(url) as remote:
        remote.add(Document("The captain is asleep.", LONGEST))
        [span] = remote.search("captain asleep", 1)
        assert remote.explain("captain asleep", span).span.document_id == LONGEST
        assert remote.delete(LONGEST) == 1
        documents = [Document(f"Text {i}.", name) for i, name in enumerate(IDS)]
        assert remote.add(documents) == IDS
        assert remote.get(IDS) == documents
        for name in IDS[::5]:
            path = "/v1/indexes/own/documents/" + "".join(f"%{byte:02x}" for byte in name.encode())
            assert http.put(url + path, json={"text": "New."}).json() == {"ids": [name]}
            assert http.get(url + path).json()["text"] == "New."
            assert http.delete(url + path).json() == {"deleted": 1}
            assert http.delete(url + path).status_code == 404
        assert len(remote) == 20 + len(IDS) - len(IDS[::5])


def test_documents_are_listed_in_pages_and_by_prefix(own, http):
    _, url = own
    listed = http.get(f"{url}/v1/indexes/own/documents?offset=3&limit=2&prefix=1").json()
    assert listed == {"ids": ["12", "13"], "total": 11, "metadata": None}


def test_readers_see_committed_states_only_while_a_writer_writes(own):
    index, url = own
    question = index.get("0").text
    done = threading.Event()

    def read(_: int) -> int:
        seen = 0
        with RemoteIndex(url) as remote:
            while not done.is_set():
                versions = {span.metadata["version"] for span in remote.search(question, 20)}
                assert len(versions) == 1  # all documents change in one commit
                seen += 1
        return seen

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, i) for i in range(4)]
        try:
            with RemoteIndex(url) as remote:
                for version in range(1, 4):
                    remote.add(
                        [Document(d.text, d.id, {"version": version}) for d in index], replace=True
                    )
        finally:
            done.set()
        assert all(reader.result() for reader in readers)


def test_several_indexes_and_one_that_is_read_only(minilm_index, http):
    with running(create_app({"a": minilm_index, "b": minilm_index}, read_only=True)) as url:
        with pytest.raises(InputError, match="the server has: a, b"):
            RemoteIndex(url)
        remote = RemoteIndex(url, "b")
        assert remote.search(QUESTION, 1)
        for change in (lambda: remote.add("x"), lambda: remote.delete("boats/a")):
            with pytest.raises(InputError, match="read-only"):
                change()
        assert http.get(f"{url}/v1/indexes/a/answer").status_code == 405
        assert http.post(f"{url}/v1/indexes/a/answer", json={"question": "x"}).status_code == 404


def test_an_index_in_object_storage_is_read_only_and_its_url_is_not_shown(
    tmp_path, minilm_index, http, monkeypatch
):
    monkeypatch.setattr(mirroring, "user_cache_path", lambda _: tmp_path / "cache")
    minilm_index.save(tmp_path / "a.s3r")
    with (
        S3Index.open((tmp_path / "a.s3r").as_uri(), device="cpu", dtype="float32") as index,
        running(create_app({"hand": index})) as url,
    ):
        (listed,) = http.get(f"{url}/v1/indexes").json()["indexes"]
        assert not listed["writable"]
        (tmp_path / "cache").rename(tmp_path / "gone")
        answer = http.post(f"{url}/v1/indexes/hand/search", json={"question": "x", "mode": "bm25"})
        assert str(tmp_path) not in answer.text
        assert (
            wire.without_paths(f"{index.url} and {index.path}", {"hand": index}) == "hand and hand"
        )


def test_an_index_that_is_removed_leaves_the_others_alone(tmp_path, minilm_index, http):
    index = S3Index.create(tmp_path / "gone.s3r", host="minilm", device="cpu", dtype="float32")
    with running(create_app({"docs": minilm_index, "gone": index})) as url:
        shutil.rmtree(tmp_path / "gone.s3r")
        listed = http.get(f"{url}/v1/indexes").json()["indexes"]
        assert [each["name"] for each in listed] == ["docs"]
        sizes = http.get(f"{url}/metrics").text
        assert 'index="docs"' in sizes
        assert 'index="gone"' not in sizes
        for path, body in [
            ("search", {"question": "x"}),
            ("read", {"document_id": "x"}),
            ("delete", {"ids": ["x"]}),
            ("documents", {"documents": [{"text": "x"}]}),
        ]:
            reply = http.post(f"{url}/v1/indexes/gone/{path}", json=body)
            assert reply.status_code == 503
            assert str(tmp_path) not in reply.text
        assert list(tmp_path.iterdir()) == []


def test_a_client_without_a_server_or_of_another_one(served):
    with pytest.raises(ServerError, match="s3r serve runs there"):
        RemoteIndex("http://127.0.0.1:9")
    with pytest.raises(InputError, match="needs its token"):
        RemoteIndex(served)
    with pytest.raises(InputError, match="without spaces"):
        RemoteIndex(served, token="a\r\nX-Y: b")


def test_the_interface_describes_itself(served, http):
    described = http.get(f"{served}/openapi.json", headers=AUTH).json()
    name = "/v1/indexes/{index}/"
    posts = [path.removeprefix(name) for path, each in described["paths"].items() if "post" in each]
    assert {"search", "explain", "heat", "firings", "answer", "read", "documents", "delete"} == set(
        posts
    )
    events = described["paths"][f"{name}answer"]["post"]["responses"]["200"]["content"]
    assert list(events) == ["text/event-stream"]
    body = described["components"]["schemas"]["SearchRequest"]["properties"]
    assert {"question", "k", "where", "token_budget"} <= set(body)


def test_more_requests_than_allowed_are_refused(minilm_index):
    limits = Limits(rate=1)  # ten at once, then one a second
    with (
        running(create_app({"a": minilm_index}, limits=limits)) as url,
        httpx.Client(timeout=60) as client,
    ):
        statuses = [client.get(f"{url}/health").status_code for _ in range(14)]
        assert statuses[:10] == [200] * 10
        assert statuses.count(429) >= 3


def test_metrics_count_requests_by_route(served, http):
    assert http.get(f"{served}/metrics").status_code == 401
    http.get(f"{served}/v1/indexes/none/documents/secret-id", headers=AUTH)
    text = http.get(f"{served}/metrics", headers=AUTH).text
    assert 's3r_index_documents{index="docs"} 2.0' in text
    route = '{method="GET",route="/v1/indexes/{index}/documents/{document_id:id}",status="404"}'
    assert f"s3r_request_seconds_count{route}" in text
    assert "secret-id" not in text


def test_the_host_that_answers_reranks(tmp_path, tiny_llama, sentences, minilm_index):
    from helpers.answering import make_answerer

    from s3_retriever import Host

    folder = make_answerer(tmp_path / "llama", tiny_llama, sentences[:200])
    host = Host.load(str(folder), generates=True, device="cpu", dtype="float32")
    with running(create_app({"docs": minilm_index}, answers=host)) as url:
        remote = RemoteIndex(url, timeout=60)
        found = remote.search(QUESTION, 3, rerank=3)
        assert found == minilm_index.search(QUESTION, 3, rerank=3, rerank_host=host)
        assert found != minilm_index.search(QUESTION, 3)
        explained = remote.explain(QUESTION, found[0], rerank=3).contributions
        assert explained["rerank"] == pytest.approx(found[0].contributions["rerank"], abs=1e-4)
        with pytest.raises(InputError, match="rerank"):
            remote.search(QUESTION, rerank=129)
        remote.close()


def test_an_answer_is_streamed_with_its_evidence(tmp_path, tiny_llama, sentences, http):
    from helpers.answering import make_answerer

    from s3_retriever import Host

    folder = make_answerer(tmp_path / "llama", tiny_llama, sentences[:200])
    host = Host.load(str(folder), window=64, generates=True, device="cpu", dtype="float32")
    index = S3Index.create(host=host)
    index.add([Document(text, str(i), {"i": i}) for i, text in enumerate(sentences[:50])])
    asked = {"question": "Who signs?", "token_budget": 60, "max_new_tokens": 8, "min_relevance": 0}
    with running(create_app({"own": index}, answers=host)) as url:
        path = f"{url}/v1/indexes/own/answer"

        def events(**more):
            reply = http.post(path, json=asked | more, timeout=60)
            assert reply.headers["content-type"].startswith("text/event-stream")
            lines = [part.split("\n") for part in reply.text.strip().split("\n\n")]
            return [(name[7:], json.loads(data[6:])) for name, data in lines]

        (first, evidence), *pieces, (last, answer) = events()
        assert (first, last) == ("evidence", "answer")
        assert "".join(piece["text"] for _, piece in pieces) == answer["text"]
        found = index.search("Who signs?", token_budget=60, min_relevance=0, order="document")
        ids = [span["id"] for span in evidence["spans"]]
        assert ids
        assert set(ids) <= {span.id for span in found}
        only = events(where={"i": 7})[0][1]["spans"]
        assert [span["document_id"] for span in only] == ["7"]
        assert events(context="section")[0][0] == "evidence"
        assert http.post(path, json=asked | {"context": "page"}).status_code == 422
        assert events(token_budget=1_000)[0][0] == "error"
        # A client that goes away stops its answer.
        with http.stream("POST", path, json=asked | {"max_new_tokens": 300}) as reply:
            next(reply.iter_lines())
        assert events()[-1][0] == "answer"


def test_the_command_serves_until_it_is_told_to_stop(tmp_path, tiny_bert, tiny_codebook, http):
    folder = tmp_path / "books.s3r"
    index = S3Index.create(folder, host=str(tiny_bert), codebook=tiny_codebook)
    index.add(DOCUMENTS)
    with listen("127.0.0.1", 0, token=None) as listener:
        url = url_of(listener)
    ended = threading.Event()

    def s3r(*arguments: str) -> str:
        done = CliRunner().invoke(command, [*arguments, "--server", url], env={"S3R_TOKEN": TOKEN})
        assert done.exit_code == 0, done.output
        return done.stdout

    def use() -> None:
        while not ended.is_set():
            with suppress(httpx.TransportError):
                http.get(f"{url}/health")
                break
        assert "boats/a" in s3r("search", QUESTION, "-k", "1")
        assert s3r("list", "books") == "boats/a\nbread/b\n"
        assert s3r("show", "books", "bread/b").strip() == DOCUMENTS[1].text
        note = tmp_path / "note.txt"
        note.write_text("The captain is asleep.")
        assert s3r("add", str(note), "--to", "books").startswith("1 added")
        assert s3r("add", str(note), "--to", "books").startswith("0 added, 0 replaced, 1 unch")
        assert s3r("delete", "boats/a", "--in", "books").strip() == "1 deleted, 2 left."
        assert "asleep" in s3r("explain", QUESTION, "--in", "books", "--json")

    def use_and_stop() -> None:
        try:
            use()
        finally:
            if not ended.is_set():
                signal.raise_signal(signal.SIGTERM)

    # The command runs here, where signals arrive, and its clients in a thread.
    with ThreadPoolExecutor(1) as pool:
        client = pool.submit(use_and_stop)
        arguments = ["serve", str(folder), "--port", url.rpartition(":")[2]]
        served = CliRunner().invoke(command, arguments, env={"S3R_TOKEN": TOKEN})
        ended.set()
        client.result()
    assert served.exit_code == 0, served.output
    assert served.stderr.startswith(f"Serving books at {url}/")
    assert served.stderr.endswith("Stopped.\n")
    assert len(S3Index.open(folder)) == 2


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "example.org", "127.1", ""])
def test_an_address_that_others_can_reach_needs_a_token(tmp_path, address):
    done = CliRunner().invoke(command, ["serve", str(tmp_path), "--address", address], env={})
    assert done.exit_code == 1
    assert "needs a token" in done.stderr


def test_parts_of_a_response_do_not_wait_for_each_other():
    """Nagle's algorithm would hold the second part back for up to 40 ms."""
    config = server_for(lambda *_: None).config
    config.load()
    made = []

    def protocol():
        made.append(PatientProtocol(config, ServerState(), {}))
        return made[-1]

    async def connect():
        listener = listen("127.0.0.1", 0, token=None)
        loop = asyncio.get_running_loop()
        async with await loop.create_server(protocol, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            while not made or made[0].transport is None:
                await asyncio.sleep(0.01)
            accepted = made[0].transport.get_extra_info("socket")
            waits = not accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            made[0].transport.abort()
            return waits

    assert not asyncio.run(connect())
