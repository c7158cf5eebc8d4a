"""Documents with their features, scanned once and given out again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.document import Document
from s3_retriever.encoder import Encoder, TokenFeatures
from s3_retriever.index import TokenChunk
from s3_retriever.recipe import Recipe
from s3_retriever_bench.corpus import copy_of, documents, no_text


@dataclass(frozen=True, slots=True)
class Scanned:
    """A document and what its scan came to.

    Attributes:
        document: The document.
        starts: Character start of each token, uint32 [n].
        features: By tap name, features [n, k], -1 where fewer than k fire; int16 where they fit.
        codes: By tap name, codes of its sentences.
        repeated: Whether another one has the same text and features.
    """

    document: Document
    starts: NDArray[np.uint32]
    features: Mapping[str, NDArray[Any]]
    codes: Mapping[str, NDArray[np.uint8]]
    repeated: bool = False

    def chunk(self) -> TokenChunk:
        """All tokens, as the index takes them."""
        wide = {name: found.astype(np.int32) for name, found in self.features.items()}
        return TokenChunk(self.starts, wide, self.codes)


def endless_scan(files: Sequence[Path], encoder: Encoder, recipe: Recipe) -> Iterator[Scanned]:
    """Scan the documents of files as they are asked for; then the same with other ids, forever.

    Args:
        files: As `corpus.documents` reads them.
        encoder: Scans.
        recipe: How.

    Raises:
        InputError: There is no text.
    """
    known: list[Scanned] = []
    for one in _scan(documents(files), encoder, recipe):
        known.append(one)
        yield replace(one, document=copy_of(one.document, 0))
    if not any(len(one.starts) for one in known):
        raise no_text(files)
    for number in count(1):
        for one in known:
            yield replace(one, document=copy_of(one.document, number), repeated=True)


def _scan(stream: Iterator[Document], encoder: Encoder, recipe: Recipe) -> Iterator[Scanned]:
    waiting: deque[Document] = deque()

    def texts() -> Iterator[tuple[str, str]]:
        for document in stream:
            waiting.append(document)
            yield document.title, document.text

    sizes = encoder.codebook.feature_sizes(recipe)
    found = encoder.documents(texts(), recipe)
    for _, parts in groupby(found, key=lambda part: part.document):
        yield _joined(waiting.popleft(), list(parts), sizes)


def _joined(
    document: Document, parts: Sequence[TokenFeatures], sizes: Mapping[str, int]
) -> Scanned:
    starts = np.concatenate([part.starts for part in parts]).astype(np.uint32)
    features = {}
    for name, size in sizes.items():
        # Half of the memory, where the dictionary is small enough.
        kind = np.int16 if size <= np.iinfo(np.int16).max else np.int32
        features[name] = np.concatenate([part.features[name] for part in parts]).astype(kind)
    codes = {name: np.concatenate([part.codes[name] for part in parts]) for name in parts[0].codes}
    return Scanned(document, starts, features, codes)
