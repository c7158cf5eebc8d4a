"""Taps: reading the activations at some sites of the host while it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from s3_retriever.errors import InputError
from s3_retriever.features import Sentence
from s3_retriever.host import Host, Window
from s3_retriever.host.device import to_device
from s3_retriever.types import shown

Site = Literal["key", "query", "hidden"]
_TAP = re.compile(r"(key|query|hidden)\.([0-9]{1,4})")


@dataclass(frozen=True, slots=True, order=True)
class Tap:
    """An activation site at one layer, written `key.5`.

    Attributes:
        site: `key` or `query`: the attention projections of all heads, flattened, before the
            rotary embedding and after the norm of keys and queries, if the family has one.
            `hidden`: the layer's output, that is the residual stream after it.
        layer: Counted from 0.
    """

    site: Site
    layer: int

    @classmethod
    def parse(cls, text: str) -> Tap:
        """Read a tap's name, such as `key.5`.

        Raises:
            InputError: It does not name a tap.
        """
        match = _TAP.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InputError(
                f"Unknown tap {shown(text)}: write a site ({', '.join(get_args(Site))}), a dot "
                "and a layer, e.g. key.5."
            )
        return cls(match[1], int(match[2]))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.site}.{self.layer}"

    def _source(self, host: Host) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
        """Find the module to read, and the function that turns its output into activations."""
        if self.layer >= len(host.blocks):
            raise InputError(
                f"There is no tap {self}: host {host.name!r} has layers 0 to "
                f"{len(host.blocks) - 1}."
            )
        block = host.blocks[self.layer]
        if self.site == "hidden":
            return block, lambda output: output
        return host.family.projection(self.site, block, host.model.config)


class _AllTapsRead(Exception):  # noqa: N818 - not an error: it ends a forward pass early
    """Raised inside the host's forward pass after the last tap has been read."""


def read(host: Host, taps: Sequence[Tap], batch: Sequence[Window]) -> dict[Tap, Tensor]:
    """Run a batch of windows and read what flows through some taps.

    The forward pass ends as soon as the last tap is read. Any number of threads may read: runs of
    the same host exclude each other.

    Args:
        host: The model.
        taps: Sites to read, at least one.
        batch: Windows of the host.

    Returns:
        For each tap the activations [tokens, width] of the windows' kept tokens, windows one
        after another, in the host's dtype on its device.

    Raises:
        InputError: A tap names a layer that the host does not have.
    """
    with host.lock, _hooks(host, taps) as seen:
        with suppress(_AllTapsRead):
            host.forward(batch)
        rows = _kept_rows(batch, next(iter(seen.values())))
        return {
            tap: seen[tap].flatten(0, 1).index_select(0, to_device(rows, seen[tap].device))
            for tap in taps
        }


def read_each(host: Host, taps: Sequence[Tap], batch: Sequence[Window]) -> list[dict[Tap, Tensor]]:
    """Read a batch of windows as `read` does, and return the activations of each window."""
    seen = read(host, taps, batch)
    sizes = [len(window.starts) for window in batch]
    by_window = zip(*(torch.split(seen[tap], sizes) for tap in taps), strict=True)
    return [dict(zip(taps, activations, strict=True)) for activations in by_window]


@contextmanager
def _hooks(host: Host, taps: Sequence[Tap]) -> Iterator[dict[Tap, Tensor]]:
    """Fill a dictionary with what the taps see; an error removes the hooks too."""
    seen: dict[Tap, Tensor] = {}

    def hook_for(tap: Tap, finish: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen[tap] = finish(output[0] if isinstance(output, tuple) else output)
            if len(seen) == len(sources):
                raise _AllTapsRead

        return hook

    sources = {tap: tap._source(host) for tap in taps}
    try:
        for tap, (module, finish) in sources.items():
            host.hooks.append(module.register_forward_hook(hook_for(tap, finish)))
        yield seen
    finally:
        for handle in host.hooks:
            handle.remove()
        host.hooks.clear()


def group_queries(queries: Tensor, host: Host) -> Tensor:
    """Average the query heads that share a key head, which gives queries the width of keys.

    Args:
        queries: [tokens, query heads * head size].
        host: The host that they were read from.

    Returns:
        [tokens, key heads * head size].
    """
    heads = host.family.heads(host.model.config)
    grouped = queries.view(len(queries), heads.keys, heads.queries // heads.keys, heads.size)
    return grouped.mean(2).flatten(1)


def _kept_rows(batch: Sequence[Window], activations: Tensor) -> Tensor:
    """Find the rows of the flattened [windows * padded length] that belong to kept tokens."""
    length = activations.shape[1]
    rows = [
        torch.arange(i * length + window.keep.start, i * length + window.keep.stop)
        for i, window in enumerate(batch)
    ]
    return torch.cat(rows)


class SentencePooler:
    """Averages the states of tokens sentence by sentence, as they stream in.

    It holds the states of the unfinished sentence only.
    """

    def __init__(self) -> None:
        self._states: list[Tensor] = []

    def push(self, states: Tensor, sentences: Sequence[Sentence]) -> Tensor:
        """Take the next tokens; documents follow one another.

        Args:
            states: Their states [n, width], on any device.
            sentences: The m sentences that are complete with them.

        Returns:
            Mean states of these sentences, float32 [m, width].
        """
        self._states.append(states.float())
        if not sentences:
            return states[:0].float()
        lengths = [sentence.n_tokens for sentence in sentences]
        complete, rest = torch.cat(self._states).tensor_split([sum(lengths)])
        self._states = [rest]
        return torch.stack([part.mean(0) for part in torch.split(complete, lengths)])
