"""Attention sinks: tokens that heads look at when they have nothing to look at.

A model parks attention on a few tokens, mostly the first one and some that say little (Xiao et al.
2024). Their states are huge, carried by one coordinate (Sun et al. 2024, "Massive Activations"),
and much the same in every text. They say nothing about a text, and would rule over an autoencoder,
a mean and a question.
"""

from __future__ import annotations

import torch
from torch import Tensor

from s3_retriever.host.device import to_device

# In units of the window's median norm. A sink of SmolLM2 has 130 in its middle layers; no other
# token of any model here has more than 6.
_HUGE = 10.0
# In early layers sinks have 3 to 12, which other tokens of other models have too. What gives sinks
# away there is that a single coordinate holds 70 to 99 % of the squared norm.
_LARGE = 3.0
_IN_ONE_COORDINATE = 1 / 3


def find_sinks(states: Tensor, lengths: Tensor) -> Tensor:
    """Find attention sinks by the norm of their states, wherever they stand.

    Args:
        states: States of the residual stream [windows, length, width], padded on the right.
        lengths: Tokens of each window, int64, on the CPU; there may be fewer windows than rows.

    Returns:
        bool [windows, length], on the device of the states; what padding gets means nothing.
    """
    norms = torch.linalg.vector_norm(states, dim=-1, dtype=torch.float32)
    peaks = states.abs().amax(-1).float()
    ratios = norms / _medians(norms, lengths).clamp_min(1e-9)
    in_one = peaks.square() > _IN_ONE_COORDINATE * norms.square()
    sinks: Tensor = (ratios > _HUGE) | ((ratios > _LARGE) & in_one)
    return sinks


def _medians(norms: Tensor, lengths: Tensor) -> Tensor:
    """The lower median of each window's norms [windows, 1]; rows of padding count as one token."""
    counts = torch.ones(len(norms), dtype=torch.long)
    counts[: len(lengths)] = lengths.clamp_min(1)
    counts = to_device(counts, norms.device)[:, None]
    columns = torch.arange(norms.shape[1], device=norms.device)
    ordered = norms.masked_fill(columns >= counts, torch.inf).sort(1).values
    return ordered.gather(1, (counts - 1) // 2)
