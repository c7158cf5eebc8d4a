"""`s3r calibrate`: the recipe that suits a codebook and your own documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from s3_retriever.cli import options
from s3_retriever.cli.console import results, say, show_table, write_json
from s3_retriever.cli.files import warn_skipped
from s3_retriever.cli.options import check_codebook_target, prepare
from s3_retriever.files import find_files, read_files
from s3_retriever.types import Split

if TYPE_CHECKING:
    from s3_retriever.calibration import Calibration, Sample, Trial
    from s3_retriever.codebook import Codebook
    from s3_retriever.host import Host


def show(console: Console, calibration: Calibration) -> None:
    """Print a calibration."""
    show_table(console, _table(calibration.trials))
    deciding, held_out = calibration.questions
    gain = calibration.gain
    budgets = ", ".join(map(str, calibration.token_budgets))
    console.print()
    console.print(
        f"Recall is the mean over budgets of {budgets} tokens: above for the {deciding} questions "
        f"that decided, below for the {held_out} held out.",
        soft_wrap=True,
    )
    console.print(
        f"Before {calibration.before:.3f}, after {calibration.after:.3f}: "
        f"{gain.mean:+.3f}, 95 % interval {gain.low:+.3f} to {gain.high:+.3f}.",
        soft_wrap=True,
    )
    console.print(_verdict(calibration), soft_wrap=True)


def _verdict(calibration: Calibration) -> str:
    if calibration.recipe == calibration.start:
        return "Nothing beat the codebook's recipe; it stays."
    if calibration.gain.low > 0:
        return "The new recipe finds more."
    return "Held-out questions do not confirm that the new recipe finds more; try more questions."


def _table(trials: tuple[Trial, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("setting", "value"):
        table.add_column(name, no_wrap=True)
    for name in ("recall", "gain", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for trial in trials:
        table.add_row(
            trial.setting,
            trial.value,
            f"{trial.recall:.3f}",
            f"{trial.gain.mean:+.3f}",
            f"{trial.gain.error:.3f}",
            "kept" if trial.kept else "",
        )
    return table


def calibrate(
    host: options.HostArgument,
    codebook: options.CodebookName = None,
    questions: Annotated[
        str | None,
        typer.Option(
            "--questions",
            metavar="FILE",
            show_default="questions made from the documents",
            help="Questions with labelled evidence, in JSON Lines as s3r bench quality reads them.",
        ),
    ] = None,
    split: Annotated[
        Split,
        typer.Option(
            "--split",
            metavar=options.choices(Split),
            help="Which of --questions to use: all, dev (which leaves test for s3r bench "
            "quality) or test.",
        ),
    ] = "all",
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            metavar="PATH",
            show_default="the documents of the questions",
            help="Documents to make questions from, instead of --questions: a file, folder or "
            "glob; repeatable. A .jsonl file has a document in the field text of every line.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            show_default="not written",
            help="Folder for the codebook with the chosen recipe.",
        ),
    ] = None,
    recipe_only: Annotated[
        Path | None,
        typer.Option(
            "--recipe-only",
            metavar="FILE",
            show_default="not written",
            help="JSON file for the chosen recipe alone, to use with --recipe.",
        ),
    ] = None,
    token_budget: Annotated[
        int,
        typer.Option(
            "--token-budget",
            metavar="N",
            min=1,
            help="Tokens that a search may return; half and twice as many count too.",
        ),
    ] = 512,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, help="Maximum number of questions.")
    ] = 200,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="N",
            help="Seed of the choice of questions and of their split into halves.",
        ),
    ] = 0,
    device: options.Device = "auto",
    dtype: options.DtypeName = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Choose the recipe of a codebook with labelled questions, or with documents alone.

    Starts from the recipe of the codebook and changes one setting after another; a change is kept
    if, on one half of the questions, it finds more of the evidence than chance explains. Reports
    the share of evidence found with every value tried (recall), its gain over the recipe at that
    point with the standard error, and what the chosen recipe gains on the other half.
    """
    _check(questions, text, out, recipe_only)
    samples = _labelled(questions, split, count, seed) if questions else None
    found = find_files(text or ())
    prepare()
    from s3_retriever.calibration import questions_from
    from s3_retriever.calibration.calibrate import calibrate_samples, check_questions

    if samples is None:
        samples = [questions_from(read_files(found, on_skip=warn_skipped), count, seed)]
    check_questions(samples)
    try:
        calibration = calibrate_samples(
            *_load(host, codebook, device, dtype),
            samples,
            labelled=bool(questions),
            token_budget=token_budget,
            seed=seed,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Nothing was written.") from None
    _write(calibration, out, recipe_only)
    if as_json:
        write_json(calibration.report())
    else:
        show(results(), calibration)


def _check(
    questions: str | None, text: list[str] | None, out: Path | None, recipe_only: Path | None
) -> None:
    """Refuse before the work what cannot be done or written."""
    if bool(questions) == bool(text):
        raise typer.BadParameter("Give either --questions or --text.")
    if out is None and recipe_only is None:
        raise typer.BadParameter("Say where the result goes with --out or --recipe-only.")
    if out is not None:
        check_codebook_target(out)
    if recipe_only is not None:
        if recipe_only.exists():
            # Only a recipe may be overwritten; this refuses anything else.
            options.recipe(str(recipe_only.absolute()))
        recipe_only.parent.mkdir(parents=True, exist_ok=True)


def _labelled(source: str, split: Split, count: int, seed: int) -> list[Sample]:
    """The contexts of a question set."""
    from s3_retriever.calibration import LabelledQuestion, Sample
    from s3_retriever.calibration.public_sets import load_set
    from s3_retriever.calibration.question_sets import Choice, build_task

    task = build_task(load_set(source), Choice(split, questions=count, seed=seed))
    return [
        Sample(
            context.documents,
            tuple(
                LabelledQuestion(question.text, question.evidence) for question in context.questions
            ),
        )
        for context in task.contexts
    ]


def _load(
    host: str, codebook: str | None, device: str, dtype: options.Dtype
) -> tuple[Host, Codebook]:
    from s3_retriever.engine import find_codebook
    from s3_retriever.host import Host

    name = options.location(host) or host
    book = find_codebook(name, options.location(codebook))
    return Host.load(name, layers=book.depth, device=device, dtype=dtype), book


def _write(calibration: Calibration, out: Path | None, recipe_only: Path | None) -> None:
    if out is not None:
        calibration.codebook.save(out)
        say(f"Written: {out}")
    if recipe_only is not None:
        recipe_only.write_text(calibration.recipe.model_dump_json(indent=2) + "\n")
        say(f"Written: {recipe_only}")
