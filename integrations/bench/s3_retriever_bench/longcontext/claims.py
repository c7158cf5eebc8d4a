"""What the package claims about answering from evidence, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from s3_retriever_bench.claims import Claim
from s3_retriever_bench.longcontext.summary import Measure, Summary

Figures = Mapping[str, Any]


def check_claims(figures: Figures) -> list[dict[str, Any]]:
    """Compare all claims with the figures of a run.

    Args:
        figures: Of the run: settings, questions, values and needles.

    Returns:
        JSON values of each, as `Claim.figures` gives them.
    """
    summary = Summary(figures)
    return [claim.figures() for claim in [*_questions(summary), _needles(figures)]]


def _questions(summary: Summary) -> Iterator[Claim]:
    at = f"@{summary.middle:,}"
    # The paper's hybrid keeps 97.7 to 99.3 % of the score (S3-Attention, table 1), and its S3
    # alone is below BM25.
    yield _claim(summary, f"Score, hybrid {at} over full", 0.98, "hybrid", "full", "score")
    for method, other in (("hybrid", "bm25"), ("hybrid", "dense"), ("s3", "bm25")):
        name = f"Answer recall, {method} over {other} {at}"
        yield _claim(summary, name, 1, method, other, "recall")


def _claim(
    summary: Summary, name: str, bound: float, method: str, other: str, measure: Measure
) -> Claim:
    ratio = summary.ratio(method, other, measure)
    return Claim(name, "at least", bound, None if ratio is None else round(ratio, 4))


def _needles(figures: Figures) -> Claim:
    cells = [
        share
        for by_method in figures["needles"].values()
        if "hybrid" in by_method
        for share in by_method["hybrid"]["found"]
    ]
    measured = round(fmean(cells), 4) if cells else None
    return Claim("Needles in the evidence, hybrid", "at least", 0.99, measured)
