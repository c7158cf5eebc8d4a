"""An encoder that scans a text it has seen before only once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from s3_retriever.codebook import Encoder, TokenFeatures
from s3_retriever.recipe import Recipe


class CachingEncoder(Encoder):
    """Remembers the features of every text.

    Contexts of a benchmark share most of their paragraphs; what is indexed and how it is
    searched stays the same.
    """

    _cache: dict[tuple[str, str, str], list[TokenFeatures]]

    def documents(
        self, texts: Iterable[tuple[str, str]], recipe: Recipe
    ) -> Iterator[TokenFeatures]:
        """As `Encoder.documents`; holds all texts and features in memory."""
        cache = self.__dict__.setdefault("_cache", {})
        key = f"{sorted(recipe.taps)} {recipe.document_k}"
        wanted = list(texts)
        fresh = [text for text in dict.fromkeys(wanted) if (*text, key) not in cache]
        for found in super().documents(fresh, recipe):
            cache.setdefault((*fresh[found.document], key), []).append(found)
        for number, text in enumerate(wanted):
            for found in cache[(*text, key)]:
                yield replace(found, document=number)
