"""Asking for the needles of a haystack."""

from __future__ import annotations

from typing import Any

from s3_retriever.errors import HostError
from s3_retriever_bench.longcontext.answering import Answerer
from s3_retriever_bench.longcontext.needles import Haystack, Needle
from s3_retriever_bench.longcontext.reading import ReadContext
from s3_retriever_bench.longcontext.tasks import TASKS

_PROMPT = TASKS["multifieldqa_en"].prompt
_NEW_TOKENS = 32


def probe(
    haystack: Haystack, context: ReadContext, method: str, budget: int, answerer: Answerer | None
) -> dict[str, Any]:
    """Ask for each needle with a method.

    Args:
        haystack: Text and needles.
        context: The text.
        method: One of `reading.METHODS`.
        budget: Tokens of evidence.
        answerer: Answers; None where the host cannot generate.

    Returns:
        JSON values. `found`: for each needle 1 where its number is in the evidence, else 0.
        `answered`: likewise for the answer, None where it was not generated; `failed` says why
        where the prompt was too long.
    """
    found: list[float] = []
    answered: list[float | None] = []
    failed = None
    for needle in haystack.needles:
        evidence = context.evidence(method, needle.question, budget)
        found.append(float(needle.value in evidence))
        says, problem = _answer(needle, evidence, answerer)
        answered.append(says)
        failed = failed or problem
    return {"found": found, "answered": answered, "failed": failed}


def _answer(
    needle: Needle, evidence: str, answerer: Answerer | None
) -> tuple[float | None, str | None]:
    """1 where the answer has the needle's number, else 0; and why there is no answer."""
    if answerer is None:
        return None, None
    before, _, rest = _PROMPT.partition("{context}")
    context, after = f"{before}{evidence}", rest.replace("{input}", needle.question)
    failed = answerer.too_long(answerer.length(context, after), _NEW_TOKENS)
    if failed:
        return None, failed
    try:
        return float(needle.value in answerer.answer(context, after, _NEW_TOKENS)), None
    except HostError:
        return None, "out of memory"
