"""What features do on two sets of examples: their mean activations, and where they fire most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from s3_retriever.adapters.report import Firing
from s3_retriever.adapters.texts import Reading
from s3_retriever.errors import InputError
from s3_retriever.host import Host
from s3_retriever.host.batches import run_batches
from s3_retriever.host.taps import Tap, read_each
from s3_retriever.progress import progress_bar
from s3_retriever.sae import TopKSAE

# Firings that are kept of each feature, each from another example.
_FIRINGS = 5
# Tokens before and after one on which a feature fires, in a report.
_BEFORE, _AFTER = 16, 8


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What was measured.

    Attributes:
        means: Of `wanted` and `unwanted`, the mean activation of every feature, float32
            [features]. Each example counts the same, however many of its tokens are compared.
        unexplained: Squared error of the SAE over the squared distance from its centre, over the
            examples' own tokens.
        strongest: The largest activations of every feature, each in another example, float32
            [features, firings]; 0 where there are fewer.
        examples: The number of the reading that each of them is in [features, firings].
        positions: The token that each of them is on [features, firings].
    """

    means: Mapping[str, Tensor]
    unexplained: float
    strongest: Tensor
    examples: Tensor
    positions: Tensor


@torch.inference_mode()
def compare(
    host: Host,
    sae: TopKSAE,
    layer: int,
    sides: Mapping[str, Sequence[Reading]],
    progress: bool,
) -> Comparison:
    """Read both sides and compare them.

    Args:
        host: The model; only its layers up to `layer` run.
        sae: The autoencoder of that layer's output. Features are computed on its device.
        layer: Counted from 0.
        sides: The readings by the name of their side.
        progress: Whether a bar shows rate and time left (only in a terminal).

    Raises:
        InputError: All tokens of a side that are compared are attention sinks.
    """
    device = sae.W_enc.device
    readings = [reading for part in sides.values() for reading in part]
    side_of = [name for name, part in sides.items() for _ in part]
    sums = {name: torch.zeros(sae.features, device=device) for name in sides}
    counts = dict.fromkeys(sides, 0)
    errors = torch.zeros(2, dtype=torch.float64)
    best = _Strongest(sae.features, device)
    with progress_bar(progress, total=len(readings), unit="text", desc="Comparing") as bar:
        for number, (states, sinks) in enumerate(_states(host, layer, readings)):
            reading = readings[number]
            states = states.to(device, torch.float32)
            content = torch.from_numpy(reading.content) & ~sinks
            compared = torch.from_numpy(reading.compared) & ~sinks
            activations = sae.activations(states)
            if compared.any():
                sums[side_of[number]] += activations[compared.to(device)].mean(0)
                counts[side_of[number]] += 1
            own = content.to(device)
            restored = activations[own] @ sae.W_dec + sae.b_dec
            errors[0] += (states[own] - restored).square().sum().cpu()
            errors[1] += (states[own] - sae.b_dec).square().sum().cpu()
            best.push(activations, content | compared, number)
            bar.update(1)
    for name, count in counts.items():
        if not count:
            raise InputError(
                f"All {name} tokens that were to be compared are attention sinks at layer {layer}; "
                "choose other tokens, or an SAE of another layer."
            )
    return Comparison(
        means={name: (total / counts[name]).cpu() for name, total in sums.items()},
        unexplained=float(errors[0] / errors[1].clamp_min(1e-12)),
        strongest=best.values.cpu(),
        examples=best.examples.cpu(),
        positions=best.positions.cpu(),
    )


def _states(host: Host, layer: int, readings: Sequence[Reading]) -> Iterator[tuple[Tensor, Tensor]]:
    """The states of every reading in order [tokens, width], and which tokens are sinks."""
    tap = Tap("hidden", layer)
    windows = (reading.window for reading in readings)
    for _, seen in run_batches(windows, partial(read_each, host, [tap]), host.batch_tokens):
        yield seen[tap].values, seen[tap].sinks.cpu()


class _Strongest:
    """The largest activations of every feature so far, at most one of an example."""

    def __init__(self, features: int, device: torch.device) -> None:
        self.values = torch.zeros(features, _FIRINGS, device=device)
        self.examples = torch.zeros(features, _FIRINGS, dtype=torch.long, device=device)
        self.positions = torch.zeros(features, _FIRINGS, dtype=torch.long, device=device)

    def push(self, activations: Tensor, shown: Tensor, number: int) -> None:
        rows = shown.nonzero().flatten().to(activations.device)
        if not len(rows):
            return
        values, where = activations[rows].max(0)
        values = torch.cat([self.values, values[:, None]], dim=1)
        positions = torch.cat([self.positions, rows[where][:, None]], dim=1)
        examples = torch.cat([self.examples, torch.full_like(where, number)[:, None]], dim=1)
        self.values, kept = values.topk(_FIRINGS, dim=1)
        self.examples, self.positions = examples.gather(1, kept), positions.gather(1, kept)


def firings(
    comparison: Comparison, feature: int, host: Host, sides: Mapping[str, Sequence[Reading]]
) -> tuple[Firing, ...]:
    """Where a feature fires most, strongest first, with the text around."""
    decode = host.tokenizer.source.decode
    readings = [(name, reading) for name, part in sides.items() for reading in part]
    found = []
    for i in range(_FIRINGS):
        value = float(comparison.strongest[feature, i])
        if value <= 0:
            break
        name, reading = readings[int(comparison.examples[feature, i])]
        at = int(comparison.positions[feature, i])
        ids = reading.window.ids
        token = str(decode(ids[at : at + 1].tolist()))
        before, after = ids[max(at - _BEFORE, 0) : at], ids[at + 1 : at + 1 + _AFTER]
        found.append(
            Firing(name, str(decode(before.tolist())), token, str(decode(after.tolist())), value)
        )
    return tuple(found)
