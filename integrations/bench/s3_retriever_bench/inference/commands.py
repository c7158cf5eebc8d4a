"""The command `inference`."""

from __future__ import annotations

from typing import Annotated

from s3_retriever_bench.shared import options


def inference(
    tokens: Annotated[
        list[int] | None,
        options.number(
            "Tokens of a context to answer from in both ways; repeatable.",
            "4096, 8192, 16384 and 32768; of shape 0.6b the first two",
        ),
    ] = None,
    scan_tokens: Annotated[
        list[int] | None,
        options.number(
            "Tokens of a context that S3 alone scans and answers from; repeatable.",
            "65536 and 131072",
        ),
    ] = None,
    shape: Annotated[
        str | None, options.option("SHAPE", "A decoder with random weights: 135m or 0.6b.", "135m")
    ] = None,
    host: Annotated[
        str | None, options.option("HOST", f"A causal model instead: {options.CAUSAL}", "the shape")
    ] = None,
    codebook: Annotated[
        str | None,
        options.option("FOLDER", "The host's codebook.", "the host's own, else random directions"),
    ] = None,
    tap: Annotated[
        str | None,
        options.option(
            "TAP", "Tap of the random directions, e.g. key.15.", "keys of the middle layer"
        ),
    ] = None,
    token_budget: Annotated[int, options.number("Tokens of evidence.")] = 1024,
    new_tokens: Annotated[int, options.number("Tokens of every answer.", least=2)] = 16,
    questions: Annotated[int, options.number("Questions per scan.")] = 4,
    text: options.Text = None,
    ask: options.Ask = None,
    out: options.OutFolder = None,
    fresh: options.Fresh = False,
) -> None:
    """Long contexts: scanning and answering from evidence beside a KV cache of everything."""
    from s3_retriever_bench.inference.report import show_inference
    from s3_retriever_bench.inference.run import Plan, run_inference

    plan = Plan(
        tokens or [],
        scan_tokens or [65_536, 131_072],
        shape=shape,
        host=host,
        codebook=codebook,
        tap=tap,
        token_budget=token_budget,
        new_tokens=new_tokens,
        questions=questions,
        texts=text or [],
        ask=ask,
        folder=out,
        fresh=fresh,
    )
    show_inference(run_inference(plan), out)
