"""Giving freed memory back to the system during long scans."""

from __future__ import annotations

import ctypes
import sys


def trim_heap() -> None:
    """Return what the C library has freed but kept.

    glibc keeps the room of freed tensors in a heap that small objects fragment, so that a scan
    grows with the length of its input although nothing is held. Elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
