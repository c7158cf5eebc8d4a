"""Files on the command line: which were skipped and why, and documents in batches."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from s3_retriever.cli.console import warn
from s3_retriever.document import Document
from s3_retriever.errors import InputError
from s3_retriever.files import FoundFiles, SkippedFile

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """How many documents were added, replaced, left unchanged and dropped, and files skipped."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    skipped: int = 0
    dropped: int = 0

    @property
    def read(self) -> int:
        """Documents that could be read."""
        return self.added + self.replaced + self.unchanged

    def __str__(self) -> str:
        counts = (
            f"{self.added} added, {self.replaced} replaced, {self.unchanged} unchanged, "
            f"{self.skipped} skipped"
        )
        return f"{counts}, {self.dropped} dropped" if self.dropped else counts


def warn_skipped(skipped: SkippedFile) -> None:
    """Warn, unless a folder merely happens to contain the file, such as a picture."""
    if skipped.is_media and not skipped.named:
        logger.info("%s", skipped)
    else:
        warn(str(skipped))


def none_readable(found: FoundFiles) -> InputError:
    """The error of a command that could not read any of its files."""
    return InputError(f"None of the {len(found.files)} files could be read.")


def batches(stream: Iterable[Document], characters: int) -> Iterator[list[Document]]:
    """Group documents into lists of at least that many characters; the last may be shorter."""
    batch: list[Document] = []
    size = 0
    for document in stream:
        batch.append(document)
        size += len(document.text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
