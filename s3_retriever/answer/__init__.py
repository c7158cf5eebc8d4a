"""Compressing texts for a question, so that a model reads evidence only, and answering from it."""

from s3_retriever.answer.generation import Answer, AnswerStream
from s3_retriever.answer.long_context import LongContext
from s3_retriever.answer.scanned import ScannedContext

__all__ = ["Answer", "AnswerStream", "LongContext", "ScannedContext"]
