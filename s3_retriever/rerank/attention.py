"""Watched attention: what some rows of a causal model look at, layer by layer, as it runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import sdpa_mask

from s3_retriever.errors import HostError
from s3_retriever.host import Host
from s3_retriever.host.device import is_out_of_memory
from s3_retriever.host.model import cache_argument

_WATCHED = "s3_watched"

# Takes the number of a layer, and the attention of its heads, float32 [heads, rows, tokens].
Watcher = Callable[[int, Tensor], None]
_WATCHER: ContextVar[Watcher] = ContextVar("watcher")


class _AllSeen(Exception):  # noqa: N818 - not an error: it ends a forward pass early
    """Raised inside the host's forward pass after the last layer that is watched."""


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    **_options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, of a few rows, which shows the watcher its weights."""
    del dropout
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    # The query heads that share a key head follow one another.
    batch, _, rows, size = query.shape
    grouped = query.float().reshape(batch, key.shape[1], -1, rows, size)
    logits = grouped @ key.float()[:, :, None].transpose(-1, -2) * scaling
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    logits = _masked(logits, attention_mask)
    weights = logits.softmax(-1)
    output = (weights @ value.float()[:, :, None]).flatten(1, 2)
    _WATCHER.get()(int(module.layer_idx), weights[0].flatten(0, 1))
    return output.transpose(1, 2).to(query.dtype).contiguous(), None


def _masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Hide what a row may not look at [batch, key heads, group, rows, tokens]."""
    if mask is None:  # rows see what stands before them
        rows, tokens = logits.shape[-2:]
        mask = logits.new_ones(rows, tokens, dtype=torch.bool).tril(tokens - rows)[None, None]
    mask = mask[:, :, None, :, : logits.shape[-1]]
    return logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask


AttentionInterface.register(_WATCHED, attend)
AttentionMaskInterface.register(_WATCHED, sdpa_mask)


class Reading:
    """Text that a causal host has read, and that several continuations may look at.

    Args:
        host: The host.
        ids: Token ids of the text, at least one.
        layers: How many layers are read.
    """

    @torch.inference_mode()
    def __init__(self, host: Host, ids: Sequence[int], layers: int) -> None:
        host.check_process()
        self._host = host
        self._layers = layers
        self._cache = DynamicCache(config=host.model.config)
        with host.lock, _stopping(host, layers):
            self._run(ids, self._cache)

    @torch.inference_mode()
    def look(self, ids: Sequence[int], watcher: Watcher) -> None:
        """Let a continuation look at the text.

        Args:
            ids: Token ids of the continuation, which the next one does not see.
            watcher: Gets the attention of its tokens to the text and to each other, float32
                [heads, continuation, tokens], of the last tokens if a layer sees no more.

        Raises:
            HostError: The model does not say what it looks at.
        """
        seen: list[int] = []

        def watch(layer: int, weights: Tensor) -> None:
            if layer < self._layers:
                seen.append(layer)
                watcher(layer, weights)

        model: Any = self._host.model
        with self._host.lock, _stopping(self._host, self._layers):
            usual = model.config._attn_implementation
            token = _WATCHER.set(watch)
            try:
                model.set_attn_implementation(_WATCHED)
                self._run(ids, copy.deepcopy(self._cache))
            finally:
                model.set_attn_implementation(usual)
                _WATCHER.reset(token)
        if len(seen) < self._layers:
            raise HostError(
                f"Models of type {model.config.model_type!r} do not say what they look at, so host "
                f"{self._host.name!r} cannot rerank; choose another."
            )

    def _run(self, ids: Sequence[int], cache: DynamicCache) -> None:
        model: Any = self._host.model
        tokens = torch.tensor([list(ids)], device=self._host.device)
        try:
            model(input_ids=tokens, use_cache=True, **{cache_argument(model): cache})
        except _AllSeen:
            pass
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise HostError(
                f"The device has no memory to read {len(ids)} tokens at once; load the host that "
                "reranks with a smaller window=, or on another device."
            ) from error


@contextmanager
def _stopping(host: Host, layers: int) -> Iterator[None]:
    """End forward passes after some layers."""

    def stop(*_: Any) -> None:
        raise _AllSeen

    handle = host.blocks[layers - 1].register_forward_hook(stop)
    host.hooks.append(handle)
    try:
        yield
    finally:
        handle.remove()
        host.hooks.remove(handle)
