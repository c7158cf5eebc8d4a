"""Lines: connections to a worker, on which the rounds of a search go.

Ray starts workers, starts them again and knows where they are; a search then talks to them itself.
It makes about nine rounds to all of its workers, which would take longer than the work itself if
each were a call through Ray.
"""

from __future__ import annotations

import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import NamedTuple

import ray

# Seconds that whoever connects has to show the secret.
_PROMPT = 10.0
_SECRET_BYTES = 32
# A message follows its length.
_LENGTH = struct.Struct("!Q")
# Connections that may wait to be taken.
_BACKLOG = 128
# Seconds until an idle line is tried.
_IDLE = 60
# Seconds until the next connection is taken if one could not be.
_PAUSE = 0.1


class Line:
    """A connection on which messages go.

    Args:
        connected: A socket.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A machine that is gone is noticed, and what is between two machines forgets no idle line.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE)
        self._socket = connected
        self._file = connected.makefile("rb")

    def send(self, message: bytes, seconds: float | None = None) -> None:
        """Send a message.

        Raises:
            OSError: The other end is gone, or does not take it within some seconds.
        """
        self._socket.settimeout(seconds)
        self._socket.sendall(_LENGTH.pack(len(message)) + message)

    def receive(self, seconds: float | None = None) -> bytes:
        """The next message.

        Raises:
            EOFError: The other end is gone.
            OSError: The same, or no message came within some seconds.
        """
        self._socket.settimeout(seconds)
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        return self._exactly(length)

    def show(self, secret: bytes) -> None:
        """Begin as who connected."""
        self._socket.sendall(secret)

    def admits(self, secret: bytes) -> bool:
        """Begin as who was connected to: whether the other end shows the secret."""
        self._socket.settimeout(_PROMPT)
        return secrets.compare_digest(self._exactly(len(secret)), secret)

    def close(self) -> None:
        """Close it; may be repeated."""
        self._file.close()
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) < size:
            raise EOFError
        return content


class Place(NamedTuple):
    """Where a worker takes lines.

    Attributes:
        host: Its address.
        port: The port that it listens on.
        secret: Shown by those it talks to; Ray hands it on.
    """

    host: str
    port: int
    secret: bytes


def listen(serve: Callable[[Line], None]) -> Place:
    """Serve every line that shows the secret, in a thread of its own, until the process ends.

    Args:
        serve: Called with each line, which is closed afterwards.

    Raises:
        OSError: There is no port to listen on.
    """
    host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    secret = secrets.token_bytes(_SECRET_BYTES)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, 0), family=family, backlog=_BACKLOG)

    def take(line: Line) -> None:
        with closing(line), suppress(EOFError, OSError):
            if line.admits(secret):
                serve(line)

    def accept() -> None:
        while True:
            try:
                line = Line(listening.accept()[0])
            except OSError:  # too many files are open, say: what waits is taken later
                time.sleep(_PAUSE)
                continue
            threading.Thread(target=take, args=(line,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return Place(host, listening.getsockname()[1], secret)


def connect(place: Place, seconds: float) -> Line:
    """A line to a worker, which has some seconds to take it.

    Raises:
        OSError: Nobody listens there.
    """
    line = Line(socket.create_connection((place.host, place.port), timeout=seconds))
    line.show(place.secret)
    return line
