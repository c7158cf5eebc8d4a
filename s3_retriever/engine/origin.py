"""`Origin`: what an index remembers about how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, ValidationError

from s3_retriever.errors import IndexStoreError, brief
from s3_retriever.index import Store
from s3_retriever.paths import lasting
from s3_retriever.recipe import Recipe

if TYPE_CHECKING:
    from s3_retriever.codebook import Codebook
    from s3_retriever.encoder import Encoder


# Of a host or a codebook; no system has longer paths.
Name = Annotated[str, Field(min_length=1, max_length=4_096, pattern=r"^[^\x00]*$")]


# Fields that make other features of the same text, and what messages call them.
_SAME = {
    "fingerprint": "host",
    "window": "window",
    "overlap": "overlap of windows",
    "codebook": "codebook",
    "recipe": "recipe",
}


class Origin(BaseModel):
    """How an index was made.

    Attributes:
        host: Name of the host, or the absolute path of its folder.
        window: Tokens of a window.
        overlap: Tokens that neighbouring windows share.
        fingerprint: Fingerprint of the host's weights.
        codebook: Identity of the codebook.
        codebook_source: Name of the codebook, or the absolute path of its folder; None if it came
            with the host.
        recipe: How documents are indexed.
    """

    host: Name
    window: int
    overlap: int
    fingerprint: str
    codebook: str
    codebook_source: Name | None
    recipe: Recipe

    @classmethod
    def of(cls, encoder: Encoder, recipe: Recipe, codebook: str | Path | Codebook | None) -> Origin:
        """The origin of a new index.

        Args:
            encoder: Reads its documents.
            recipe: How documents are indexed.
            codebook: The codebook as the user gave it.
        """
        named = str(codebook) if isinstance(codebook, (str, Path)) else None
        shape = encoder.host.shape
        return cls(
            host=lasting(encoder.host.name),
            window=shape.size,
            overlap=shape.overlap,
            fingerprint=encoder.fingerprint,
            codebook=encoder.identity,
            codebook_source=None if named is None else lasting(named),
            recipe=recipe,
        )

    @classmethod
    def read(cls, store: Store) -> Origin:
        """The origin of an index, from its manifest.

        Raises:
            IndexStoreError: The manifest has no such origin.
        """
        try:
            return cls.model_validate(store.manifest.origin)
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise IndexStoreError(
                f"The manifest of the index at {store.path} does not say how it was made "
                f"({brief(problem)}); index the documents again."
            ) from error

    def differences(self, other: Origin) -> list[str]:
        """What sets two origins apart, so that their documents cannot be in one index.

        Names of hosts and codebooks do not: they may be folders, which may have moved.
        """
        return [
            name for field, name in _SAME.items() if getattr(self, field) != getattr(other, field)
        ]

    def check_codebook(self, path: Path | None, identity: str) -> None:
        """Check that a codebook is the one that the index was made with.

        Raises:
            IndexStoreError: It is not.
        """
        if identity != self.codebook:
            raise IndexStoreError(
                f"The index at {path} was made with another codebook for host {self.host!r}; open "
                "it with that codebook (codebook=...), or index the documents again."
            )
