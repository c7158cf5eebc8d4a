"""Export: the sentences of an index as vectors for another engine, and questions for them.

Three signals are dot products, two of sparse vectors and one of dense ones. How rare something is
goes into the question's vector. What an engine finds is ranked exactly by a search of the index
with `where={"$ids": [...]}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s3_retriever.engine.s3index import S3Index
from s3_retriever.errors import IndexStoreError, InputError, S3Error
from s3_retriever.index import Segment, Snapshot
from s3_retriever.index.files import writing
from s3_retriever.quantization import STEP
from s3_retriever.recipe import FeatureAttention, FeatureCoverage, Recipe
from s3_retriever.remote import local_path
from s3_retriever.search.parts import Sizes
from s3_retriever.search.signals import (
    K1,
    B,
    Coactivation,
    QuestionTerm,
    count_terms,
    question_weights,
)
from s3_retriever.text import term_hash
from s3_retriever.types import check_text, check_type

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

SENTENCES_FILE = "sentences.parquet"
# Engines number the axes of sparse vectors with 32 bits. Two terms of a million share one about
# a hundred times.
_TERM_MASK = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Entries of a vector that are not 0.

    Attributes:
        indices: Ascending, int64 [n], below 2**32.
        values: float32 [n].
    """

    indices: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class QuestionVectors:
    """A question as vectors whose products with those of a sentence are its raw scores.

    Attributes:
        features: For the sentences' `features`: the `s3` score; exact if the recipe scores
            `FeatureCoverage`.
        terms: For the sentences' `terms`: the BM25 score, but for terms that share an index.
        vector: For the sentences' `vector`, float32 [axes]: the cosine of mean states; None if
            the recipe does not score sentences.
    """

    features: SparseVector
    terms: SparseVector
    vector: NDArray[np.float32] | None


def export_index(index: S3Index, folder: str | Path) -> Path:
    """Write the sentences of an index as Parquet, for an engine that has other data already.

    The columns of `sentences.parquet`, a row for each sentence:

    - `id`, `document_id`, `text`, `start`, `end` (characters of the document), `tokens`
    - `metadata`: of the document, as JSON
    - `features.indices`, `features.values`: a sparse vector of the features that fire
    - `terms.indices`, `terms.values`: a sparse vector of the terms, saturated as BM25 does
    - `vector`: the mean state, float32 of a fixed length, if the recipe scores sentences

    The schema's metadata has, under `s3_retriever`, how the index was made. No host is loaded.

    Args:
        index: The index.
        folder: Where to write, empty or new.

    Returns:
        The file.

    Raises:
        InputError: The recipe has scoring `FeatureAttention`.
        S3Error: pyarrow is missing.
        IndexStoreError: The index is damaged, or the folder is in use or cannot be written.
    """
    check_type(index, S3Index, "index")
    _check_scoring(index.recipe)
    try:
        from pyarrow.parquet import ParquetWriter
    except ModuleNotFoundError as error:
        raise S3Error(
            "Export needs the library pyarrow; install it with: pip install 's3-retriever[export]'"
        ) from error
    target, snapshot = local_path(folder), index.snapshot()
    with writing(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise IndexStoreError(f"{target} is in use; choose an empty or a new folder.")
        target.mkdir(parents=True, exist_ok=True)
    schema = _schema(index.recipe, snapshot, index.stats())
    file, draft = target / SENTENCES_FILE, target / f"{SENTENCES_FILE}.tmp"
    try:
        with writing(draft):
            # Arrow takes a relative path with a colon for a URL.
            with ParquetWriter(draft.absolute(), schema) as writer:
                for table in _tables(snapshot, index.recipe, schema):
                    writer.write_table(table)
            draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return file


def question_vectors(index: S3Index, question: str) -> QuestionVectors:
    """Encode a question for an engine that holds the exported sentences.

    Args:
        index: The index they were exported from, whose frequencies count.
        question: Any text.

    Raises:
        InputError: The question is empty, or the recipe has scoring `FeatureAttention`.
        S3Error: The host or its codebook cannot be loaded.
    """
    check_type(index, S3Index, "index")
    check_text(question, "question")
    _check_scoring(index.recipe)
    snapshot, recipe = index.snapshot(), index.recipe
    encoded = index.encoder.question(question, recipe)
    weights = question_weights(encoded.features, recipe)
    scored = Coactivation(snapshot, weights, recipe).weights
    first = _first_indices(snapshot)
    features = [(weights[tap].features + first.get(tap, 0), scored[tap]) for tap in weights]
    return QuestionVectors(
        _sparse(features),
        _sparse(_term_weights(snapshot, count_terms(question, snapshot.languages))),
        encoded.direction,
    )


def _check_scoring(recipe: Recipe) -> None:
    if isinstance(recipe.scoring, FeatureAttention):
        raise InputError(
            f"Recipe {recipe.name!r} has scoring {recipe.scoring.kind}, a softmax over all tokens, "
            "which no product of vectors computes; export an index of another recipe."
        )


def _term_weights(
    snapshot: Snapshot, counted: Mapping[str, QuestionTerm]
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """The indices of each term of a question, and its IDF times its occurrences."""
    total, parts = snapshot.n_sentences, []
    for term in counted.values():
        hashes = np.array([term_hash(name) for name in term.alternatives], dtype=np.uint64)
        frequency = 0
        for segment in snapshot.segments:
            sentences, _, _ = segment.lexical(hashes)
            frequency += int(segment.live_sentences[sentences].sum())
        weight = np.log1p((total - frequency + 0.5) / (frequency + 0.5)) * term.occurrences
        parts.append(((hashes & _TERM_MASK).astype(np.int64), np.full(len(hashes), weight)))
    return parts


def _sparse(parts: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]) -> SparseVector:
    """A vector of entries; those with the same index are added up, and zeros left out."""
    indices = np.concatenate([np.zeros(0, dtype=np.int64), *(part[0] for part in parts)])
    values = np.concatenate([np.zeros(0), *(part[1] for part in parts)])
    unique, inverse = np.unique(indices, return_inverse=True)
    total = np.bincount(inverse, values, minlength=len(unique)).astype(np.float32)
    return SparseVector(unique[total != 0], total[total != 0])


def _first_indices(snapshot: Snapshot) -> dict[str, int]:
    """Where the features of each tap begin in the vector of all features."""
    sizes = snapshot.segments[0].entry.features if snapshot.segments else {}
    ends = np.cumsum([0, *sizes.values()]).tolist()
    return dict(zip(sizes, ends, strict=False))


def _schema(recipe: Recipe, snapshot: Snapshot, stats: Mapping[str, Any]) -> pa.Schema:
    import pyarrow as pa

    sparse = [("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))]
    fields = [
        ("id", pa.string()),
        ("document_id", pa.string()),
        ("text", pa.string()),
        ("start", pa.uint32()),
        ("end", pa.uint32()),
        ("tokens", pa.uint32()),
        ("metadata", pa.string()),
        *((f"{name}.{part}", kind) for name in ("features", "terms") for part, kind in sparse),
    ]
    size = snapshot.segments[0].entry.vector_bytes if snapshot.segments else 0
    if recipe.sentence is not None and size:
        fields.append(("vector", pa.list_(pa.float32(), 2 * size)))
    about = {key: stats[key] for key in ("host", "codebook", "recipe", "sentences")}
    about["features"] = _first_indices(snapshot)
    return pa.schema(fields, metadata={"s3_retriever": json.dumps(about)})


def _tables(snapshot: Snapshot, recipe: Recipe, schema: pa.Schema) -> Iterator[pa.Table]:
    """The live sentences of a snapshot, a block of postings at a time."""
    import pyarrow as pa

    mean_terms = Sizes.of(snapshot).mean_terms
    for segment in snapshot.segments:
        terms = _TermReader(segment)
        for block, (first, end) in enumerate(pairwise(segment.blocks.tolist())):
            live = np.flatnonzero(segment.live_sentences[first:end]) + first
            columns = {
                **_texts(segment, live),
                **_columns("features", *_features(segment, recipe, block, live)),
                **_columns("terms", *terms.vectors(end, live, mean_terms)),
            }
            if "vector" in schema.names:
                values = _directions(segment.vectors(first, end)[live - first])
                kind = schema.field("vector").type
                columns["vector"] = pa.FixedSizeListArray.from_arrays(values.ravel(), type=kind)
            yield pa.table(columns, schema=schema)


def _texts(segment: Segment, live: NDArray[np.int64]) -> dict[str, Any]:
    rows = segment.sentences[live]
    documents = [segment.document(ordinal) for ordinal in np.unique(rows["document"]).tolist()]
    which = np.unique(rows["document"], return_inverse=True)[1].tolist()
    ids = [documents[place].id for place in which]
    metadata = [json.dumps(document.metadata, ensure_ascii=False) for document in documents]
    starts, ends = rows["start"], rows["end"]
    return {
        "id": [f"{n}:{s}-{e}" for n, s, e in zip(ids, starts, ends, strict=True)],
        "document_id": ids,
        "text": [segment.text(sentence, sentence) for sentence in live.tolist()],
        "start": starts,
        "end": ends,
        "tokens": rows["n_tokens"],
        "metadata": [metadata[place] for place in which],
    }


def _columns(
    name: str, lengths: NDArray[np.int64], indices: NDArray[Any], values: NDArray[Any]
) -> dict[str, Any]:
    """Two columns of lists, the indices and the values of sparse vectors of some lengths."""
    import pyarrow as pa

    ends = np.append(0, np.cumsum(lengths)).astype(np.int32)
    return {
        f"{name}.indices": pa.ListArray.from_arrays(ends, pa.array(indices.astype(np.uint32))),
        f"{name}.values": pa.ListArray.from_arrays(ends, pa.array(values.astype(np.float32))),
    }


def _features(
    segment: Segment, recipe: Recipe, block: int, live: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The features that fire in each sentence, all of a sentence with the same value.

    Returns:
        Numbers of features [n], their indices, and the values: what a sentence's length leaves of
        a feature's weight.
    """
    first, end = segment.blocks[block : block + 2].tolist()
    owners = np.repeat(np.arange(first, end), segment.sentence_tokens[first:end])
    span = sum(segment.entry.features.values())
    pairs = [np.zeros(0, dtype=np.int64)]
    begin = 0
    for tap, size in segment.entry.features.items():
        rows = segment.block_features(tap, block).astype(np.int64)
        keys = owners[:, None] * span + begin + rows
        pairs.append(keys[rows >= 0])
        begin += size
    unique = np.unique(np.concatenate(pairs))
    numbers, indices = unique // max(span, 1), unique % max(span, 1)
    kept = segment.live_sentences[numbers]
    numbers, indices = numbers[kept], indices[kept]
    scoring = recipe.scoring
    power = scoring.length_power if isinstance(scoring, FeatureCoverage) else 0.0
    lengths = segment.sentence_tokens[numbers].astype(np.float64)
    values = np.asarray(np.power(lengths, -power), dtype=np.float64)
    sizes = np.bincount(numbers - first, minlength=end - first)[live - first]
    return sizes.astype(np.int64), indices, values


class _TermReader:
    """Reads the terms of a segment's sentences, from the first to the last."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._blocks = segment.lexical_blocks()
        self._pending = [(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.uint8))]
        self._reached = -1

    def vectors(
        self, end: int, live: NDArray[np.int64], mean: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """The terms of the sentences before `end` that were not read yet.

        Args:
            end: The sentence at which to stop.
            live: Those that are wanted, ascending.
            mean: Mean length of all sentences in terms.

        Returns:
            Numbers of terms [n], their indices, and the values: counts as BM25 saturates them.
        """
        while self._reached < end and (block := next(self._blocks, None)) is not None:
            self._pending.append(block)
            self._reached = int(block[0][-1]) if len(block[0]) else self._reached
        sentences, hashes, counts = map(np.concatenate, zip(*self._pending, strict=True))
        now = sentences < end
        self._pending = [(sentences[~now], hashes[~now], counts[~now])]
        now &= np.isin(sentences, live)
        sentences, hashes, counts = sentences[now], hashes[now], counts[now].astype(np.float64)
        lengths = self._segment.sentences["n_terms"][sentences].astype(np.float64)
        values = counts * (K1 + 1) / (counts + K1 * (1 - B + B * lengths / max(mean, 1.0)))
        keys = (sentences.astype(np.uint64) << np.uint64(32)) | (hashes & _TERM_MASK)
        unique, inverse = np.unique(keys, return_inverse=True)
        owners = (unique >> np.uint64(32)).astype(np.int64)
        total = np.bincount(inverse, values, minlength=len(unique)).astype(np.float64)
        sizes = np.bincount(owners, minlength=end)[live].astype(np.int64)
        return sizes, (unique & _TERM_MASK).astype(np.int64), total


def _directions(vectors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Quantized vectors [n, bytes] as float32 [n, axes], whose products with a direction count."""
    values = np.stack([vectors & 15, vectors >> 4], axis=2).reshape(len(vectors), -1)
    step = STEP / values.shape[1] ** 0.5 if values.size else 0.0
    return ((values.astype(np.float32) - 7.5) * np.float32(step)).astype(np.float32)
