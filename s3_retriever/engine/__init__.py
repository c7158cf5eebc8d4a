"""The engine: `S3Index`, the object that users hold."""

from s3_retriever.engine.hosting import find_codebook, shared_host
from s3_retriever.engine.s3index import S3Index

__all__ = ["S3Index", "find_codebook", "shared_host"]
