"""S3 in LangChain: a retriever, a tool for agents, a vector store and a document compressor."""

from __future__ import annotations

from importlib.metadata import version

from langchain_s3_retriever.compressor import S3Compressor
from langchain_s3_retriever.retriever import S3Retriever
from langchain_s3_retriever.tool import create_evidence_tool
from langchain_s3_retriever.vector_store import S3VectorStore

__version__ = version("langchain-s3-retriever")

__all__ = ["S3Compressor", "S3Retriever", "S3VectorStore", "__version__", "create_evidence_tool"]
