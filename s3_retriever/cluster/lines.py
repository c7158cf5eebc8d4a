"""Lines: connections to a worker, on which the rounds of a search go.

Ray starts workers, starts them again and knows where they are; a search then talks to them itself.
It makes about eight rounds to all of its workers, which would take longer than the work itself if
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
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NamedTuple

import ray

# Seconds that whoever connects has to show the secret.
_PROMPT = 10.0
_SECRET_BYTES = 32
# Connections that may wait to be taken.
_BACKLOG = 128
# Seconds without a byte of a message that was begun until it is given up, as C's timeval.
_STALLED = struct.pack("ll", 30, 0)
# Seconds until an idle line is tried.
_IDLE = 60
# Seconds until the next is taken if one could not be.
_PAUSE = 0.1


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


def listen(serve: Callable[[Connection], None]) -> Place:
    """Serve every connection that shows the secret, in a thread of its own, until the process ends.

    Args:
        serve: Called with each connection, which is closed afterwards.

    Raises:
        OSError: There is no port to listen on.
    """
    host, secret = ray.util.get_node_ip_address(), secrets.token_bytes(_SECRET_BYTES)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, 0), family=family, backlog=_BACKLOG)

    def take(line: Connection) -> None:
        with line, suppress(EOFError, OSError):
            if line.poll(_PROMPT) and secrets.compare_digest(
                line.recv_bytes(_SECRET_BYTES), secret
            ):
                serve(line)

    def accept() -> None:
        while True:
            try:
                taken, _ = listening.accept()
            except OSError:  # too many files are open: what waits is taken later
                time.sleep(_PAUSE)
                continue
            threading.Thread(target=take, args=(_line(taken),), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return Place(host, listening.getsockname()[1], secret)


def connect(place: Place, seconds: float) -> Connection:
    """A line to a worker.

    Args:
        place: Where the worker listens.
        seconds: How long to wait for it.

    Raises:
        OSError: Nobody listens there.
    """
    made = socket.create_connection((place.host, place.port), timeout=seconds)
    made.setblocking(True)
    if sys.platform != "win32":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _STALLED)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _STALLED)
    line = _line(made)
    line.send_bytes(place.secret)
    return line


def _line(connected: socket.socket) -> Connection:
    # A message may be sent in two pieces, of which the second shall not wait for an answer.
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A machine that is gone is noticed, and what is between two machines forgets no idle line.
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE)
    return Connection(connected.detach())
