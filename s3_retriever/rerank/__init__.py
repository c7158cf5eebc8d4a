"""Rerank: a language model reads the best passages again, together with the question."""

from s3_retriever.rerank.reranker import Reranker

__all__ = ["Reranker"]
