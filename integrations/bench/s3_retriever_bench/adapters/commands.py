"""The commands `adapt` and `recovery`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3_retriever_bench.shared import options


def adapt(
    harmful: Annotated[
        Path,
        options.option(
            "FILE", "Harmful prompts, .jsonl with prompt and compliant_start.", default=True
        ),
    ],
    benign: Annotated[
        Path,
        options.option("FILE", "Ordinary prompts, .jsonl with prompt and answer.", default=True),
    ],
    contrast: Annotated[
        Path,
        options.option(
            "FILE", "XSTest, .jsonl with prompt and label: safe or unsafe.", default=True
        ),
    ],
    text: Annotated[
        Path, options.option("FILE", f"Text for perplexity: {options.PLAIN_OR_JSON}", default=True)
    ],
    host: Annotated[
        str, options.option("HOST", f"A causal model with a chat template: {options.CAUSAL}")
    ] = ("smollm2"),
    codebook: Annotated[str, options.option("FOLDER", "The codebook with the SAE.")] = "smollm2",
    tap: Annotated[
        str, options.option("TAP", "Its hidden tap; adapters are in the layers after it.")
    ] = "hidden.8",
    start: Annotated[
        list[str] | None,
        options.option(
            "NAME", "lora, pissa, olora, sails or full; repeatable.", "all; --quick: lora, sails"
        ),
    ] = None,
    seeds: Annotated[int | None, options.number("Seeds: 0, 1 and so on.", "3")] = None,
    steps: Annotated[int | None, options.number("Training steps of 8 examples.", "12")] = None,
    prompts: Annotated[int | None, options.number("Maximum prompts of each kind.", "32")] = None,
    rank: Annotated[int, options.number("Rank of the adapters.")] = 8,
    rate: Annotated[
        list[float] | None,
        options.option("X", "Learning rate of adapters; repeatable.", "0.001 and 0.003"),
    ] = None,
    full_rate: Annotated[float, options.option("X", "Learning rate of full fine-tuning.")] = 5e-5,
    compare: Annotated[
        str,
        options.option("KIND", "Examples that sails compares: answers or prompts."),
    ] = "answers",
    tokens: Annotated[str, options.option("WHICH", "Where: last, first_answer or all.")] = "all",
    features: Annotated[int, options.number("Features that sails chooses.")] = 32,
    quick: Annotated[
        bool, typer.Option("--quick", help="1 seed, 8 steps, 16 prompts of each kind.")
    ] = False,
    only_start: Annotated[
        int | None,
        options.number("Train nothing; time the starts with N examples a side.", "not set"),
    ] = None,
    split: options.Split = "test",
    out: options.OutFolder = None,
    fresh: options.Fresh = False,
) -> None:
    """Adapters: refusals learnt in a few steps by SAILS, other LoRA starts and full training."""
    from s3_retriever_bench.adapters.data import Sources
    from s3_retriever_bench.adapters.report import show_adapt, starting_table
    from s3_retriever_bench.adapters.run import STARTS, Plan, run_adapt, run_starting
    from s3_retriever_bench.shared.report import show_tables

    plan = Plan(
        Sources(harmful, benign, contrast, text),
        host=host,
        codebook=codebook,
        tap=tap,
        starts=start or (["lora", "sails"] if quick else STARTS),
        seeds=seeds or (1 if quick else 3),
        steps=steps or (8 if quick else 12),
        prompts=prompts or (16 if quick else 32),
        rank=rank,
        rates=rate or [1e-3, 3e-3],
        full_rate=full_rate,
        text_tokens=512 if quick else 1_024,
        contrast=compare,
        tokens=tokens,
        features=features,
        split=split,
        folder=out,
        fresh=fresh,
    )
    if only_start is not None:
        remark = f"sails compares {only_start} examples on each side."
        show_tables([starting_table(run_starting(plan, only_start))], remark)
    else:
        show_adapt(run_adapt(plan), out)


def recovery(
    seeds: Annotated[int, options.number("Made-up worlds.")] = 3,
    out: Annotated[
        Path | None, options.option("FOLDER", "Folder for figures and the plot.", "not written")
    ] = None,
) -> None:
    """The theory of SAILS on made-up features: subspaces found through SAEs and among neurons."""
    from s3_retriever_bench.adapters.recovery import draw_recovery, run_recovery
    from s3_retriever_bench.adapters.report import recovery_tables
    from s3_retriever_bench.shared.report import show_figures

    figures = run_recovery(seeds)
    show_figures(figures, recovery_tables(figures), out and out / "recovery.json")
    if out is not None:
        draw_recovery(figures, out / "recovery")
