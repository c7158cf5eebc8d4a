"""Tokens with character offsets, a piece of text at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.errors import HostError
from s3_retriever.text import split_pieces

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
