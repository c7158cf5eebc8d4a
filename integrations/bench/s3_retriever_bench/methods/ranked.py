"""Searching passages that something ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever_bench.methods.filling import fill, fill_and_cut
from s3_retriever_bench.methods.passages import Passage, text_bytes


class Ranker(Protocol):
    """Ranks texts by their number."""

    def rank(self, question: str, count: int) -> Sequence[int]:
        """Numbers of the best texts, best first, `count` at most."""

    def size(self) -> int:
        """Bytes that are kept beside the texts, about."""


@dataclass(frozen=True, slots=True)
class RankedPassages:
    """A searcher over passages.

    Attributes:
        passages: What is found.
        ranker: Ranks them.
        tokenizer: Of the host; where it is given, the passage that does not fit is cut.
    """

    passages: Sequence[Passage]
    ranker: Ranker
    tokenizer: OffsetTokenizer | None = None

    def search(self, question: str, budget: int) -> Sequence[Passage]:
        """See `Searcher`."""
        # A passage has at least one token.
        count = min(budget, len(self.passages))
        ranked = (self.passages[number] for number in self.ranker.rank(question, count))
        if self.tokenizer is None:
            return fill(ranked, budget)
        return fill_and_cut(ranked, budget, self.tokenizer)

    def size(self) -> int:
        """See `Searcher`."""
        return text_bytes(self.passages) + self.ranker.size()

    def close(self) -> None:
        """See `Searcher`."""
