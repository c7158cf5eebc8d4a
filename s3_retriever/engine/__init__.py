"""The engine: `S3Index` and `Compressor`, the objects that users hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from s3_retriever.engine.building import new_index
from s3_retriever.engine.combining import merge_indexes, split_index
from s3_retriever.engine.hosting import find_codebook, shared_host
from s3_retriever.engine.s3index import S3Index

if TYPE_CHECKING:
    from s3_retriever.engine.compressor import Compressor
    from s3_retriever.engine.exporting import QuestionVectors, export_index, question_vectors

__all__ = [
    "Compressor",
    "QuestionVectors",
    "S3Index",
    "export_index",
    "find_codebook",
    "merge_indexes",
    "new_index",
    "question_vectors",
    "shared_host",
    "split_index",
]


def __getattr__(name: str) -> object:
    # A compressor imports torch, which an index searched by BM25 does without.
    if name == "Compressor":
        from s3_retriever.engine.compressor import Compressor

        return Compressor
    # Few programs export.
    if name in ("QuestionVectors", "export_index", "question_vectors"):
        from s3_retriever.engine import exporting

        return getattr(exporting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
