"""Taps: reading the activations at some sites of the host while it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from s3_retriever.errors import InputError
from s3_retriever.features import Sentence
from s3_retriever.host import Host, Window
from s3_retriever.host.device import to_device
from s3_retriever.host.sinks import find_sinks
from s3_retriever.types import shown

Site = Literal["key", "query", "hidden"]
_TAP = re.compile(r"(hidden|key|query)\.([0-9]{1,4})(?:\.([0-9]{1,4}))?")
# In the place of a head's number.
ALL_HEADS = -1


@dataclass(frozen=True, slots=True, order=True)
class Tap:
    """An activation site at one layer, written `key.5`; of a single key head, `key.5.1`.

    Attributes:
        site: `key` or `query`: the attention projections of all heads, flattened, before the
            rotary embedding and after the norm of keys and queries, if the family has one.
            `hidden`: the layer's output, that is the residual stream after it.
        layer: Counted from 0.
        head: Number of a key head, counted from 0; a query tap then has the query heads that share
            it. `ALL_HEADS` for all.
    """

    site: Site
    layer: int
    head: int = ALL_HEADS

    @classmethod
    def parse(cls, text: str) -> Tap:
        """Read a tap's name, such as `key.5`.

        Raises:
            InputError: It does not name a tap.
        """
        match = _TAP.fullmatch(text) if isinstance(text, str) else None
        if match is None or (match[1] == "hidden" and match[3]):
            raise InputError(
                f"Unknown tap {shown(text)}: write a site ({', '.join(get_args(Site))}), a dot "
                "and a layer, e.g. key.5; or key.5.1 for a single key head."
            )
        head = ALL_HEADS if match[3] is None else int(match[3])
        return cls(match[1], int(match[2]), head)  # type: ignore[arg-type]

    def __str__(self) -> str:
        head = "" if self.head == ALL_HEADS else f".{self.head}"
        return f"{self.site}.{self.layer}{head}"

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
        module, finish = host.family.projection(self.site, block, host.model.config)
        if self.head == ALL_HEADS:
            return module, finish
        heads = host.family.heads(host.model.config)
        if self.head >= heads.keys:
            raise InputError(
                f"There is no tap {self}: host {host.name!r} has key heads 0 to {heads.keys - 1}."
            )
        width = heads.size * (heads.queries_per_key if self.site == "query" else 1)
        start = self.head * width
        return module, lambda output: finish(output)[..., start : start + width]


_HEAD = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """An attention head of one layer, written `17.5`: a query head or a key head.

    Attributes:
        layer: Counted from 0.
        number: Counted from 0 within the layer.
    """

    layer: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read a head's name, such as `17.5`.

        Raises:
            InputError: It does not name a head.
        """
        match = _HEAD.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InputError(
                f"Unknown head {shown(text)}: write a layer, a dot and a number, e.g. 17.5."
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.layer}.{self.number}"

    def key_head(self, queries_per_key: int) -> Head:
        """The key head that this query head looks at; several query heads may share one."""
        return Head(self.layer, self.number // queries_per_key)

    def of(self, values: Tensor, size: int) -> Tensor:
        """Cut this head out of the keys or queries [n, heads * size] of its layer: [n, size]."""
        return values[:, self.number * size : (self.number + 1) * size]


class _AllTapsRead(Exception):  # noqa: N818 - not an error: it ends a forward pass early
    """Raised inside the host's forward pass after the last tap has been read."""


class Activations(NamedTuple):
    """What a tap reads of some windows' kept tokens.

    Attributes:
        values: [tokens, width], windows one after another, in the host's dtype on its device.
        sinks: Which of the tokens are attention sinks at this layer, bool [tokens].
    """

    values: Tensor
    sinks: Tensor


def read_marked(host: Host, taps: Sequence[Tap], batch: Sequence[Window]) -> dict[Tap, Activations]:
    """Run a batch of windows, read what flows through some taps, and mark attention sinks.

    The forward pass ends as soon as the last tap is read. Any number of threads may read: runs of
    the same host exclude each other.

    Args:
        host: The model.
        taps: Sites to read, at least one.
        batch: Windows of the host.

    Raises:
        InputError: A tap names a layer that the host does not have.
    """
    with host.lock, _hooks(host, taps, batch) as (seen, sinks):
        with suppress(_AllTapsRead):
            host.forward(batch)
        rows = _kept_rows(batch, next(iter(seen.values())))

        def kept(padded: Tensor) -> Tensor:
            return padded.flatten(0, 1).index_select(0, to_device(rows, padded.device))

        return {tap: Activations(kept(seen[tap]), kept(sinks[tap])) for tap in taps}


def read(host: Host, taps: Sequence[Tap], batch: Sequence[Window]) -> dict[Tap, Tensor]:
    """Read a batch of windows as `read_marked` does, and return the values at each tap alone."""
    return {tap: seen.values for tap, seen in read_marked(host, taps, batch).items()}


def read_each(
    host: Host, taps: Sequence[Tap], batch: Sequence[Window]
) -> list[dict[Tap, Activations]]:
    """Read a batch of windows as `read_marked` does, and return what each window has."""
    seen = read_marked(host, taps, batch)
    sizes = [len(window.starts) for window in batch]
    by_tap = [map(Activations, *(torch.split(part, sizes) for part in seen[tap])) for tap in taps]
    return [dict(zip(taps, parts, strict=True)) for parts in zip(*by_tap, strict=True)]


@contextmanager
def _hooks(
    host: Host, taps: Sequence[Tap], batch: Sequence[Window]
) -> Iterator[tuple[dict[Tap, Tensor], dict[Tap, Tensor]]]:
    """Fill two dictionaries with what the taps see and with their sinks, both with padding.

    Sinks show in the residual stream: that which a layer takes in for its keys and queries, and
    that which it gives out for hidden states. An error removes the hooks too.
    """
    seen: dict[Tap, Tensor] = {}
    sinks: dict[Tap, Tensor] = {}
    lengths = torch.tensor([len(window.ids) for window in batch])

    def hook_for(tap: Tap, finish: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen[tap] = finish(output[0] if isinstance(output, tuple) else output)
            if tap.site == "hidden":
                sinks[tap] = find_sinks(seen[tap], lengths)
            if len(seen) == len(sources):
                raise _AllTapsRead

        return hook

    def mark(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
            states = inputs[0] if inputs else options["hidden_states"]
            found = find_sinks(states, lengths)
            sinks.update({tap: found for tap in projected if tap.layer == layer})

        return hook

    sources = {tap: tap._source(host) for tap in taps}
    projected = [tap for tap in sources if tap.site != "hidden"]
    try:
        for layer in {tap.layer for tap in projected}:
            block = host.blocks[layer]
            host.hooks.append(block.register_forward_pre_hook(mark(layer), with_kwargs=True))
        for tap, (module, finish) in sources.items():
            host.hooks.append(module.register_forward_hook(hook_for(tap, finish)))
        yield seen, sinks
    finally:
        for handle in host.hooks:
            handle.remove()
        host.hooks.clear()


def group_queries(queries: Tensor, host: Host) -> Tensor:
    """Average the query heads that share a key head, which gives queries the width of keys.

    Args:
        queries: [tokens, query heads * head size]; of all key heads, or of a single one.
        host: The host that they were read from.

    Returns:
        [tokens, key heads * head size].
    """
    heads = host.family.heads(host.model.config)
    groups = queries.shape[1] // (heads.queries_per_key * heads.size)
    grouped = queries.view(len(queries), groups, heads.queries_per_key, heads.size)
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
        self._weights: list[Tensor] = []

    def push(
        self, states: Tensor, sentences: Sequence[Sentence], weights: Tensor | None = None
    ) -> Tensor:
        """Take the next tokens; documents follow one another.

        Args:
            states: Their states [n, width], on any device.
            sentences: The m sentences that are complete with them.
            weights: Weight of each token in the mean [n], 0 for attention sinks; 1 by default.

        Returns:
            Mean states of these sentences, float32 [m, width]; NaN if all weights are 0.
        """
        self._states.append(states.float())
        self._weights.append(states.new_ones(len(states)) if weights is None else weights.float())
        if not sentences:
            return states[:0].float()
        lengths = [sentence.n_tokens for sentence in sentences]
        complete, rest = torch.cat(self._states).tensor_split([sum(lengths)])
        weighty, rest_weights = torch.cat(self._weights).tensor_split([sum(lengths)])
        self._states, self._weights = [rest], [rest_weights]
        parts = zip(torch.split(complete, lengths), torch.split(weighty, lengths), strict=True)
        return torch.stack([mean_state(part, weight) for part, weight in parts])


def mean_state(states: Tensor, weights: Tensor) -> Tensor:
    """Average states [n, width], weighted by [n]; float32 [width], NaN if all weights are 0."""
    weights = weights.float()
    return (states.float() * weights[:, None]).sum(0) / weights.sum()
