"""`Answer`: what a host said, and what it said it from."""

from __future__ import annotations

from dataclasses import dataclass

from s3_retriever.search import Span


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and its evidence.

    Attributes:
        text: What the host generated, without white space at its ends.
        evidence: All that it read of the context, in the context's order.
        prompt_tokens: Length of the prompt, evidence, question and template together.
        new_tokens: Length of the answer, the token that ended it included.
        retrieval_seconds: Time to find the evidence in the scanned context.
        generation_seconds: Time to read the prompt and to generate.
    """

    text: str
    evidence: list[Span]
    prompt_tokens: int
    new_tokens: int
    retrieval_seconds: float
    generation_seconds: float
