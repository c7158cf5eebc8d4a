"""Windows: documents of any length, cut into stretches that the host reads at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s3_retriever.host.tokenizer import OffsetTokenizer

# A longer title would take the window away from the text; neither does it get more than half.
TITLE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of one document, ready to run.

    Attributes:
        document: Ordinal of the document in its stream.
        ids: Token ids [n], with special tokens, title and overlap.
        keep: The part of `ids` whose activations belong to this window.
        starts: Character start in the document of every kept token [keep.stop - keep.start].
        last: Whether the document ends here.
    """

    document: int
    ids: NDArray[np.int64]
    keep: slice
    starts: NDArray[np.int64]
    last: bool


@dataclass(frozen=True, slots=True)
class WindowShape:
    """How documents are cut.

    Attributes:
        size: Tokens of a window at most, everything counted.
        overlap: Tokens that a window shares with the one before it, for context.
        bidirectional: Whether overlap tokens are shared out to both windows (each takes those
            that have more context there) or all belong to the earlier one (causal hosts, where
            they only give context to what follows).
    """

    size: int
    overlap: int
    bidirectional: bool


def windows(
    texts: Iterable[tuple[str, str]], tokenizer: OffsetTokenizer, shape: WindowShape
) -> Iterator[Window]:
    """Cut a stream of (title, text) into windows, holding one piece of text at a time.

    Positions restart in every window. A text without tokens gives one window that keeps nothing.
    """
    for document, (title, text) in enumerate(texts):
        room = shape.size - len(tokenizer.prefix) - len(tokenizer.suffix)
        head = tokenizer.prefix + tokenizer.ids(title)[: min(TITLE_TOKENS, room // 2)]
        yield from _cut(document, head, tokenizer.stream(text), tokenizer.suffix, shape)


def _cut(
    document: int,
    head: list[int],
    stream: Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]],
    suffix: list[int],
    shape: WindowShape,
) -> Iterator[Window]:
    capacity = shape.size - len(head) - len(suffix)
    overlap = min(shape.overlap, capacity // 2)
    right = overlap // 2 if shape.bidirectional else 0
    ids = np.empty(0, dtype=np.int64)
    starts = np.empty(0, dtype=np.int64)
    first = 0  # the first token of the buffer that no window has kept yet

    def window(stop: int, kept: int, last: bool) -> Window:
        return Window(
            document=document,
            ids=np.concatenate([head, ids[:stop], suffix]).astype(np.int64),
            keep=slice(len(head) + first, len(head) + kept),
            starts=starts[first:kept],
            last=last,
        )

    for piece_ids, offsets in stream:
        ids = np.concatenate([ids, piece_ids])
        starts = np.concatenate([starts, offsets[:, 0]])
        while len(ids) > capacity:
            kept = capacity - right
            yield window(capacity, kept, last=False)
            drop = capacity - overlap
            ids, starts, first = ids[drop:], starts[drop:], kept - drop
    yield window(len(ids), len(ids), last=True)
