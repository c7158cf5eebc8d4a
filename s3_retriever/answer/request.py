"""`Request`: a question and all that can be known to be wrong with it before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from s3_retriever.answer.evidence import join_evidence
from s3_retriever.answer.prompt import Prompt, check_text
from s3_retriever.errors import InputError
from s3_retriever.host import Host
from s3_retriever.search import Span


@dataclass(frozen=True)
class Request:
    """A question that a host is to answer from evidence.

    Attributes:
        host: Who answers.
        question: Any text.
        token_budget: Tokens of evidence at most.
        max_new_tokens: Tokens of the answer at most.
        prompt: Writes the prompt.
        options: Passed on to `generate`.

    Raises:
        HostError: The host cannot generate.
        InputError: The question is empty, a number is below 1, or question, evidence and answer
            together are more than the host has positions for.
    """

    host: Host
    question: str
    token_budget: int
    max_new_tokens: int
    prompt: Prompt
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check what can be checked."""
        _ = self.host.causal
        check_text(self.question, "question")
        check_count(self.token_budget, "token_budget")
        check_count(self.max_new_tokens, "max_new_tokens")
        limit = self.host.positions
        if limit is None:
            return
        room = limit - self.overhead - self.max_new_tokens
        facts = (
            f"host {self.host.name!r} reads {limit} tokens, of which question and template take "
            f"{self.overhead} and the answer up to {self.max_new_tokens}"
        )
        if room < 1:
            raise InputError(f"No evidence has room: {facts}; shorten the question or the answer.")
        if self.token_budget > room:
            raise InputError(
                f"A token_budget of {self.token_budget} is too much: {facts}; {room} are left."
            )

    @cached_property
    def overhead(self) -> int:
        """Tokens of the prompt without evidence."""
        return len(self.prompt.ids("", self.question))

    def ids(self, spans: Sequence[Span]) -> list[int]:
        """Token ids of the prompt with this evidence."""
        return self.prompt.ids(join_evidence(spans), self.question)


def check_count(value: object, name: str) -> None:
    """Refuse what is no number of things.

    Raises:
        InputError: It is not a whole number of at least 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, not {value!r}.")
