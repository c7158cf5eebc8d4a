"""What a measuring process gets to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from s3_retriever_bench.inference.subject import Subject

# Characters of the context that are read and answered from before the clock starts, and tokens
# of evidence then: fewer than the characters have, or nothing would be searched for.
_WARM_UP = 2_000
_WARM_UP_BUDGET = 256


@dataclass(frozen=True, slots=True)
class Job:
    """A context and the questions to it.

    Attributes:
        subject: The model.
        path: File of the context.
        questions: To be asked one after another.
        warm_up: Asked before, of the context's beginning.
        token_budget: Tokens of evidence.
        new_tokens: Tokens of every answer.
    """

    subject: Subject
    path: Path
    questions: tuple[str, ...]
    warm_up: str
    token_budget: int
    new_tokens: int

    @property
    def text(self) -> str:
        """The context."""
        with self.path.open(encoding="utf-8", newline="") as file:
            return file.read()

    @property
    def beginning(self) -> str:
        """So much of it as first runs, which compile and allocate, are made on."""
        return self.text[:_WARM_UP]

    @property
    def warm_up_budget(self) -> int:
        """Tokens of evidence of the question that is asked before."""
        return min(self.token_budget, _WARM_UP_BUDGET)
