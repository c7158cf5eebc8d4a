"""What an index has already, read without its host."""

from __future__ import annotations

from pathlib import Path

from s3_retriever.index import Store


class Indexed:
    """The documents of an index when a command began.

    Args:
        path: Folder of the index.

    Raises:
        IndexStoreError: There is no index, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._snapshot = Store.open(path).snapshot()

    def __contains__(self, document_id: str) -> bool:
        return self._snapshot.find(document_id) is not None

    def sha256(self, document_id: str) -> str | None:
        """The digest of the file that a document was read from; None where it is unknown."""
        found = self._snapshot.find(document_id)
        if found is None:
            return None
        segment, ordinal = found
        digest = segment.document(ordinal).metadata.get("sha256")
        return digest if isinstance(digest, str) else None
