"""Answering from the evidence of a scan."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from s3_retriever.answer import LongContext
from s3_retriever.answer.generation import Answer
from s3_retriever.answer.scanned import ScannedContext
from s3_retriever_bench.inference.clock import TokenClock, tokens_per_second
from s3_retriever_bench.inference.job import Job
from s3_retriever_bench.peak import peak_bytes, used_bytes


def measure_evidence(job: Job) -> dict[str, Any]:
    """Scan a context, then answer questions from the evidence for each.

    Args:
        job: The context and the questions.

    Returns:
        JSON values. `tokens`: of the context as scanned. `scan_seconds`. `first_token_seconds`:
        from the text to the first new token of the first answer, scan included. Of the further
        questions `further_token_seconds`, the median from the question to the first new token,
        and `further_seconds`, all of them; None and none with a single question.
        `retrieval_seconds`: the median of all questions. `tokens_per_second`: of the tokens after
        the first ones. `prompt_tokens`: the most of a question. `loaded_bytes`, `peak_bytes`.

    Raises:
        S3Error: The model or the codebook cannot be loaded, or the questions do not fit it.
    """
    host = job.subject.load()
    loaded = used_bytes(host.device)
    model = LongContext(host, codebook=job.subject.find_codebook(host, job.beginning))
    with model.scan(job.beginning, progress=False) as scanned:
        _ask(scanned, job, job.warm_up, job.warm_up_budget)
    text = job.text
    began = time.perf_counter()
    with model.scan(text, progress=False) as scanned:
        scan = time.perf_counter() - began
        asked = [_ask(scanned, job, one, job.token_budget) for one in job.questions]
        tokens = scanned.tokens
    further = [round(clock.ticks[0] - start, 4) for start, clock, _ in asked[1:]]
    answers = [answer for _, _, answer in asked]
    return {
        "tokens": tokens,
        "scan_seconds": round(scan, 4),
        "first_token_seconds": round(asked[0][1].ticks[0] - began, 4),
        "further_token_seconds": round(median(further), 4) if further else None,
        "further_seconds": further,
        "retrieval_seconds": round(median(answer.retrieval_seconds for answer in answers), 4),
        "tokens_per_second": tokens_per_second([clock for _, clock, _ in asked]),
        "prompt_tokens": max(answer.prompt_tokens for answer in answers),
        "loaded_bytes": loaded,
        "peak_bytes": peak_bytes(host.device),
    }


def _ask(
    scanned: ScannedContext, job: Job, question: str, budget: int
) -> tuple[float, TokenClock, Answer]:
    """When the question was asked, when the tokens came, and the answer."""
    clock = TokenClock()
    began = time.perf_counter()
    answer = scanned.answer(
        question,
        token_budget=budget,
        max_new_tokens=job.new_tokens,
        min_new_tokens=job.new_tokens,
        streamer=clock,
    )
    return began, clock, answer
