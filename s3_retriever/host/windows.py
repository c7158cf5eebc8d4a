"""Windows: documents of any length, tokenised and cut into what the host reads at once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.errors import HostError
from s3_retriever.text.pieces import split_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class OffsetTokenizer:
    """A host's fast tokenizer, reduced to ids and character offsets.

    Text that looks like a special token (`[SEP]`, `<|endoftext|>`) is read as plain text, so a
    document cannot put control tokens into the host.

    Attributes:
        source: The tokenizer as transformers has it, for its chat template and for decoding.
        backend: Its fast tokenizer.
        prefix: Ids that stand before every text, `suffix` likewise.
        pad_id: Fills up batches.

    Raises:
        HostError: The tokenizer is a slow one, which has no offsets.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise HostError(
                f"{type(tokenizer).__name__} is not a fast tokenizer and gives no character "
                "offsets; use a model that ships tokenizer.json."
            )
        self.source = tokenizer
        self.backend = backend
        backend.no_truncation()
        backend.no_padding()
        self.prefix, self.suffix = self._specials()
        backend.encode_special_tokens = True
        pad = tokenizer.pad_token_id
        self.pad_id: int = 0 if pad is None else int(pad)

    def _specials(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer puts before and after every text."""
        encoding = self.backend.encode("a", add_special_tokens=True)
        body = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
        if not body:
            return list(encoding.ids), []
        return encoding.ids[: body[0]], encoding.ids[body[-1] + 1 :]

    def ids(self, text: str) -> list[int]:
        """Token ids of a short text, without special tokens."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def control_ids(self, text: str) -> list[int]:
        """Token ids of a text whose special tokens count, such as a part of a chat template."""
        return list(self._controlling.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _controlling(self) -> Any:
        # A copy: the switch of `backend` may not change while another thread reads documents.
        backend = copy.deepcopy(self.backend)
        backend.encode_special_tokens = False
        return backend

    def stream(self, text: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Tokenise a text of any length in pieces.

        Yields:
            Token ids [n] and character offsets [n, 2] (start and end in the whole text), without
            special tokens.
        """
        for offset, piece in split_pieces(text):
            encoding = self.backend.encode(piece, add_special_tokens=False)
            if encoding.ids:
                offsets = np.array(encoding.offsets, dtype=np.int64) + offset
                yield np.array(encoding.ids, dtype=np.int64), offsets

    def split(self, text: str) -> list[tuple[int, int]]:
        """Character ranges of the tokens of a text."""
        return [
            (int(start), int(end)) for _, offsets in self.stream(text) for start, end in offsets
        ]

    def count(self, text: str) -> int:
        """How many tokens a text has, without special tokens."""
        return sum(len(ids) for ids, _ in self.stream(text))


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
