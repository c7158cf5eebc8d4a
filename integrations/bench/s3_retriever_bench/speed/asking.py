"""Asking everybody the same questions in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from s3_retriever_bench.speed.timing import Ask, Timing, describe


def ask_in_turn(
    asks: Mapping[str, Ask], questions: Sequence[str], warm_up: Sequence[str], label: str
) -> dict[str, dict[str, Any]]:
    """Ask all of them each question, one right after the other.

    What else the machine does then hits all of them alike. Who begins changes from question to
    question, as each leaves the caches of the processor to the next one.

    Args:
        asks: By name, what is asked.
        questions: The questions.
        warm_up: Asked before, and not counted: first searches compile, and read from the disk.
        label: Of the progress bar.

    Returns:
        By name, what `describe` says of the searches.
    """
    found: dict[str, list[Timing]] = {name: [] for name in asks}
    names = list(asks)
    with tqdm(total=len(warm_up) + len(questions), desc=label, unit="question", disable=None) as b:
        for question in warm_up:
            for name in names:
                asks[name](question)
            b.update()
        for number, question in enumerate(questions):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                found[name].append(asks[name](question))
            b.update()
    return {name: describe(timings) for name, timings in found.items()}


def median_ratio(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Median over the questions of the whole time of one search over that of another."""
    values = np.array(one["whole_ms"]["values"]) / np.array(other["whole_ms"]["values"])
    return round(float(np.median(values)), 3)
