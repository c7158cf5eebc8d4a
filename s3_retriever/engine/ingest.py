"""Feeding documents to the scan and its features to the index."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

import numpy as np

from s3_retriever.codebook import TokenFeatures
from s3_retriever.document import Document
from s3_retriever.errors import InputError
from s3_retriever.index import TokenChunk
from s3_retriever.index.progress import Bar, progress_bar


class Source:
    """Hands texts to the scan and keeps their documents until they have been scanned."""

    def __init__(self, documents: Iterable[Document | str]) -> None:
        self._documents = documents
        self._waiting: deque[Document] = deque()

    def texts(self) -> Iterator[tuple[str, str]]:
        """Titles and texts, as the scan asks for them.

        Raises:
            InputError: Something is neither a document nor a text.
        """
        for item in self._documents:
            document = Document(item) if isinstance(item, str) else item
            if not isinstance(document, Document):
                raise InputError(
                    f"A document is a Document or a string, not {type(item).__name__}."
                )
            self._waiting.append(document)
            yield document.title, document.text

    def take(self) -> Document:
        """The first document that was not taken yet."""
        return self._waiting.popleft()


def token_chunks(
    features: Iterable[TokenFeatures], document: Document, bar: Bar
) -> Iterator[TokenChunk]:
    """The tokens of one document; moves the progress bar by the characters they cover."""
    done = 0
    for found in features:
        reached = len(document.text) if found.last or not len(found.starts) else found.starts[-1]
        bar.update(int(reached) - done)
        done = int(reached)
        yield TokenChunk(found.starts.astype(np.uint32), found.features, found.codes)


def scanning_bar(documents: Iterable[Document | str], shown: bool) -> AbstractContextManager[Bar]:
    """A bar of characters; with the time left where all documents are at hand."""
    total = None
    if isinstance(documents, (list, tuple)):
        total = sum(
            len(item.text if isinstance(item, Document) else item)
            for item in documents
            if isinstance(item, (Document, str))
        )
    return progress_bar(shown, total=total, unit="char", unit_scale=True, desc="Scanning")
