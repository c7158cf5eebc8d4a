"""Progress bars, which lock nothing where they are not shown."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from tqdm.auto import tqdm


class Bar(Protocol):
    """Shows how far the work is; the names are those of tqdm."""

    n: Any
    total: Any

    def update(self, n: int, /) -> object:
        """Go on by `n`."""

    def refresh(self) -> object:
        """Show a change of `total`."""


class _Hidden:
    """A bar that nobody sees."""

    def __init__(self) -> None:
        self.n, self.total = 0, 0

    def update(self, n: int, /) -> None:
        self.n += n

    def refresh(self) -> None:
        pass


def progress_bar(shown: bool, **options: Any) -> AbstractContextManager[Bar]:
    """A bar, in a terminal or a notebook; elsewhere nothing.

    Making a bar of tqdm, a disabled one too, takes a lock that forked processes share. If one of
    them is killed while it holds the lock, the others wait for it for good. Where no one looks,
    as in the workers of a server, there is none, therefore.

    Args:
        shown: Whether it is wanted.
        options: For `tqdm`.
    """
    if not (shown and _someone_may_look()):
        return nullcontext(_Hidden())
    bar: AbstractContextManager[Bar] = tqdm(**options)
    return bar


def _someone_may_look() -> bool:
    in_notebook = any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)
    return in_notebook or (sys.stderr is not None and sys.stderr.isatty())
