"""Readers: from the bytes of a file to its text and title, chosen by the file's extension."""

from s3_retriever.cli.readers.content import Content, UnreadableError
from s3_retriever.cli.readers.registry import check_head, is_known, read_file, reader_for

__all__ = ["Content", "UnreadableError", "check_head", "is_known", "read_file", "reader_for"]
