"""What the relevance floor costs in recall, and what it spares questions without an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import cycle
from statistics import fmean, median
from typing import Any

from tqdm.auto import tqdm

from s3_retriever import Codebook, Host, S3Index, Span
from s3_retriever.calibration.evaluation import evidence_recall
from s3_retriever.calibration.public_sets import load_set
from s3_retriever.calibration.question_sets import Choice, Context, Question, Task, build_task
from s3_retriever.encoder import CachingEncoder
from s3_retriever.engine.s3index import new_store
from s3_retriever.types import Mode

# More than the largest corpus has.
_CACHE_TOKENS = 4_000_000


def run_relevance(
    sources: Sequence[str],
    *,
    host: str,
    codebook: Codebook,
    choice: Choice,
    mode: Mode = "hybrid",
    token_budget: int = 512,
) -> dict[str, Any]:
    """Ask every question of its documents, of what is left without its evidence, and off topic.

    Takes the options of `s3r bench relevance`: `sources` are files or public names, as `load_set`
    reads them. Off topic are the questions of the other sets; with a single set there are none.

    Returns:
        JSON values: `settings`, and for each set the rows `asked`, `taken out` and `off topic`.

    Raises:
        InputError: A set is not usable.
    """
    encoder = CachingEncoder(Host.load(host, layers=codebook.depth), codebook, _CACHE_TOKENS)
    tasks = [build_task(load_set(source), choice) for source in sources]
    sets = {}
    for task in tasks:
        others = [q.text for other in tasks if other is not task for q in other.questions()]
        sets[task.name] = _measure(task, others, encoder, mode, token_budget)
    settings = {"host": host, "mode": mode, "token_budget": token_budget, **asdict(choice)}
    return {"settings": settings, "sets": sets}


def _measure(
    task: Task, off_topic: Sequence[str], encoder: CachingEncoder, mode: Mode, budget: int
) -> dict[str, Any]:
    answers: dict[str, list[dict[str, float]]] = {"asked": [], "taken out": [], "off topic": []}
    others = cycle(off_topic)
    recipe = encoder.codebook.recipe
    count = sum(1 for _ in task.questions())
    with tqdm(total=count, desc=task.name, unit="question", disable=None) as bar:
        for context in task.contexts:
            with closing(S3Index(new_store(None, encoder, recipe, None), encoder, recipe)) as index:
                index.add(context.documents, progress=False)
                for question in context.questions:
                    answers["asked"].append(_ask(index, question.text, mode, budget, question))
                    if off_topic:
                        answers["off topic"].append(_ask(index, next(others), mode, budget))
                    for left in _without_evidence(index, context, question):
                        answers["taken out"].append(_ask(left, question.text, mode, budget))
                    bar.update()
    return {name: _summary(rows) for name, rows in answers.items() if rows}


def _without_evidence(index: S3Index, context: Context, question: Question) -> Iterator[S3Index]:
    """The index without the documents of the evidence, unless it has no others."""
    names = {gold.document_id for gold in question.evidence}
    evidence = [document for document in context.documents if document.id in names]
    if len(evidence) < len(context.documents):
        index.delete(names)
        yield index
        index.add(evidence, progress=False)


def _ask(
    index: S3Index, text: str, mode: Mode, budget: int, question: Question | None = None
) -> dict[str, float]:
    filled = index.search(text, mode=mode, token_budget=budget, min_relevance=0)
    kept = index.search(text, mode=mode, token_budget=budget)
    values = {
        "best": max((span.relevance for span in filled), default=0.0),
        "tokens": _tokens(kept),
        "tokens_without_floor": _tokens(filled),
        "nothing": float(not kept),
    }
    if question is not None:
        values["recall"] = evidence_recall(question.evidence, kept)
        values["recall_without_floor"] = evidence_recall(question.evidence, filled)
    return values


def _tokens(spans: Sequence[Span]) -> float:
    return float(sum(span.tokens for span in spans))


def _summary(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    means = {name: round(fmean(row[name] for row in rows), 4) for name in rows[0] if name != "best"}
    best = round(median(row["best"] for row in rows), 4)
    return {"questions": len(rows), **means, "median_best_relevance": best}
