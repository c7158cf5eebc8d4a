"""Filling a token budget in rank order."""

from __future__ import annotations

from collections.abc import Iterable

from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever_bench.methods.passages import Passage, shorten

# Passages in a row that do not fit, after which the budget counts as spent; as in `S3Index`.
_MISSES = 64


def fill(ranked: Iterable[Passage], budget: int) -> list[Passage]:
    """Take passages, best first, passing over those that do not fit into the rest of the budget.

    The rule by which `S3Index.search` spends a budget.
    """
    taken: list[Passage] = []
    misses = 0
    for passage in ranked:
        if passage.tokens <= budget:
            taken.append(passage)
            budget -= passage.tokens
            misses = 0
        else:
            misses += 1
        if budget == 0 or misses == _MISSES:
            break
    return taken


def fill_and_cut(
    ranked: Iterable[Passage], budget: int, tokenizer: OffsetTokenizer
) -> list[Passage]:
    """Take passages, best first; the first that does not fit is cut where the budget ends.

    For chunks, which are so long that passing over would leave much of a small budget unused.
    """
    taken: list[Passage] = []
    for passage in ranked:
        if passage.tokens >= budget:
            return [*taken, shorten(passage, budget, tokenizer)]
        taken.append(passage)
        budget -= passage.tokens
    return taken
