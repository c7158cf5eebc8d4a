"""The engine: `S3Index` and `Compressor`, the objects that users hold."""

from s3_retriever.engine.compressor import Compressor
from s3_retriever.engine.hosting import find_codebook, shared_host
from s3_retriever.engine.s3index import S3Index

__all__ = ["Compressor", "S3Index", "find_codebook", "shared_host"]
