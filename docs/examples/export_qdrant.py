"""Sentences of an index in Qdrant, and what it finds ranked exactly at home.

Needs qdrant-client, which runs in this process: no server, no network.

    pip install 's3-retriever[minilm,export]' qdrant-client
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from qdrant_client import QdrantClient, models
from rich.console import Console

from s3_retriever import S3Index, Span, export_index, question_vectors, read_files
from s3_retriever.engine.exporting import QuestionVectors, SparseVector

COLLECTION = "sentences"
# One more than the best sentences of each signal over which a search standardises its scores.
CANDIDATES = 257
DOCS = Path(__file__).parents[1]
console = Console(markup=False, highlight=False)


def load(client: QdrantClient, file: Path) -> None:
    """Load exported sentences into a new collection."""
    parquet = pq.ParquetFile(file)
    size = parquet.schema_arrow.field("vector").type.list_size
    client.create_collection(
        COLLECTION,
        # The vectors are scaled so that their products with a question's are the scores.
        vectors_config={"vector": models.VectorParams(size=size, distance=models.Distance.DOT)},
        sparse_vectors_config={
            "features": models.SparseVectorParams(),
            "terms": models.SparseVectorParams(),
        },
    )
    client.upload_points(COLLECTION, _points(parquet), wait=True)


def _points(parquet: pq.ParquetFile) -> Iterator[models.PointStruct]:
    number = 0
    for batch in parquet.iter_batches(256):
        for row in batch.to_pylist():
            vectors: dict[str, Any] = {
                name: models.SparseVector(
                    indices=row[f"{name}.indices"], values=row[f"{name}.values"]
                )
                for name in ("features", "terms")
            }
            yield models.PointStruct(
                id=number,
                vector={**vectors, "vector": row["vector"]},
                payload={"id": row["id"], "document_id": row["document_id"], "text": row["text"]},
            )
            number += 1


def candidates(client: QdrantClient, question: QuestionVectors, n: int = CANDIDATES) -> list[str]:
    """The documents of the best sentences by each signal."""
    found = dict.fromkeys(
        point.payload["document_id"]
        for name, vector in _vectors(question)
        for point in client.query_points(COLLECTION, query=vector, using=name, limit=n).points
        if point.payload is not None
    )
    return list(found)


def fused(client: QdrantClient, question: QuestionVectors, k: int) -> list[str]:
    """Ids of the best sentences as Qdrant fuses the signals by itself."""
    prefetch = [
        models.Prefetch(query=vector, using=name, limit=CANDIDATES)
        for name, vector in _vectors(question)
    ]
    fusion = models.FusionQuery(fusion=models.Fusion.RRF)
    found = client.query_points(COLLECTION, prefetch=prefetch, query=fusion, limit=k)
    return [point.payload["id"] for point in found.points if point.payload is not None]


def _vectors(question: QuestionVectors) -> list[tuple[str, Any]]:
    vectors: list[tuple[str, Any]] = [
        ("features", _sparse(question.features)),
        ("terms", _sparse(question.terms)),
    ]
    if question.vector is not None:
        vectors.append(("vector", question.vector.tolist()))
    return vectors


def _sparse(vector: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())


def search(client: QdrantClient, index: S3Index, question: str, k: int) -> list[Span]:
    """Find spans with Qdrant, and rank them as the index does."""
    ids = candidates(client, question_vectors(index, question))
    return index.search(question, k, where={"$ids": ids})


def main() -> None:
    """Search the documentation of this project."""
    client = QdrantClient(":memory:")
    with S3Index.create(device="cpu") as index, tempfile.TemporaryDirectory() as folder:
        index.add(read_files(sorted(DOCS.glob("*.md")), base=DOCS))
        load(client, export_index(index, Path(folder) / "export"))
        for question in ("How does a merge copy rows?", "Which file commits a change?"):
            spans = search(client, index, question, 3)
            exact = index.search(question, 3)
            same = [span.id for span in spans] == [span.id for span in exact]
            console.rule(f"{question} ({'as the index' if same else 'not as the index'})")
            for span in spans:
                console.print(f"{span.score:6.2f}  {span.document_id}: {span.text}")


if __name__ == "__main__":
    main()
