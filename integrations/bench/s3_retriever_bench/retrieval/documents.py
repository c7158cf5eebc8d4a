"""Documents ranked for queries, methods side by side on judged collections of any subject.

Collections have BEIR's form, and runs TREC's.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from s3_retriever import Codebook, Document, Host, InputError, S3Index
from s3_retriever.calibration.question_sets import split_of
from s3_retriever.types import Mode, Split
from s3_retriever_bench.retrieval.methods import reciprocal_ranks
from s3_retriever_bench.retrieval.rankers import Embedder, Scores, StemmedRanker, best, z_scores
from s3_retriever_bench.shared.corpus import parsed_file, string
from s3_retriever_bench.shared.statistics import difference, estimate
from s3_retriever_bench.shared.storage import Store, check_names, codebook_settings, files_digest

# The best documents for a query, with their scores.
Ranker = Callable[[str], dict[str, float]]
# Documents of a baseline's run, as is usual; those that each half of an ensemble adds.
_DEPTH = 1_000
# Documents of a run of S3, which reads the spans of each: as many as the measures look at.
_SEARCHED = 100
# Values of each query, by their name in trec_eval.
MEASURES = {"ndcg@10": "ndcg_cut_10", "recall@100": "recall_100", "mrr": "recip_rank"}
ENSEMBLES = {"ensemble-rrf": reciprocal_ranks, "ensemble-zscore": z_scores}
MODES: Mapping[str, Mode] = {"s3": "s3", "hybrid": "hybrid"}
METHODS = ("bm25", "dense", *ENSEMBLES, *MODES)
# What the others are compared with is the best of these.
BASELINES = ("bm25", "dense", *ENSEMBLES)


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of `s3r bench retrieval`.

    Attributes:
        data: Folders in BEIR's form.
        host: Name of the host.
        codebook: Its codebook.
        judgments: Which file of judgments of each folder.
        split: Which of its queries, as in `read_collection`.
        queries: Most queries of a folder; None for all.
        methods: Names from `METHODS`; empty for all.
        seed: Seed of resampling.
        folder: Where to keep runs, indexes and figures; None keeps nothing.
        fresh: Whether to measure again what the folder holds.
    """

    data: Sequence[Path]
    host: str
    codebook: Codebook
    judgments: str = "test"
    split: Split = "all"
    queries: int | None = None
    methods: Sequence[str] = ()
    seed: int = 0
    folder: Path | None = None
    fresh: bool = False


def run_retrieval(plan: Plan) -> dict[str, Any]:
    """Rank the documents of collections with several methods.

    With a folder, the runs are written there in TREC's form, and a run with the same settings
    resumes.

    Returns:
        JSON values: `settings`, `machine`, `versions`, and `sets` by name: the values of each
        query by method and measure, their means with intervals, and the paired difference of
        nDCG@10 to the best baseline.

    Raises:
        InputError: A folder or a method is not usable, or the folder has results of other settings.
    """
    check_names(plan.methods, METHODS, "method")
    names = [name for name in METHODS if name in (plan.methods or METHODS)]
    collections = [
        read_collection(path, plan.judgments, plan.split, plan.queries) for path in plan.data
    ]
    twice = {c.name for c in collections if sum(c.name == o.name for o in collections) > 1}
    if twice:
        raise InputError(f"Two folders are named {min(twice)!r}; rename one of them.")
    settings = {
        "host": plan.host,
        **codebook_settings(plan.codebook),
        "judgments": plan.judgments,
        "split": plan.split,
        "queries": plan.queries,
        "seed": plan.seed,
    }
    if plan.folder is not None and plan.fresh:
        for name in ("runs", "indexes"):
            shutil.rmtree(plan.folder / name, ignore_errors=True)
    store = Store(plan.folder, settings, plan.fresh)
    with store.resumable():
        sets = {
            each.name: _measure(each, names, _Rankers(each, plan), store, plan.seed)
            for each in collections
        }
    return store.figures("s3-retriever", "bm25s", "sentence-transformers", "numpy", sets=sets)


class _Rankers:
    """The runs of all methods on a collection, each made when first needed.

    Args:
        collection: What is ranked.
        plan: The host, and where runs and the index are kept.
    """

    def __init__(self, collection: Collection, plan: Plan) -> None:
        self._collection = collection
        self._plan = plan
        self._known: dict[str, Run] = {}

    def run(self, method: str) -> Run:
        """The best documents of each query with their scores; from the folder if they are there."""
        if method not in self._known:
            path = self._path(f"runs/{self._collection.name}--{method}.trec")
            if path is not None and path.is_file():
                self._known[method] = read_run(path)
            else:
                self._known[method] = self._ranked(method)
                if path is not None:
                    write_run(path, self._known[method], method)
        return self._known[method]

    def _ranked(self, method: str) -> Run:
        if method in ENSEMBLES:
            return self._fused(ENSEMBLES[method])
        ranker = self._searched(MODES[method]) if method in MODES else self._scored(method)
        queries = self._collection.queries
        label = f"{self._collection.name}: {method}"
        bar = tqdm(queries.items(), desc=label, unit="query", disable=None)
        return {query: ranker(text) for query, text in bar}

    def _scored(self, method: str) -> Ranker:
        """A ranker that scores every document."""
        texts = [f"{each.title} {each.text}".strip() for each in self._collection.documents]
        ids = [each.id for each in self._collection.documents]
        score = StemmedRanker(texts).scores if method == "bm25" else self._dense(texts)
        return lambda query: _best(ids, score(query))

    def _searched(self, mode: Mode) -> Ranker:
        """A ranker that searches an index for documents; copies of documents count too."""

        def ranked(query: str) -> dict[str, float]:
            found = self._index.search(
                query, _SEARCHED, mode=mode, group_by="document", spans_per_document=1, unique=False
            )
            return {each.document_id: each.score for each in found}

        return ranked

    def _fused(self, fuse: Callable[[Scores, Scores], Scores]) -> Run:
        """BM25 and dense fused; a document that a run lacks has the run's lowest score."""
        fused: Run = {}
        lexical, dense = self.run("bm25"), self.run("dense")
        for query in self._collection.queries:
            runs = [lexical.get(query) or {"": 0.0}, dense.get(query) or {"": 0.0}]
            ids = sorted(set().union(*runs) - {""})
            columns = [np.array([run.get(each, min(run.values())) for each in ids]) for run in runs]
            fused[query] = _best(ids, fuse(columns[0], columns[1]))
        return fused

    @cached_property
    def _host(self) -> Host:
        return Host.load(self._plan.host, layers=self._plan.codebook.depth)

    def _dense(self, texts: Sequence[str]) -> Callable[[str], Scores]:
        embedder = Embedder(self._host, self._plan.codebook)
        vectors = embedder.vectors(texts)

        def cosines(query: str) -> Scores:
            return np.asarray(vectors @ np.array(embedder.embed_query(query)), dtype=np.float64)

        return cosines

    @cached_property
    def _index(self) -> S3Index:
        """All documents, indexed; kept in the folder, if there is one."""
        path = self._path(f"indexes/{self._collection.name}.s3r")
        options: dict[str, Any] = {"codebook": self._plan.codebook}
        if path is not None and path.exists():
            index = S3Index.open(path, self._host, **options)
        else:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            index = S3Index.create(path, self._host, **options)
        # An interrupted addition leaves an index empty.
        if not len(index):
            index.add(self._collection.documents)
        return index

    def _path(self, name: str) -> Path | None:
        return None if self._plan.folder is None else self._plan.folder / name


def _best(ids: Sequence[str], scores: Scores) -> dict[str, float]:
    return {ids[place]: float(scores[place]) for place in best(scores, _DEPTH)}


def _measure(
    collection: Collection, names: Sequence[str], rankers: _Rankers, store: Store, seed: int
) -> dict[str, Any]:
    def measure(name: str) -> dict[str, Any]:
        return evaluate(collection.judgments, rankers.run(name), MEASURES)

    values = {
        name: store.measured(collection.name, name, collection.digest, partial(measure, name))
        for name in names
    }
    queries = list(collection.queries)
    means = {
        name: {measure: _estimate(its[measure], queries, seed) for measure in MEASURES}
        for name, its in values.items()
    }
    gains = {}
    baselines = [name for name in names if name in BASELINES]
    if baselines:
        strongest = max(baselines, key=lambda name: np.mean(values[name]["ndcg@10"]))
        for name in (name for name in names if name not in BASELINES):
            gain = difference(values[name]["ndcg@10"], values[strongest]["ndcg@10"], queries, seed)
            assert gain is not None
            gains[name] = {"baseline": strongest, "estimate": asdict(gain)}
    return {
        "documents": len(collection.documents),
        "queries": queries,
        "values": values,
        "means": means,
        "gains": gains,
    }


def _estimate(values: Sequence[float], queries: Sequence[str], seed: int) -> dict[str, float]:
    mean = estimate(values, queries, seed)
    assert mean is not None
    return mean.figures()


# Scores of documents by the id of the query and the document.
Run = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, queries, and which documents are relevant to each query.

    Attributes:
        name: Name of its folder.
        documents: All documents.
        queries: Texts of the judged queries by id.
        judgments: Grades of documents, 0 for not relevant, by the ids of query and document.
        digest: A hash of the files and of the choice of queries.
    """

    name: str
    documents: tuple[Document, ...]
    queries: Mapping[str, str]
    judgments: Mapping[str, Mapping[str, int]]
    digest: str


def read_collection(
    folder: Path, judgments: str = "test", split: Split = "all", queries: int | None = None
) -> Collection:
    """Read a collection in BEIR's form.

    Args:
        folder: Has `corpus.jsonl` (`_id`, `text` and optionally `title` in each line),
            `queries.jsonl` (`_id` and `text`) and `qrels/NAME.tsv` (query, document and grade).
        judgments: The name of the file of judgments.
        split: Which of its queries: `all`, or the share that the project tunes on (`dev`) or
            reports (`test`), by a hash of their ids.
        queries: Most queries, the first ones; None for all.

    Raises:
        InputError: A file is missing or has another form, or no query is left.
    """
    corpus, asked = folder / "corpus.jsonl", folder / "queries.jsonl"
    grades = folder / "qrels" / f"{judgments}.tsv"
    try:
        judged = _judged(grades, split)
        texts = dict(parsed_file(asked, _query, "a JSON object with _id and text"))
        documents = tuple(parsed_file(corpus, _document, "a JSON object with _id and text"))
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}; a collection in BEIR's form has "
            "corpus.jsonl, queries.jsonl and qrels/NAME.tsv."
        ) from error
    names = [query for query in judged if query in texts][:queries]
    if not names:
        raise InputError(f"{folder} has no judged query of split {split!r}; choose another.")
    return Collection(
        folder.resolve().name,
        documents,
        {query: texts[query] for query in names},
        {query: judged[query] for query in names},
        files_digest([corpus, asked, grades], (split, queries)),
    )


def _document(row: Mapping[str, Any]) -> Document:
    title = row.get("title") or ""
    return Document(string(row, "text"), str(row["_id"]), {"title": title} if title else {})


def _query(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["_id"]), string(row, "text")


def _judged(path: Path, split: Split) -> dict[str, dict[str, int]]:
    """Grades by query and document; a query without a relevant one is left out, as in trec_eval."""
    judged: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", errors="replace", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t")
        try:
            for row in rows:
                if row and not (rows.line_num == 1 and row[0].startswith("query")):
                    query, document, grade = row
                    if split in ("all", split_of(query)):
                        judged.setdefault(query, {})[document] = int(grade)
        except (ValueError, csv.Error) as error:
            raise InputError(
                f"{path}, line {rows.line_num}, is not a query, a document and a grade: {error}"
            ) from error
    return {query: its for query, its in judged.items() if any(g > 0 for g in its.values())}


def write_run(path: Path, run: Run, tag: str) -> None:
    """Write a run as TREC does: query, Q0, document, rank, score and tag in each line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for query, scores in run.items():
            ranked = sorted(scores.items(), key=lambda item: -item[1])
            for rank, (document, score) in enumerate(ranked, 1):
                file.write(f"{query} Q0 {document} {rank} {score:.9g} {tag}\n")
    partial.replace(path)


def read_run(path: Path) -> Run:
    """Read a run that `write_run` wrote.

    Raises:
        InputError: The file is not a run.
    """
    run: Run = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            query, _, document, _, score, _ = line.split(" ")
            run.setdefault(query, {})[document] = float(score)
    except ValueError as error:
        raise InputError(f"{path} is not a run: {error}; remove it to rank again.") from error
    return run


def evaluate(
    judgments: Mapping[str, Mapping[str, int]], run: Run, measures: Mapping[str, str]
) -> dict[str, list[float]]:
    """Values of each query, in the order of the judgments, as `trec_eval` computes them.

    Args:
        judgments: As in `Collection`.
        run: The run; a query without documents has 0.
        measures: Names of `trec_eval`, such as `ndcg_cut_10`, by the names of the values.
    """
    import pytrec_eval

    known = {query: dict(its) for query, its in judgments.items()}
    results: dict[str, Any] = pytrec_eval.RelevanceEvaluator(
        known, set(measures.values())
    ).evaluate({query: run.get(query, {}) for query in known})
    return {
        name: [round(float(results.get(query, {}).get(its, 0.0)), 4) for query in known]
        for name, its in measures.items()
    }
