"""Windows: documents of any length, tokenised and cut into what the host reads at once.

This is the one place where a document is cut: its windows say which sentences end in them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.document import Document
from s3_retriever.errors import HostError
from s3_retriever.features import Sentence
from s3_retriever.text import (
    CHARACTERS_PER_TOKEN,
    SentenceCutter,
    language_of,
    split_pieces,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class OffsetTokenizer:
    """A host's fast tokenizer, reduced to ids and character offsets.

    Text that looks like a special token (`[SEP]`, `<|endoftext|>`) is read as plain text, so a
    document cannot smuggle control tokens into the host.

    Attributes:
        source: The tokenizer as transformers has it, for its chat template and for decoding.
        backend: Its fast tokenizer.
        prefix: Special token ids that go before every text.
        suffix: Special token ids that go after every text.
        pad_id: The id that fills up batches.
        unknown_id: The id of words that are not in the vocabulary; None if there are none.

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
        self.unknown_id: int | None = tokenizer.unk_token_id

    def _specials(self) -> tuple[list[int], list[int]]:
        """Find the ids that the tokenizer puts before and after every text."""
        encoding = self.backend.encode("a", add_special_tokens=True)
        body = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
        if not body:
            return list(encoding.ids), []
        return encoding.ids[: body[0]], encoding.ids[body[-1] + 1 :]

    def ids(self, text: str) -> list[int]:
        """Tokenise a short text, without special tokens."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def control_ids(self, text: str) -> list[int]:
        """Tokenise a text whose special tokens count, such as a part of a chat template."""
        return list(self._controlling.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _controlling(self) -> Any:
        # A copy: another thread may be reading documents with `backend` and its own switch.
        backend = copy.deepcopy(self.backend)
        backend.encode_special_tokens = False
        return backend

    def stream(self, text: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Tokenise a text of any length in pieces.

        A token of more than `LONGEST_TOKEN` characters (a word that the tokenizer does not know,
        as a rule) is repeated: once for every `CHARACTERS_PER_TOKEN` of them.

        Yields:
            Token ids, int64 [n], and character offsets, int64 [n, 2] (start and end in the whole
            text), without special tokens.
        """
        for offset, piece in split_pieces(text):
            encoding = self.backend.encode(piece, add_special_tokens=False)
            if encoding.ids:
                offsets = np.array(encoding.offsets, dtype=np.int64) + offset
                ids = np.array(encoding.ids, dtype=np.int64)
                yield _spread(text, ids, offsets, offset + len(piece))

    def split(self, text: str) -> list[tuple[int, int]]:
        """Find the character ranges of the tokens of a text."""
        return [
            (int(start), int(end)) for _, offsets in self.stream(text) for start, end in offsets
        ]

    def count(self, text: str) -> int:
        """Count the tokens of a text, without special tokens."""
        return sum(len(ids) for ids, _ in self.stream(text))


# Tokens of more characters than this count several times; prose has none.
LONGEST_TOKEN = 32


def _spread(
    text: str, ids: NDArray[np.int64], offsets: NDArray[np.int64], end: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Repeat the tokens of a piece that stand for very many characters, white space aside.

    Args:
        text: The whole text.
        ids: Token ids [n].
        offsets: Their character offsets [n, 2].
        end: Where the piece ends.
    """
    starts = offsets[:, 0]
    following = np.append(starts[1:], end)
    extents = following - starts
    if extents.max() <= LONGEST_TOKEN:
        return ids, offsets
    times = np.where(extents > LONGEST_TOKEN, -(-extents // CHARACTERS_PER_TOKEN), 1)
    which = np.repeat(np.arange(len(ids)), times)
    nth = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times)
    begins = starts[which] + nth * CHARACTERS_PER_TOKEN
    ends = np.minimum(begins + CHARACTERS_PER_TOKEN, following[which])
    ends = np.where(times[which] == 1, offsets[which, 1], ends)
    kept = [n == 0 or not text[at].isspace() for n, at in zip(nth, begins, strict=True)]
    return ids[which[kept]], np.stack([begins[kept], ends[kept]], axis=1)


# A longer title would crowd out the text. Titles never get more than half a window.
TITLE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one document, ready to run.

    Attributes:
        document: The document.
        ids: Token ids, int64 [n], with special tokens, title and overlap.
        keep: The part of `ids` whose activations belong to this window.
        starts: Character start in the document of every kept token, uint32 [kept].
        sentences: The document's sentences that are complete with the kept tokens.
        last: Whether the document ends here.
    """

    document: Document
    ids: NDArray[np.int64]
    keep: slice
    starts: NDArray[np.uint32]
    sentences: tuple[Sentence, ...]
    last: bool


@dataclass(frozen=True, slots=True)
class WindowShape:
    """How documents are cut.

    Attributes:
        size: Most tokens of a window, counting everything.
        overlap: Tokens that a window shares with the one before it, for context.
        bidirectional: Whether both windows keep a part of the overlap, each the tokens with more
            context there. On causal hosts the earlier window keeps all of it; in the later one it
            only gives context to what follows.
    """

    size: int
    overlap: int
    bidirectional: bool


def windows(
    documents: Iterable[Document], tokenizer: OffsetTokenizer, shape: WindowShape
) -> Iterator[Window]:
    """Cut documents into windows and sentences, holding one piece of text at a time.

    Positions restart in every window. A document without tokens, or of white space alone, gives
    one window that keeps nothing.
    """
    room = shape.size - len(tokenizer.prefix) - len(tokenizer.suffix)
    for document in documents:
        title = tokenizer.ids(document.title)[: min(TITLE_TOKENS, room // 2)]
        yield from _cut(document, tokenizer.prefix + title, tokenizer, shape)


def _cut(
    document: Document, head: list[int], tokenizer: OffsetTokenizer, shape: WindowShape
) -> Iterator[Window]:
    """Cut one document, with `head` in front of every window."""
    capacity = shape.size - len(head) - len(tokenizer.suffix)
    overlap = min(shape.overlap, capacity // 2)
    right = overlap // 2 if shape.bidirectional else 0
    language = language_of(document.text, document.metadata)
    cutter = SentenceCutter(document.text, document.unit, language)
    blank = cutter.finished
    ids = np.empty(0, dtype=np.int64)
    starts = np.empty(0, dtype=np.uint32)
    first = 0  # the first token of the buffer that no window has kept yet

    def window(stop: int, kept: int, last: bool) -> Window:
        return Window(
            document=document,
            ids=np.concatenate([head, ids[:stop], tokenizer.suffix]).astype(np.int64),
            keep=slice(len(head) + first, len(head) + kept),
            starts=starts[first:kept],
            sentences=cutter.push(starts[first:kept], last=last),
            last=last,
        )

    # The white space of a blank document belongs to no sentence, so its tokens are dropped.
    for piece_ids, offsets in () if blank else tokenizer.stream(document.text):
        ids = np.concatenate([ids, piece_ids])
        starts = np.concatenate([starts, offsets[:, 0].astype(np.uint32)])
        while len(ids) > capacity:
            kept = capacity - right
            yield window(capacity, kept, last=False)
            drop = capacity - overlap
            ids, starts, first = ids[drop:], starts[drop:], kept - drop
    yield window(len(ids), len(ids), last=True)
