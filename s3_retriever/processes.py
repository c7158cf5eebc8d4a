"""What keeps objects usable in a forked process.

A fork copies memory but only the calling thread: locks that other threads held stay locked in the
child for ever, and files that they were writing are still shared with the parent.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from types import MethodType

_RENEWALS: list[Callable[[], Callable[[], None] | None]] = []


def renew_after_fork(renew: Callable[[], None]) -> None:
    """Call a function in every forked child, before anything else runs there.

    Args:
        renew: A function, or a method of an object, which is not kept alive by this.
    """
    if isinstance(renew, MethodType):
        method: weakref.WeakMethod[Callable[[], None]] = weakref.WeakMethod(renew, _forget)
        _RENEWALS.append(method)
    else:
        _RENEWALS.append(lambda: renew)


def _forget(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    _RENEWALS.remove(method)


def _renew_all() -> None:
    for reference in _RENEWALS:
        if renew := reference():
            renew()


_forking = threading.local()


def _wait_for_compiler() -> None:
    """Let numba finish what other threads compile, which the child could not."""
    module = sys.modules.get("numba.core.compiler_lock")
    _forking.compiler = getattr(module, "global_compiler_lock", None)
    if _forking.compiler:
        _forking.compiler.acquire()


def _free_compiler() -> None:
    if _forking.compiler:
        _forking.compiler.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_wait_for_compiler,
        after_in_parent=_free_compiler,
        after_in_child=_free_compiler,
    )
    os.register_at_fork(after_in_child=_renew_all)
