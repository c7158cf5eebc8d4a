"""From files to documents: what each file becomes, and which files need no new scan."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from s3_retriever.cli.console import warn
from s3_retriever.cli.files import FoundFile
from s3_retriever.cli.indexed import Indexed
from s3_retriever.cli.readers import UnreadableError, is_known, read_file, reader_for
from s3_retriever.document import Document
from s3_retriever.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """What became of the files."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    skipped: int = 0

    @property
    def read(self) -> int:
        """Files that could be read."""
        return self.added + self.replaced + self.unchanged

    def __str__(self) -> str:
        return (
            f"{self.added} added, {self.replaced} replaced, {self.unchanged} unchanged, "
            f"{self.skipped} skipped"
        )


def documents(
    files: Iterable[FoundFile], counts: Counts, indexed: Indexed | None = None, again: bool = False
) -> Iterator[Document]:
    """Read files one at a time; what cannot be read is told and skipped.

    Args:
        files: What to read.
        counts: Counts unchanged and skipped files.
        indexed: What there is already: files that did not change are passed over.
        again: Whether also those are read.
    """
    for file in files:
        try:
            data = read_file(file.path)
            digest = hashlib.sha256(data).hexdigest()
            if indexed and not again and indexed.sha256(file.id) == digest:
                counts.unchanged += 1
                continue
            yield _document(file, data, digest)
        except InputError as error:
            counts.skipped += 1
            _tell(file, error)


def batches(stream: Iterable[Document], characters: int) -> Iterator[list[Document]]:
    """Documents in lists, each full once it has that many characters."""
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


def _document(file: FoundFile, data: bytes, digest: str) -> Document:
    try:
        file.id.encode()
    except UnicodeEncodeError:
        raise UnreadableError("its name is not UTF-8; rename it.") from None
    content = reader_for(file.path)(data)
    metadata = {
        "path": file.id,
        "title": content.title or file.path.stem,
        "bytes": len(data),
        "sha256": digest,
    }
    return Document(content.text, id=file.id, metadata=metadata)


def _tell(file: FoundFile, error: InputError) -> None:
    """Warn, unless a folder just happens to have the file, as with pictures."""
    sentence = f"{file.path} is skipped: {error}"
    if file.named or is_known(file.path):
        warn(sentence)
    else:
        logger.info(sentence)
