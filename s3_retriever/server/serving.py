"""Running the application: the socket, time-outs against slow clients, and a graceful stop."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from asyncio import BaseTransport, TimerHandle
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from s3_retriever.errors import InputError, ServerError
from s3_retriever.server.guard import LOOPBACK

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = logging.getLogger(__name__)

# Bytes of a request line and its header.
_HEADER_BYTES = 16 << 10
# Connections at once; uvicorn refuses others.
_CONNECTIONS = 512
# Seconds that requests have to end once the server is asked to stop.
STOP_SECONDS = 30


class PatientProtocol(H11Protocol):
    """HTTP that waits for slow clients, but not for ever; uvicorn would.

    Attributes:
        header_seconds: Seconds in which a request's header has to arrive once a connection is made
            or has sent the first byte of it.
        stalled_seconds: Seconds after which a connection is given up whose client reads nothing.
    """

    header_seconds = 10.0
    stalled_seconds = 30.0
    _header_due: TimerHandle | None = None
    _stalled: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Wait for a request."""
        super().connection_made(cast(Any, transport))
        # asyncio does so only for sockets that name TCP as their protocol, which listen() cannot.
        # Without it, the second part of a response waits up to 40 ms for the client's receipt.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_header()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        self._await_header()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE and self._header_due is not None:
            self._header_due.cancel()
            self._header_due = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        super().connection_lost(exc)
        for timer in (self._header_due, self._stalled):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        """Wait until the client reads."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.stalled_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also if its client has not read the last response."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self.stalled_seconds, self.transport.abort)

    def _await_header(self) -> None:
        if self._header_due is None and self.conn.their_state is h11.IDLE:
            self._header_due = self.loop.call_later(self.header_seconds, self.transport.abort)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def host_names(address: str, allowed: Collection[str]) -> Collection[str] | None:
    """The names that requests may use for a server; None for any.

    Args:
        address: What the server listens on.
        allowed: Names that are allowed besides those of this machine.
    """
    return LOOPBACK.union(allowed) if allowed or is_loopback(address) else None


def listen(address: str, port: int, *, token: str | None) -> socket.socket:
    """Make the socket of a server.

    Args:
        address: An address or name of this machine.
        port: Its port; 0 for any that is free.
        token: The server's token.

    Raises:
        InputError: Other machines can reach the address, and there is no token.
        ServerError: The address cannot be used.
    """
    if token is None and not is_loopback(address):
        raise InputError(
            f"Other machines can reach {address}, so the server needs a token: set one in "
            "S3R_TOKEN, for example from: openssl rand -hex 32"
        )
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((address, port), family=family)
    except OSError as error:
        raise ServerError(
            f"The server cannot listen on {address}, port {port} ({error.strerror}); choose "
            "another --address or --port."
        ) from error


def url_of(listener: socket.socket) -> str:
    """The URL of what a socket serves, without a path."""
    name, port = listener.getsockname()[:2]
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def server_for(app: ASGIApp) -> uvicorn.Server:
    """A uvicorn server with limits against slow and greedy clients."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=PatientProtocol,
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            # What a client says about its address is not believed.
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, and then until the requests at hand have ended.

    Returns:
        None, after either signal; a second SIGINT ends it at once.
    """
    # uvicorn raises the signal that stopped it again, for the handler that was there before.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server_for(app).run(sockets=[listener])
    except KeyboardInterrupt:
        logger.info("Stopped.")
    finally:
        signal.signal(signal.SIGTERM, before)
