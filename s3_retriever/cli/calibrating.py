"""`s3 calibrate`: the recipe that suits a codebook and the user's own documents."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from s3_retriever.cli import options
from s3_retriever.cli.console import results, say, show_table, write_json
from s3_retriever.cli.files import Counts, FoundFile, TextFiles, documents, find_files
from s3_retriever.cli.options import check_codebook_target, prepare
from s3_retriever.document import Document

if TYPE_CHECKING:
    from s3_retriever.calibration import Calibration, Sample, Trial
    from s3_retriever.codebook import Codebook
    from s3_retriever.host import Host


class SplitName(str, Enum):
    """Which questions of a set."""

    TEST = "test"
    DEV = "dev"
    ALL = "all"


def show(console: Console, calibration: Calibration) -> None:
    """Print a calibration."""
    show_table(console, _table(calibration.trials))
    deciding, held_out = calibration.questions
    gain = calibration.gain
    budgets = ", ".join(map(str, calibration.budgets))
    console.print()
    console.print(
        f"Recall is the mean of budgets of {budgets} tokens, above of the {deciding} questions "
        f"that decided, below of the {held_out} that were held out.",
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
        return "Nothing was better than the recipe that the codebook has; it stays."
    if calibration.gain.low > 0:
        return "The new recipe finds more."
    return (
        "Held-out questions do not confirm that the new recipe finds more; more questions would "
        "tell."
    )


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
    host: Annotated[
        str,
        typer.Argument(
            metavar="HOST", help="minilm, a local folder, or a model id on the Hugging Face Hub."
        ),
    ],
    codebook: options.CodebookName = None,
    questions: Annotated[
        str | None,
        typer.Option(
            "--questions",
            metavar="FILE",
            show_default="questions made from the documents",
            help="Questions with labelled evidence, in JSON Lines as s3 bench quality reads them.",
        ),
    ] = None,
    split: Annotated[
        SplitName,
        typer.Option(
            metavar="SPLIT",
            help="Questions of --questions: all, dev (which leaves test for s3 bench quality) "
            "or test.",
        ),
    ] = SplitName.ALL,
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            metavar="FILE...",
            show_default="the documents of the questions",
            help="Documents to make questions from, instead of --questions: files, folders and "
            "globs. Of a .jsonl file, the field text of every line.",
        ),
    ] = None,
    more_text: Annotated[list[str] | None, typer.Argument(metavar="FILE", hidden=True)] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            show_default="not written",
            help="Folder of the codebook with the chosen recipe.",
        ),
    ] = None,
    recipe_only: Annotated[
        Path | None,
        typer.Option(
            "--recipe-only",
            metavar="FILE",
            show_default="not written",
            help="JSON file of the chosen recipe alone, for --recipe of other commands.",
        ),
    ] = None,
    budget: Annotated[
        int,
        typer.Option(
            "--budget",
            metavar="N",
            min=1,
            help="Tokens that a search may return; half and twice of it count too.",
        ),
    ] = 512,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, help="Questions at most.")
    ] = 200,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="N",
            help="Of the choice of questions, and of which half a question falls in.",
        ),
    ] = 0,
    device: options.Device = "auto",
    dtype: options.DtypeName = options.Dtype.auto,
    as_json: options.AsJson = False,
) -> None:
    """Choose the recipe of a codebook by questions with labels, or by documents alone.

    Sets out from the codebook's recipe and changes one setting after the other; a change is kept
    where it finds more of the evidence of one half of the questions than chance would. Reports
    the share of evidence found with every value that was tried (recall), its gain over the recipe
    at that point with the standard error, and what the chosen recipe is worth on the other half.
    """
    paths = [*(text or ()), *(more_text or ())]
    _check(questions, paths, out, recipe_only)
    samples = _labelled(questions, split, count, seed) if questions else None
    found = find_files(paths)
    prepare()
    from s3_retriever.calibration import questions_from
    from s3_retriever.calibration.calibrate import calibrate_samples, check_questions

    if samples is None:
        samples = [questions_from(_documents(found), count, seed)]
    check_questions(samples)
    try:
        done = calibrate_samples(
            *_load(host, codebook, device, dtype),
            samples,
            labelled=bool(questions),
            budget=budget,
            seed=seed,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Nothing was written.") from None
    _write(done, out, recipe_only)
    if as_json:
        write_json(done.report())
    else:
        show(results(), done)


def _check(
    questions: str | None, paths: list[str], out: Path | None, recipe_only: Path | None
) -> None:
    """Refuse what cannot be done or written, before the work."""
    if bool(questions) == bool(paths):
        raise typer.BadParameter("Give --questions or --text, one of them.")
    if out is None and recipe_only is None:
        raise typer.BadParameter("Say with --out or --recipe-only where the result goes.")
    if out is not None:
        check_codebook_target(out)
    if recipe_only is not None:
        if recipe_only.exists():
            # Only a recipe is replaced; anything else is refused here.
            options.recipe(str(recipe_only.absolute()))
        recipe_only.parent.mkdir(parents=True, exist_ok=True)


def _labelled(source: str, split: SplitName, count: int, seed: int) -> list[Sample]:
    """The contexts of a question set."""
    from s3_retriever.calibration import LabelledQuestion, Sample
    from s3_retriever.calibration.public_sets import load_set
    from s3_retriever.calibration.question_sets import Choice, build_task

    task = build_task(load_set(source), Choice(split.value, questions=count, seed=seed))
    return [
        Sample(
            context.documents,
            tuple(
                LabelledQuestion(question.text, question.evidence) for question in context.questions
            ),
        )
        for context in task.contexts
    ]


def _documents(files: list[FoundFile]) -> Iterator[Document]:
    """Files as s3 index reads them; of JSON Lines each line is a document, as for s3 fit."""
    lines = [file.path for file in files if file.path.suffix.lower() == ".jsonl"]
    yield from (Document(text) for text in TextFiles(lines))
    yield from documents((file for file in files if file.path not in lines), Counts())


def _load(
    host: str, codebook: str | None, device: str, dtype: options.Dtype
) -> tuple[Host, Codebook]:
    from s3_retriever.engine import find_codebook
    from s3_retriever.host import Host

    name = options.location(host) or host
    book = find_codebook(name, options.location(codebook))
    return Host.load(name, layers=book.depth, device=device, dtype=dtype.value), book


def _write(done: Calibration, out: Path | None, recipe_only: Path | None) -> None:
    if out is not None:
        done.codebook.save(out)
        say(f"Written: {out}")
    if recipe_only is not None:
        recipe_only.write_text(done.recipe.model_dump_json(indent=2) + "\n")
        say(f"Written: {recipe_only}")
