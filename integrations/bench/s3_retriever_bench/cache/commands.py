"""The command `cache`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from s3_retriever_bench.shared import options


def cache(
    host: Annotated[str, options.option("HOST", f"A causal model: {options.CAUSAL}")] = "smollm2",
    codebook: Annotated[
        str | None,
        options.option(
            "FOLDER",
            "Dictionaries of its keys and values, from s3r fit HOST --kv.",
            "those shipped for the host",
        ),
    ] = None,
    text: Annotated[
        list[Path] | None,
        options.option(
            "FILE", f"Text that nothing was fitted on: {options.PLAIN_OR_JSON}", options.LIBRARY
        ),
    ] = None,
    tokens: Annotated[
        list[int] | None, options.number("Tokens of a window for perplexity; repeatable.", "1024")
    ] = None,
    decode_tokens: Annotated[
        list[int] | None,
        options.number("Tokens of a cache to decode with; repeatable.", "1024 and 4096"),
    ] = None,
    windows: Annotated[int, options.number("Windows of each length.")] = 2,
    method: Annotated[
        list[str] | None,
        options.option(
            "NAME",
            "exact, int8, int4, int3, int2, hqq-4, quanto-4, streaming, knorm, snapkv, "
            "expected-attention or atoms-8-16, also with other numbers of bits and atoms; "
            "repeatable.",
            "those without other packages",
        ),
    ] = None,
    needles: Annotated[
        int, options.number("Haystacks of each length, with five needles in each.", least=0)
    ] = 0,
    answers: Annotated[
        list[str] | None,
        options.option(
            "FILE",
            "Questions with contexts, as --data of longcontext; those that fit into the largest "
            "--tokens are asked; repeatable.",
            "none",
        ),
    ] = None,
    questions: options.SetQuestions = None,
    decode_method: Annotated[
        list[str] | None, options.option("NAME", "Method to time decoding of; repeatable.", "all")
    ] = None,
    seed: options.Seed = 0,
    out: options.OutFolder = None,
    fresh: options.Fresh = False,
) -> None:
    """Key-value caches: perplexity, bytes and seconds a token of atoms, whole numbers, eviction."""
    from s3_retriever_bench.cache.report import show_cache
    from s3_retriever_bench.cache.run import Plan, run_cache

    plan = Plan(
        host=host,
        codebook=codebook,
        texts=text or [],
        tokens=tokens or [],
        decode_tokens=decode_tokens or [],
        windows=windows,
        methods=method or [],
        needles=needles,
        answers=answers or [],
        questions=questions,
        decode_methods=decode_method or [],
        folder=out,
        fresh=fresh,
        seed=seed,
    )
    show_cache(run_cache(plan), out)
