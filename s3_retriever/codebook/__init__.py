"""The codebook: the SAEs of all taps of one host, and the scoring defaults that go with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s3_retriever.codebook.codebook import Codebook

__all__ = ["Codebook"]


def __getattr__(name: str) -> object:
    # Imported when first used: `codebook.files` is for those who do without torch.
    if name == "Codebook":
        from s3_retriever.codebook.codebook import Codebook

        return Codebook
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
