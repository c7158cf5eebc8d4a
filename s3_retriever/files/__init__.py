"""Files: from files and folders of many types to documents."""

from s3_retriever.files.content import Content, UnreadableError
from s3_retriever.files.decoding import is_utf8
from s3_retriever.files.finding import FoundFile, FoundFiles, find_files
from s3_retriever.files.places import offset, place, split_place
from s3_retriever.files.reading import (
    SkippedFile,
    check_readable,
    contents,
    file_id,
    read_files,
    read_text,
    reader_for,
)
from s3_retriever.files.texts import TextFiles
from s3_retriever.files.tracking import KnownFiles

__all__ = [
    "Content",
    "FoundFile",
    "FoundFiles",
    "KnownFiles",
    "SkippedFile",
    "TextFiles",
    "UnreadableError",
    "check_readable",
    "contents",
    "file_id",
    "find_files",
    "is_utf8",
    "offset",
    "place",
    "read_files",
    "read_text",
    "reader_for",
    "split_place",
]
