"""S3 for LlamaIndex: spans of evidence as nodes."""

from __future__ import annotations

from llama_index.retrievers.s3_attention.base import S3Retriever
from llama_index.retrievers.s3_attention.postprocessor import S3NodePostprocessor

__all__ = ["S3NodePostprocessor", "S3Retriever"]
