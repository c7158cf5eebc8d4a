"""Compressing texts for a question, so that a model reads evidence only."""

from s3_retriever.answer.compressor import Compressor

__all__ = ["Compressor"]
