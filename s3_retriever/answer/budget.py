"""The default token budget: how much evidence the host of an answer makes good use of."""

from __future__ import annotations

from s3_retriever.host import Host

# A small model gains nothing from reading much: SmolLM2-135M answers as well from 256 tokens of
# evidence as from 1,024, and better than from the full context (docs/research-log.md, "Answers").
# S3-Attention gives models of 7 and 8 billion parameters 1,024 to 2,048 tokens. No size between
# them was measured.
_SMALL_PARAMETERS = 1_000_000_000
_SMALL_BUDGET = 256
_BUDGET = 1024


def default_token_budget(host: Host) -> int:
    """The token budget of a host that was given none.

    Returns:
        256 for a causal model of less than a billion parameters, else 1,024; at most half of the
        model's positions. For an encoder, whose evidence another model reads, 1,024.
    """
    if host.family.bidirectional:
        return _BUDGET
    small = host.model.num_parameters() < _SMALL_PARAMETERS
    budget = _SMALL_BUDGET if small else _BUDGET
    return budget if host.positions is None else min(budget, max(host.positions // 2, 1))
