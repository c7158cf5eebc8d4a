"""Samples from files, or from public LongBench."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from zipfile import ZipFile

from huggingface_hub import hf_hub_download

from s3_retriever.errors import InputError
from s3_retriever_bench.longcontext.samples import Sample, parse_sample
from s3_retriever_bench.longcontext.tasks import TASKS

# What LongBench's loading script, which `datasets` no longer runs, downloads: a file
# `data/NAME.jsonl` for each task.
_REPOSITORY = "THUDM/LongBench"
_ARCHIVE = "data.zip"


def read_samples(files: Sequence[Path], names: Sequence[str]) -> list[Sample]:
    """The samples of files and of public tasks; the same question in two files counts once.

    Args:
        files: JSON Lines; `parse_sample` says their form.
        names: Tasks of public LongBench, from the Hub.

    Raises:
        InputError: A file or a row is not usable, there is no such task, or the Hub is out of
            reach.
    """
    return list({sample.digest: sample for sample in _all(files, names)}.values())


def choose(samples: Iterable[Sample], questions: int | None, seed: int) -> list[Sample]:
    """Samples task by task, shuffled.

    Args:
        samples: To choose from.
        questions: Samples of a task at most; all where None.
        seed: Of shuffling.
    """
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task.name, []).append(sample)
    return [
        sample
        for found in by_task.values()
        for sample in random.Random(seed).sample(found, len(found))[:questions]  # noqa: S311
    ]


def _all(files: Sequence[Path], names: Sequence[str]) -> Iterator[Sample]:
    for name in names:
        if name not in TASKS:
            raise InputError(f"There is no task {name!r}; choose from {', '.join(TASKS)}.")
    for path in files:
        yield from _file(path)
    for name in names:
        yield from _public(name)


def _file(path: Path) -> Iterator[Sample]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            found = list(_lines(str(path), lines))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); pass a JSON Lines file of LongBench's form "
            "to --data."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason}); convert it first.") from error
    if not found:
        raise InputError(f"{path} has no questions; pass a file with one in each line.")
    yield from found


def _public(name: str) -> Iterator[Sample]:
    try:
        path = hf_hub_download(_REPOSITORY, _ARCHIVE, repo_type="dataset")
        with ZipFile(path) as archive:
            lines = archive.read(f"data/{name}.jsonl").decode().split("\n")
    # The Hub's client lets errors of its HTTP library through, which have no common base.
    except Exception as error:
        raise InputError(
            f"Public LongBench ({_REPOSITORY} on the Hub) is out of reach; check the connection, "
            f"or pass files to --data instead ({error})."
        ) from error
    yield from _lines(f"{_REPOSITORY} {name}", lines)


def _lines(name: str, lines: Iterable[str]) -> Iterator[Sample]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is no JSON object")  # noqa: TRY004 - told like the others
            yield parse_sample(row)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{name}, line {number}, cannot be used ({error}); a line is a JSON object with "
                "dataset, answers, and either context and input, or prompt."
            ) from error
