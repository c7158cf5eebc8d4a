"""Answering with the whole context in the prompt and in the KV cache."""

from __future__ import annotations

import time
from typing import Any

from s3_retriever.answer.generation import generate
from s3_retriever.answer.prompt import Prompt, Request
from s3_retriever.host import Host
from s3_retriever.search import Span
from s3_retriever_bench.inference.clock import TokenClock, tokens_per_second
from s3_retriever_bench.inference.job import Job
from s3_retriever_bench.peak import peak_bytes, used_bytes


def measure_full(job: Job) -> dict[str, Any]:
    """Let the model's own `generate` read a whole context and answer the first question.

    Args:
        job: The context and the questions.

    Returns:
        JSON values. `first_token_seconds`: from the text to the first new token, tokenising
        included. `tokens_per_second`: of the tokens after it. `prompt_tokens`, `cache_bytes` (the
        KV cache of prompt and answer), `loaded_bytes` and `peak_bytes`. Or `failed`, why it was
        not measured.

    Raises:
        S3Error: The model cannot be loaded.
    """
    host = job.subject.load()
    loaded = used_bytes(host.device)
    text, question = job.text, job.questions[0]
    tokens = len(Prompt(host).ids(text, question))
    if host.positions is not None and tokens + job.new_tokens > host.positions:
        return {"failed": f"beyond the model's {host.positions:,} positions"}
    _answer(host, job, job.beginning, job.warm_up)
    began = time.perf_counter()
    clock = _answer(host, job, text, question)
    return {
        "prompt_tokens": tokens,
        "first_token_seconds": round(clock.ticks[0] - began, 4),
        "tokens_per_second": tokens_per_second([clock]),
        "cache_bytes": _cache_bytes(host, tokens + job.new_tokens - 1),
        "loaded_bytes": loaded,
        "peak_bytes": peak_bytes(host.device),
    }


def _answer(host: Host, job: Job, text: str, question: str) -> TokenClock:
    """Generate as an answer from evidence is generated, the evidence being the whole text."""
    clock = TokenClock()
    options = {"streamer": clock, "min_new_tokens": job.new_tokens}
    request = Request(host, question, 1, job.new_tokens, Prompt(host), options)
    generate(request, [Span(text, 0.0, "context", 0, len(text), (), {}, 0)], 0.0)
    return clock


def _cache_bytes(host: Host, tokens: int) -> int:
    """Keys and values of all layers; of sliding windows more than they keep."""
    heads = host.family.heads(host.model.config)
    return 2 * len(host.blocks) * tokens * heads.keys * heads.size * host.model.dtype.itemsize
