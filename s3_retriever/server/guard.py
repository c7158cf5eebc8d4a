"""Who may ask, and how much: checked of every request before anything reads it."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from anyio import fail_after
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s3_retriever.errors import S3Error, brief
from s3_retriever.types import check_count, check_positive

# Names under which a machine calls itself. A page elsewhere can give its own name this machine's
# address (DNS rebinding), but its requests still carry that name.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Clients whose rates are remembered.
_CLIENTS = 10_000


@dataclass(frozen=True)
class Limits:
    """What clients may use of a server.

    Attributes:
        body_bytes: Most bytes of the body of a request.
        bodies_bytes: Most bytes of all bodies that are held at once.
        body_seconds: Seconds in which a body has to arrive.
        requests: Most requests at once; others are refused until one ends.
        rate: Most requests per second of a client's address, on average over ten seconds; None for
            no limit.

    Raises:
        InputError: A number is not above zero.
    """

    body_bytes: int = 8 << 20
    bodies_bytes: int = 64 << 20
    body_seconds: float = 30.0
    requests: int = 128
    rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("body_bytes", "bodies_bytes", "requests"):
            check_count(getattr(self, name), name)
        check_positive(self.body_seconds, "body_seconds")
        if self.rate is not None:
            check_positive(self.rate, "rate")


_SOON = {"Retry-After": "1"}
_BURST_SECONDS = 10.0


class _Gone(Exception):  # noqa: N818 - the client went away, nothing went wrong here
    pass


class _Refusal(Exception):  # noqa: N818 - the answer to a request, nothing went wrong here
    def __init__(self, status: int, kind: str, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.kind, self.sentence = status, kind, sentence
        # What is left of the body is not read.
        self.headers = {"Connection": "close"} | headers


def error_response(
    status: int, kind: str, message: object, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error as every response has it; what acts on a terminal is escaped."""
    body = {"error": {"type": kind, "message": str(S3Error(message))}}
    return JSONResponse(body, status, headers=headers)


class Guard:
    """ASGI middleware: checks host, origin, token, rate and size, and counts requests.

    Args:
        app: What answers the requests that pass.
        token: What requests have to send as a bearer token; None for no check.
        hosts: Names of this server that the header `Host` may have; None for any.
        limits: What clients may use.
        origins: Other origins whose pages may send requests; `*` for all.
        public: Paths that need no token.
        observe: Called after every request with its method, the pattern of its path, the status of
            its response and the seconds that it took.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        hosts: Collection[str] | None,
        limits: Limits,
        origins: Collection[str] = (),
        public: Collection[str] = (),
        observe: Callable[[str, str, int, float], None] = lambda *_: None,
    ) -> None:
        self._app = app
        self._observe = observe
        self._public = public
        self._token = None if token is None else token.encode()
        self._hosts = None if hosts is None else {name.lower() for name in hosts}
        self._origins = origins
        self._limits = limits
        self._rates = _Rates(limits.rate)
        self._requests = 0
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Text of documents stays text, whatever it looks like.
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        self._requests += 1
        try:
            await self._answer(scope, receive, watched)
        except _Refusal as refusal:
            response = error_response(
                refusal.status, refusal.kind, refusal.sentence, refusal.headers
            )
            await response(scope, receive, watched)
        except _Gone:
            status = 499  # nobody is there to be told
        finally:
            self._requests -= 1
            route = getattr(scope.get("route"), "path", "other")
            self._observe(scope["method"], route, status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_host(scope)
        self._check_origin(scope)
        self._check_rate(scope)
        self._check_token(scope)
        if self._requests > self._limits.requests:
            raise _Refusal(503, "ServerError", "The server is busy; try again.", **_SOON)
        body = bytearray()
        try:
            await self._read(scope, receive, body)
            await self._app(scope, _replay(bytes(body), receive), send)
        finally:
            self._bytes -= len(body)

    def _check_host(self, scope: Scope) -> None:
        if self._hosts is not None:
            host = _only(scope, b"host") or ""
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name.lower() not in self._hosts:
                raise _Refusal(
                    421,
                    "InputError",
                    f"This server is not called {brief(name)}; name it with --allow-host.",
                )

    def _check_origin(self, scope: Scope) -> None:
        """Refuse what a page of another site makes a browser send."""
        origin = _only(scope, b"origin")
        if origin is None:
            cross = _only(scope, b"sec-fetch-site") == "cross-site"
            foreign = cross and scope["path"] not in self._public
        else:
            own = origin.partition("://")[2] == _only(scope, b"host")
            foreign = not (own or origin in self._origins or "*" in self._origins)
        if foreign:
            raise _Refusal(
                403,
                "InputError",
                "Pages of other sites may not use this server; allow one with --allow-origin.",
            )

    def _check_token(self, scope: Scope) -> None:
        if self._token is None or scope["path"] in self._public:
            return
        scheme, _, sent = (_only(scope, b"authorization") or "").partition(" ")
        # Compared in constant time, which says nothing about how much of it is right.
        right = hmac.compare_digest(sent.strip(" ").encode("latin-1"), self._token)
        if scheme.lower() != "bearer" or not right:
            raise _Refusal(
                401,
                "InputError",
                "This server needs its token: send the header Authorization: Bearer TOKEN.",
                **{"WWW-Authenticate": "Bearer"},
            )

    def _check_rate(self, scope: Scope) -> None:
        client = scope.get("client") or ("", 0)
        if not self._rates.allows(str(client[0]), time.monotonic()):
            raise _Refusal(429, "ServerError", "These are too many requests; slow down.", **_SOON)

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> None:
        """Read the body of a request, as much as is allowed and no longer."""
        declared = _only(scope, b"content-length") or "0"
        self._check_size(int(declared) if declared.isdecimal() else 0, 0)
        try:
            with fail_after(self._limits.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    piece = message.get("body", b"")
                    self._check_size(len(body) + len(piece), len(piece))
                    body += piece
                    self._bytes += len(piece)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise _Refusal(
                408, "InputError", "The body of the request took too long to arrive."
            ) from None

    def _check_size(self, size: int, new: int) -> None:
        if size > self._limits.body_bytes:
            raise _Refusal(
                413,
                "InputError",
                f"The body of a request has at most {self._limits.body_bytes:,} bytes; send less "
                "at once.",
            )
        if self._bytes + new > self._limits.bodies_bytes:
            raise _Refusal(503, "ServerError", "The server is busy; try again.", **_SOON)


class _Rates:
    """Requests of each client: a bucket that holds ten seconds' worth and fills steadily."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        # When each client's bucket would be full, the client seen last at the end.
        self._full: OrderedDict[str, float] = OrderedDict()

    def allows(self, client: str, now: float) -> bool:
        if self._rate is None:
            return True
        full = max(self._full.pop(client, now), now) + 1 / self._rate
        allowed = full - now <= max(_BURST_SECONDS, 1 / self._rate)
        self._full[client] = full if allowed else full - 1 / self._rate
        if len(self._full) > _CLIENTS:
            self._full.popitem(last=False)
        return allowed


def _only(scope: Scope, name: bytes) -> str | None:
    """The value of a header, None without it; refuses a request that has it twice.

    Whatever is between client and server may have looked at the other one.
    """
    values = [value for key, value in scope["headers"] if key == name]
    if len(values) > 1:
        raise _Refusal(400, "InputError", f"The header {name.decode()} may occur only once.")
    return values[0].decode("latin-1") if values else None


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand out a body that is read already, and after it whatever comes."""
    pending = [body]

    async def replayed() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replayed
