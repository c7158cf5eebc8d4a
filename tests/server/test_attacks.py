"""What hostile clients and pages try: nothing gets in, breaks the server or keeps it busy."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from helpers.serving import running
from server.conftest import TOKEN

from s3_retriever import Document, InputError, S3Index
from s3_retriever.server.app import create_app
from s3_retriever.server.serving import PatientProtocol

BEARER = f"Authorization: Bearer {TOKEN}"
SEARCH = "/v1/indexes/docs/search"


def raw(url: str, *parts: bytes, wait: float = 0.0) -> bytes:
    """Everything that the server answers to bytes, sent with pauses between them."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as client:
        answer = b""
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(wait)
            while piece := client.recv(65_536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


HOST = "Host: 127.0.0.1"
JSON = "Content-Type: application/json"
TRICKS = {
    # Tokens.
    "no token": ("GET", "/v1/indexes", [HOST], 401),
    "empty token": ("GET", "/v1/indexes", [HOST, "Authorization: Bearer "], 401),
    "half a token": ("GET", "/v1/indexes", [HOST, BEARER[:-1]], 401),
    "token and more": ("GET", "/v1/indexes", [HOST, BEARER + "x"], 401),
    "token in other case": ("GET", "/v1/indexes", [HOST, BEARER.replace("tests", "TESTS")], 401),
    "other scheme": ("GET", "/v1/indexes", [HOST, f"Authorization: Basic {TOKEN}"], 401),
    "no scheme": ("GET", "/v1/indexes", [HOST, f"Authorization: {TOKEN}"], 401),
    "two tokens": ("GET", "/v1/indexes", [HOST, "Authorization: Bearer x", BEARER], 400),
    "token in the path": ("GET", f"/v1/indexes?token={TOKEN}", [HOST], 401),
    "token in a cookie": ("GET", "/v1/indexes", [HOST, f"Cookie: token={TOKEN}"], 401),
    "token beyond ASCII": ("GET", "/v1/indexes", [HOST, "Authorization: Bearer \xe9"], 401),
    "token for metrics": ("GET", "/metrics", [HOST], 401),
    "token for OpenAPI": ("GET", "/openapi.json", [HOST], 401),
    "public path with more": ("GET", "/health/", [HOST], 401),
    "public path and another": ("GET", "/health/../v1/indexes", [HOST], 401),
    "public path, encoded": ("GET", "/page.js%2f..%2fv1/indexes", [HOST], 401),
    "two slashes": ("GET", "//v1/indexes", [HOST], 401),
    "absolute target": ("GET", "http://127.0.0.1/v1/indexes", [HOST], 401),
    "rewritten target": ("GET", "/health", [HOST, "X-Original-URL: /v1/indexes"], 200),
    "other method by header": ("GET", "/v1/indexes", [HOST, "X-HTTP-Method-Override: PUT"], 401),
    # Names of the server: DNS rebinding.
    "foreign host": ("GET", "/", ["Host: evil.example"], 421),
    "foreign host that ends well": ("GET", "/", ["Host: evil.example:127.0.0.1"], 421),
    "foreign host with a port": ("GET", "/", ["Host: evil.example:8000"], 421),
    "host with a user": ("GET", "/", ["Host: 127.0.0.1@evil.example"], 421),
    "host with a dot": ("GET", "/", ["Host: localhost."], 421),
    "empty host": ("GET", "/", ["Host: "], 421),
    "no host": ("GET", "/", [], 400),
    "two hosts": ("GET", "/", [HOST, "Host: evil.example"], 400),
    "forwarded host": ("GET", "/", ["Host: evil.example", "X-Forwarded-Host: localhost"], 421),
    # Pages of other sites.
    "foreign origin": ("GET", "/v1/indexes", [HOST, BEARER, "Origin: https://evil.example"], 403),
    "no origin": ("GET", "/v1/indexes", [HOST, BEARER, "Origin: null"], 403),
    "similar origin": ("GET", "/v1/indexes", [HOST, BEARER, "Origin: http://127.0.0.1.evil"], 403),
    "another port": ("GET", "/v1/indexes", [HOST, BEARER, "Origin: http://127.0.0.1:99"], 403),
    "two origins": ("GET", "/v1/indexes", [HOST, BEARER, "Origin: a", "Origin: b"], 400),
    "image of another site": (
        "GET",
        "/v1/indexes",
        [HOST, BEARER, "Sec-Fetch-Site: cross-site"],
        403,
    ),
    "preflight": (
        "OPTIONS",
        SEARCH,
        [HOST, "Origin: https://evil.example", "Access-Control-Request-Method: POST"],
        403,
    ),
    # Files.
    "source of the server": ("GET", "/app.py", [HOST, BEARER], 404),
    "above the page": ("GET", "/../app.py", [HOST, BEARER], 404),
    "above the page, encoded": ("GET", "/%2e%2e/app.py", [HOST, BEARER], 404),
    "above the page, twice": ("GET", "/%252e%252e/app.py", [HOST, BEARER], 404),
    "above the page, backslash": ("GET", "/..%5capp.py", [HOST, BEARER], 404),
    "passwords": ("GET", "/%2fetc/passwd", [HOST, BEARER], 404),
    "passwords as a document": (
        "GET",
        "/v1/indexes/docs/documents/../../../../etc/passwd",
        [HOST, BEARER],
        404,
    ),
    "passwords as an index": ("GET", "/v1/indexes/%2fetc%2fpasswd/documents", [HOST, BEARER], 404),
    "null in an id": ("GET", "/v1/indexes/docs/documents/a%00b", [HOST, BEARER], 404),
    "not Unicode": ("GET", "/v1/indexes/docs/documents/%ff%fe", [HOST, BEARER], 404),
    # Requests that two servers would read in two ways.
    "length twice": ("POST", SEARCH, [HOST, BEARER, "Content-Length: 2", "Content-Length: 3"], 400),
    "negative length": ("POST", SEARCH, [HOST, BEARER, "Content-Length: -1"], 400),
    "length of another script": ("POST", SEARCH, [HOST, BEARER, "Content-Length: \xb2"], 400),
    "space before the colon": ("GET", "/v1/indexes", [HOST, BEARER.replace(":", " :")], 400),
    "folded header": ("GET", "/v1/indexes", [HOST, "Authorization: Bearer", f"\t{TOKEN}x"], 401),
    "line feed in a header": ("GET", "/health", [HOST, "X: a\nAuthorization: b"], 200),
    "WebSocket": ("GET", "/health", [HOST, "Upgrade: websocket", "Sec-WebSocket-Key: a"], 200),
    "unknown method": ("TRACE", "/v1/indexes", [HOST, BEARER], 405),
    "oversized body, declared": (
        "POST",
        SEARCH,
        [HOST, BEARER, JSON, "Content-Length: 99999999999"],
        413,
    ),
    "body that waits": (
        "POST",
        SEARCH,
        [HOST, BEARER, JSON, "Content-Length: 30000", "Expect: 100-continue"],
        413,
    ),
    "form of another site": (
        "POST",
        SEARCH,
        [HOST, BEARER, "Content-Type: text/plain", "Content-Length: 0"],
        422,
    ),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_with_paths_and_headers(served, trick):
    method, path, headers, status = TRICKS[trick]
    answer = raw(served, request(method, path, *headers))
    assert status_of(answer) == status
    assert b"Access-Control" not in answer
    assert b"access-control" not in answer
    assert b"root:" not in answer
    assert status == 200 or b"captain" not in answer


@pytest.mark.parametrize(
    "path, header", [("/" + "a" * 1_000_000, "X: y"), ("/", "X: " + "a" * 1_000_000)]
)
def test_a_header_without_end_is_refused(served, path, header):
    assert status_of(raw(served, request("GET", path, HOST, header))) in (0, 400)


def test_requests_are_not_smuggled(served, http):
    inner = request("DELETE", "/v1/indexes/docs/documents/boats/a", HOST, BEARER)
    lengths = [f"Content-Length: {len(inner)}", "Transfer-Encoding: chunked"]
    answer = raw(served, request("GET", "/health", HOST, *lengths, body=b"0\r\n\r\n" + inner))
    assert answer.count(b"HTTP/1.1") == 1
    asked = http.get(f"{served}/v1/indexes", headers={"Authorization": f"Bearer {TOKEN}"})
    assert asked.json()["indexes"][0]["documents"] == 2


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_chunked_body_ends_where_it_is_too_large(served, method):
    head = request(method, SEARCH, HOST, BEARER, JSON, "Transfer-Encoding: chunked")
    chunk = b"1000\r\n" + b"a" * 4_096 + b"\r\n"
    assert status_of(raw(served, head, *[chunk] * 400)) in (0, 413)


DEEP = 100_000
BODIES = {
    "not JSON": b"{",
    "not Unicode": b'{"question": "\xff"}',
    "deep lists": b"[" * 9_000 + b"]" * 9_000,
    "deep mappings": b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
    "deep filter": b'{"question":"x","where":' + b'{"$not":' * 2_000 + b"{}" + b"}" * 2_001,
    "many conditions": b'{"question":"x","where":{"$foo":[' + b"{}," * 5_000 + b"{}]}}",
    "huge number": b'{"question":"x","k":' + b"9" * 9_000 + b"}",
    "huge k": b'{"question":"x","k":99999999999}',
    "huge exponent": b'{"question":"x","min_relevance":1e999}',
    "not a number": b'{"question":"x","min_relevance":NaN}',
    "fraction": b'{"question":"x","k":1.5}',
    "negative": b'{"question":"x","token_budget":-1}',
    "text for a number": b'{"question":"x","k":"<b>1</b>x"}',
    "flag for a number": b'{"question":"x","k":true}',
    "list for text": b'{"question":["x"]}',
    "nothing asked": b"{}",
    "empty question": b'{"question":""}',
    "blank question": b'{"question":" \\n "}',
    "lone surrogate": b'{"question":"\\ud800"}',
    "surrogate as a key": b'{"question":"x","\\ud800":1}',
    "surrogate in a filter": b'{"question":"x","where":{"$\\udfff":1}}',
    "long question": b'{"question":"' + b"a " * 9_000 + b'"}',
    "unknown field": b'{"question":"x","__class__":"os"}',
    "unknown mode": b'{"question":"x","mode":"<script>"}',
    "recipe that is a path": b'{"question":"x","recipe":"../../etc/passwd"}',
    "recipe of nonsense": b'{"question":"x","recipe":{"taps":{"os.system":{}}}}',
    "recipe with an unknown tap": b'{"question":"x","recipe":{"taps":{"hidden.99":{}}}}',
    "control characters": b'{"question":"x","mode":"\\u001b[31m\\u202e"}',
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_makes_no_sense_is_refused_in_one_sentence(served, name, http):
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    reply = http.post(served + SEARCH, content=BODIES[name], headers=headers, timeout=20)
    assert reply.status_code in (400, 422)
    assert reply.headers["content-type"] == "application/json"
    error = reply.json()["error"]
    assert error["type"] in ("InputError", "CodebookError")
    assert len(error["message"]) < 500
    assert error["message"].isprintable()


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b""] * 20, id="says nothing"),
        pytest.param([b"G", b"E", b"T", b" "] * 8, id="header byte by byte"),
        pytest.param(
            [b"GET /health HTTP/1.1\r\n"] + [b"X: y\r\n"] * 20, id="header without an end"
        ),
        pytest.param(
            [request("POST", SEARCH, HOST, BEARER, JSON, "Content-Length: 900"), *[b"a"] * 20],
            id="body byte by byte",
        ),
    ],
)
def test_slow_clients_do_not_hold_connections(served, monkeypatch, parts):
    monkeypatch.setattr(PatientProtocol, "header_seconds", 0.5)
    began = time.monotonic()
    assert status_of(raw(served, *parts, wait=0.1)) in (0, 400, 408)
    assert time.monotonic() - began < 5


def test_a_client_that_reads_nothing_is_given_up(minilm_index, monkeypatch):
    monkeypatch.setattr(PatientProtocol, "stalled_seconds", 0.3)
    app = create_app({"docs": minilm_index})

    @app.get("/health/large")
    async def large() -> str:
        return "x" * 20_000_000

    with running(app) as url:
        address = urlsplit(url)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect((address.hostname, address.port))
            client.sendall(request("GET", "/health/large", HOST))
            time.sleep(2.0)
            client.settimeout(5)
            received = 0
            with suppress(ConnectionResetError):
                while piece := client.recv(1 << 20):
                    received += len(piece)
            assert received < 20_000_000


SCRIPT = "</script><script>alert(1)</script>\"'\u202e\x1b[31m&lt;"


def test_script_in_every_field_is_never_more_than_text():
    index = S3Index.create(host="minilm", device="cpu", dtype="float32")
    index.add(Document(SCRIPT, f"id{SCRIPT}", {"title": SCRIPT, SCRIPT: [SCRIPT]}))
    with (
        running(create_app({"docs": index})) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        found = client.post(SEARCH, json={"question": SCRIPT, "min_relevance": 0})
        [span, *_] = found.json()["spans"]
        assert (span["title"], span["document_id"]) == (SCRIPT, f"id{SCRIPT}")
        asked = {"question": SCRIPT, "span_id": span["id"]}
        replies = [
            found,
            client.get("/v1/indexes/docs/documents"),
            client.post("/v1/indexes/docs/explain", json=asked),
            client.post("/v1/indexes/docs/explain", json=asked | {"span_id": SCRIPT}),
            client.post("/v1/indexes/docs/explain", json=asked | {"recipe": SCRIPT}),
            client.post(SEARCH, json={"question": "x", "where": {f"${SCRIPT}": 1}}),
            client.post(SEARCH, json={"question": "x", SCRIPT: 1}),
            client.post("/v1/indexes/docs/delete", json={"ids": [SCRIPT]}),
            client.get("/v1/indexes/%3Cscript%3E/documents"),
            client.get("/%3Cscript%3E"),
        ]
        for reply in replies:
            # Browsers neither show this as a page nor guess that it is one.
            assert reply.headers["content-type"] == "application/json"
            assert reply.headers["x-content-type-options"] == "nosniff"
            json.loads(reply.content)
        assert [reply.status_code for reply in replies[:3]] == [200] * 3
        assert all(reply.status_code in (400, 404, 422) for reply in replies[3:])


def test_the_page_runs_nothing_but_its_own_files(served, http):
    reply = http.get(served)
    assert reply.status_code == 200
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_pages_of_an_allowed_origin_may_ask(minilm_index, http):
    origin = "https://app.example"
    app = create_app({"docs": minilm_index}, token=TOKEN, origins=[origin])
    with running(app) as url:
        preflight = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        allowed = http.options(url + SEARCH, headers=preflight)
        assert allowed.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in allowed.headers
        refused = http.options(url + SEARCH, headers=preflight | {"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in refused.headers
        asked = http.get(f"{url}/v1/indexes", headers={"Origin": origin})
        assert asked.status_code == 401  # still needs the token


def test_where_an_index_is_on_the_server_is_not_told(tmp_path, http):
    index = S3Index.create(tmp_path / "x.s3r", host="minilm", device="cpu", dtype="float32")
    with running(create_app({"docs": index})) as url:
        (tmp_path / "x.s3r" / "manifest.json").write_text("{")
        reply = http.get(f"{url}/v1/indexes/docs/documents")
        assert reply.status_code == 503
        assert str(tmp_path) not in reply.text


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b", "ü", "x" * 101, "a\n"])
def test_an_index_has_a_name_that_fits_into_a_path(minilm_index, name):
    with pytest.raises(InputError, match="cannot be called"):
        create_app({name: minilm_index})


@pytest.mark.parametrize("token", ["", " ", "a b", "a\nb", "ü"])
def test_a_token_that_no_header_can_carry_is_refused(minilm_index, token):
    with pytest.raises(InputError, match="visible ASCII"):
        create_app({"docs": minilm_index}, token=token)
