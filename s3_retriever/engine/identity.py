"""`Identity`: what an index keeps about how it was made."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from s3_retriever.codebook import Codebook
from s3_retriever.encoder import Encoder
from s3_retriever.engine.hosting import lasting
from s3_retriever.errors import IndexStoreError
from s3_retriever.index import Store
from s3_retriever.recipe import Recipe


class Identity(BaseModel):
    """What an index keeps about how it was made.

    Attributes:
        host: The host's name; a folder by its absolute path.
        window: Tokens of a window; `overlap` likewise.
        fingerprint: Of the host's weights.
        codebook: Identity of the codebook.
        codebook_source: Where the codebook was named to be; None where it belongs to the host.
        recipe: How documents are indexed.
    """

    host: str
    window: int
    overlap: int
    fingerprint: str
    codebook: str
    codebook_source: str | None
    recipe: Recipe

    @classmethod
    def of(
        cls, encoder: Encoder, recipe: Recipe, codebook: str | Path | Codebook | None
    ) -> Identity:
        """The identity of a new index, whose codebook was given as `codebook`."""
        named = None if codebook is None or isinstance(codebook, Codebook) else str(codebook)
        shape, book = encoder.host.shape, encoder.codebook
        return cls(
            host=lasting(encoder.host.name),
            window=shape.size,
            overlap=shape.overlap,
            fingerprint=book.fingerprint,
            codebook=book.identity,
            codebook_source=None if named is None else lasting(named),
            recipe=recipe,
        )

    @classmethod
    def read(cls, store: Store) -> Identity:
        """The identity that an index has.

        Raises:
            IndexStoreError: The manifest does not tell.
        """
        try:
            return cls.model_validate(store.manifest.origin)
        except ValidationError as error:
            raise IndexStoreError(
                f"The manifest of the index at {store.path} does not say how it was made; it is "
                "damaged or was written by another program."
            ) from error
