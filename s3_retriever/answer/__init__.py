"""Answering: compress a context for a question, and let the host answer from the evidence."""

from s3_retriever.answer.citations import Citation
from s3_retriever.answer.generation import Answer, AnswerStream
from s3_retriever.answer.long_context import LongContext
from s3_retriever.answer.scanned import ScannedContext

__all__ = ["Answer", "AnswerStream", "Citation", "LongContext", "ScannedContext"]
