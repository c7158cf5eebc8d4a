"""Progress bars that lock nothing unless someone can see them."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from tqdm.auto import tqdm


class Bar(Protocol):
    """A progress bar; tqdm's satisfies it."""

    n: Any
    total: Any

    def update(self, n: int, /) -> object:
        """Move the bar by `n`."""

    def set_postfix_str(self, s: str, /) -> object:
        """Show a text after the bar, at once."""

    def refresh(self) -> object:
        """Show a change of `total`."""


class _Hidden:
    def __init__(self) -> None:
        self.n, self.total = 0, 0

    def update(self, n: int, /) -> None:
        self.n += n

    def refresh(self) -> None:
        pass

    def set_postfix_str(self, s: str, /) -> None:
        pass


def progress_bar(shown: bool, **options: Any) -> AbstractContextManager[Bar]:
    """Make a bar that shows in a terminal or a notebook, and nothing elsewhere.

    Making a tqdm bar, even a disabled one, takes a lock that forked processes share. If one of
    them is killed while it holds the lock, the others wait for ever. If nobody can see it, as
    in the workers of a server, this function therefore makes no tqdm bar at all.

    Args:
        shown: Whether the caller wants a bar.
        options: Arguments of `tqdm`.
    """
    if not (shown and _someone_may_look()):
        return nullcontext(_Hidden())
    bar: AbstractContextManager[Bar] = tqdm(**options)
    return bar


def _someone_may_look() -> bool:
    in_notebook = any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)
    return in_notebook or (sys.stderr is not None and sys.stderr.isatty())
