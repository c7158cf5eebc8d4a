"""What a host's cache holds: which hosts have one that can be encoded, and how they rotate keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from s3_retriever.document import Document
from s3_retriever.errors import HostError
from s3_retriever.host import Host, Window
from s3_retriever.host.sinks import find_sinks
from s3_retriever.host.taps import Tap, read
from s3_retriever.kv.rotary import Rotary
from s3_retriever.sae.training import metric_of

# Rotations whose frequencies depend on the length of the text.
_CHANGING = ("dynamic", "longrope")
# Tokens that are read to see how a host rotates its keys.
_PROBE_TOKENS = 32
# Distances at which each query is taken to look at keys.
_DISTANCES = 4
# Squared error over the squared norm of keys that a rotation restores, in bfloat16 too.
_RESTORED = 1e-3


@dataclass(frozen=True, slots=True)
class CachedWindow:
    """What a host caches of one window.

    Attributes:
        keys: Of each layer, rotated [1, key heads, tokens, head size], in the host's dtype.
        values: Of each layer, shaped alike.
        sinks: At each layer, which tokens are attention sinks, bool [tokens].
    """

    keys: list[Tensor]
    values: list[Tensor]
    sinks: list[Tensor]


@torch.inference_mode()
def read_cache(host: Host, ids: Sequence[int]) -> CachedWindow:
    """Run a host over one window of token ids, and take its keys and values."""
    host.check_process()
    with host.lock:
        output = host.model(
            input_ids=torch.tensor([list(ids)], device=host.device),
            use_cache=True,
            output_hidden_states=True,
        )
    # Older releases of transformers call it past_key_values.
    cache = output["cache"] if "cache" in output else output["past_key_values"]
    lengths = torch.tensor([len(ids)])
    # The state that a layer takes in is the one from which it makes keys and values.
    states = output.hidden_states[: len(cache.layers)]
    return CachedWindow(
        [layer.keys for layer in cache.layers],
        [layer.values for layer in cache.layers],
        [find_sinks(state, lengths)[0] for state in states],
    )


def query_metrics(host: Host, ids: Sequence[int], rotations: Sequence[Rotary]) -> list[Tensor]:
    """Measure, for the keys of each layer, how much errors in each direction change scores.

    Args:
        host: The model.
        ids: A window of text, whose queries are read.
        rotations: How each layer rotates its keys.

    Returns:
        For each layer, float32 [key heads, head size, head size]: the root of the sum of the
        identity and the second moment of the queries that look at a key head, turned back by
        distances up to the window's length and scaled to a mean square of 1.
    """
    taps = [Tap("query", layer) for layer in range(len(rotations))]
    queries = read(host, taps, [_window(ids)])
    heads = host.family.heads(host.model.config)
    generator = torch.Generator().manual_seed(0)
    metrics = []
    for tap, rotary in zip(taps, rotations, strict=True):
        # [key heads, tokens and queries that share a key head, head size]
        grouped = queries[tap].float().view(len(ids), heads.keys, -1, heads.size)
        looking = grouped.transpose(0, 1).flatten(1, 2).repeat(1, _DISTANCES, 1)
        distances = torch.randint(len(ids), (1, looking.shape[1]), generator=generator)
        turned = rotary.rotate(looking[None], distances.to(looking.device))[0]
        metrics.append(metric_of(turned.mT @ turned))
    return metrics


def rotations(host: Host) -> list[Rotary]:
    """Find how each layer of a host rotates its keys, by turning some back.

    Raises:
        HostError: The host has no cache, one of another kind than all keys and values of every
            layer, or a rotation that is not known.
    """
    check_cache(host)
    ids = [i % min(host.model.config.vocab_size, 400) for i in range(7, 7 + 3 * _PROBE_TOKENS, 3)]
    cached = read_cache(host, ids)
    taps = [Tap("key", layer) for layer in range(len(cached.keys))]
    plain = read(host, taps, [_window(ids)])
    known = [_own_rotation(host), Rotary(torch.empty(0, device=host.device))]
    found = []
    for tap, keys in zip(taps, cached.keys, strict=True):
        rotary = next((rotary for rotary in known if _restores(rotary, keys, plain[tap])), None)
        if rotary is None:
            raise HostError(
                f"The keys that layer {tap.layer} of host {host.name!r} caches are not the ones it "
                "projects, with positions put on as by a rotary embedding; its cache cannot be "
                "encoded."
            )
        found.append(rotary.to(torch.device("cpu")))
    return found


def _window(ids: Sequence[int]) -> Window:
    return Window(
        document=Document("probe"),
        ids=np.array(ids, dtype=np.int64),
        keep=slice(0, len(ids)),
        starts=np.arange(len(ids), dtype=np.uint32),
        sentences=(),
        last=True,
    )


def _restores(rotary: Rotary, keys: Tensor, plain: Tensor) -> bool:
    """Whether cached keys, turned back, are the projected ones [tokens, heads * size]."""
    _, heads, tokens, size = keys.shape
    if plain.shape != (tokens, heads * size):
        return False
    positions = torch.arange(tokens, device=keys.device)[None]
    restored = rotary.restore(keys.float(), positions)[0].transpose(0, 1).flatten(1)
    error = (restored - plain.float()).square().sum()
    return bool(error < _RESTORED * plain.float().square().sum())


def check_cache(host: Host) -> None:
    """Refuse a host whose cache cannot be encoded.

    Raises:
        HostError: It is an encoder, or not all of its layers keep a full cache of their own.
    """
    config = host.model.config
    if host.family.bidirectional:
        raise HostError(
            f"Host {host.name!r} is an encoder and has no key-value cache; choose a causal model."
        )
    other = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if not getattr(config, "layer_types", None) and getattr(config, "sliding_window", None):
        other = {"sliding_attention"}
    if getattr(config, "num_kv_shared_layers", 0):
        other.add("shared layers")
    if other:
        raise HostError(
            f"Host {host.name!r} has layers with {', '.join(sorted(other))}; only models whose "
            "layers all have a full cache of their own can be encoded."
        )


def _own_rotation(host: Host) -> Rotary:
    """The rotation of the model's own module; none if it has no such module."""
    module = getattr(host.model, "rotary_emb", None)
    kind = getattr(module, "rope_type", "")
    if kind in _CHANGING:
        raise HostError(
            f"Host {host.name!r} has a rotary embedding whose frequencies change with the length "
            f"of the text ({kind}); its cache cannot be encoded."
        )
    frequencies = getattr(module, "inv_freq", None)
    if not isinstance(frequencies, Tensor):
        frequencies = torch.empty(0, device=host.device)
    return Rotary(frequencies.detach().float(), float(getattr(module, "attention_scaling", 1.0)))
