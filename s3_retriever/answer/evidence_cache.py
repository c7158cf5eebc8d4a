"""`EvidenceCache`: what a host cached of a context while it read it, for any part of it later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from s3_retriever.answer.context import in_document
from s3_retriever.document import Document
from s3_retriever.errors import CodebookError, InputError
from s3_retriever.host import Host, Window
from s3_retriever.kv.atoms import Codes
from s3_retriever.kv.codebook import SHIPPED, KVCodebook
from s3_retriever.kv.hosts import check_cache, read_cache
from s3_retriever.search import Span
from s3_retriever.types import shown

# Characters of a document that are read together, some windows of a host.
_READ_CHARACTERS = 8_000
# Atoms of a key and of a value, as in `AtomCache`.
_KEY_K, _VALUE_K = 8, 16


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The tokens of one window, with the codes of all layers.

    Attributes:
        ids: Token ids, int64 [tokens], those of the document's title first.
        starts: Where each begins in the document, int64 [tokens]; -1 in the title.
        ends: Where the next one begins, if it is known, int64 [tokens]; -1 in the title.
        keys: Codes of the keys before the rotary embedding [layers, heads, tokens, k].
        values: Codes of the values.
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    keys: Codes
    values: Codes

    def within(self, span: Span, *, title: bool) -> NDArray[np.int64]:
        """Which tokens belong to a span of the document, and to its title if that is wanted."""
        inside = (self.starts < span.end) & (self.ends > span.start)
        if not inside.any():
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(inside | (self.starts < 0) if title else inside)


class EvidenceCache:
    """Keys and values of a context, in codes, from which evidence is put together unread.

    The host reads the context once, window by window, and what it caches is kept in the atoms of
    `AtomCache`. Evidence is then any selection of these tokens, put at new positions one behind
    the other: keys are kept without their positions. This is not what the host would cache if it
    read the evidence: each token has seen what stood before it in its window and not the other
    spans, and codes are not exact.

    Args:
        host: The host that answers.
        codebook: Dictionaries of its keys and values, or their folder; by default those shipped.

    Raises:
        HostError: The host's cache cannot be encoded.
        CodebookError: There is no codebook for the host, or it belongs to another one.
    """

    def __init__(self, host: Host, codebook: str | Path | KVCodebook | None) -> None:
        check_cache(host)
        if codebook is None:
            if host.name not in SHIPPED:
                raise CodebookError(
                    f"Host {host.name!r} has no dictionaries of keys and values; fit them with: "
                    f"s3r fit {host.name} --kv, and pass their folder as kv_codebook."
                )
            codebook = host.name
        self._codebook = codebook if isinstance(codebook, KVCodebook) else KVCodebook.load(codebook)
        self._codebook.check_host(host)
        self._host = host
        self._layers = [layer.to(host.device) for layer in self._codebook.layers]
        self._stretches: dict[str, list[_Stretch]] = {}
        self._beginning: tuple[tuple[int, ...], list[tuple[Tensor, Tensor]]] = ((), [])

    def fresh(self) -> EvidenceCache:
        """An empty one for another context."""
        return EvidenceCache(self._host, self._codebook)

    @property
    def tokens(self) -> int:
        """Number of tokens, those of titles included."""
        return sum(len(stretch.ids) for stretch in self._all())

    @property
    def nbytes(self) -> int:
        """Bytes of all codes."""
        return sum(stretch.keys.nbytes + stretch.values.nbytes for stretch in self._all())

    def reading(self, pieces: Iterable[Document]) -> Iterator[Document]:
        """Pass the pieces of a context on, and read each document when all of it has passed.

        Raises:
            InputError: Two documents have the same id.
        """
        joined: Span | None = None
        for piece in pieces:
            yield piece
            span = _span(piece)
            follows = joined and (joined.document_id, joined.end) == (span.document_id, span.start)
            if joined and follows and len(joined.text) < _READ_CHARACTERS:
                joined = _joined(joined, span)
                continue
            if joined:
                self._read(joined)
            joined = span
        if joined:
            self._read(joined)

    @torch.inference_mode()
    def recall(
        self, before: Sequence[int], spans: Sequence[Span], after: Sequence[int]
    ) -> tuple[list[int], Cache]:
        """Put a prompt together, of which only the end must still be read.

        Args:
            before: Token ids before the evidence, which are read unless they were just before.
            spans: The evidence, in the order of the prompt.
            after: Token ids behind it.

        Returns:
            Token ids of the whole prompt, and a cache of all but `after`, in the host's dtype.
        """
        chosen = list(self._chosen(spans))
        ids = np.concatenate([stretch.ids[rows] for stretch, rows in chosen]).tolist()
        positions = torch.arange(len(before), len(before) + len(ids), device=self._host.device)
        keys = _selected([(stretch.keys, rows) for stretch, rows in chosen])
        values = _selected([(stretch.values, rows) for stretch, rows in chosen])
        cache = DynamicCache(config=self._host.causal.config)
        for i, (layer, begun) in enumerate(
            zip(self._layers, self._begun(tuple(before)), strict=True)
        ):
            plain = layer.key.decode(keys.map(lambda tensor, i=i: tensor[i : i + 1]))
            rotated = layer.rotary.rotate(plain, positions[None])
            value = layer.value.decode(values.map(lambda tensor, i=i: tensor[i : i + 1]))
            states = (
                torch.cat([first, then.to(first.dtype)], dim=2)
                for first, then in zip(begun, (rotated, value), strict=True)
            )
            cache.update(*states, i)
        return [*before, *ids, *after], cache

    def _begun(self, before: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of a prompt's beginning, which prompts have in common as a rule."""
        known, states = self._beginning
        if known != before:
            read = read_cache(self._host, before)
            states = list(zip(read.keys, read.values, strict=True))
            self._beginning = before, states
        return states

    def _chosen(self, spans: Sequence[Span]) -> Iterator[tuple[_Stretch, NDArray[np.int64]]]:
        title_of = None
        for span in spans:
            for stretch in self._stretches.get(span.document_id, ()):
                rows = stretch.within(span, title=span.document_id != title_of)
                if len(rows):
                    title_of = span.document_id
                    yield stretch, rows

    def _read(self, span: Span) -> None:
        """Read a part of a document."""
        own = self._stretches.setdefault(span.document_id, [])
        if own and span.start < own[-1].ends[-1]:
            raise InputError(
                f"Two documents of the context have the id {shown(span.document_id)}; give them "
                'different ones for evidence="cache".'
            )
        document = Document(span.text, span.document_id, span.metadata)
        for window in self._host.windows(document):
            if len(window.starts):
                own.append(self._stretch(window, span))

    @torch.inference_mode()
    def _stretch(self, window: Window, span: Span) -> _Stretch:
        cached = read_cache(self._host, window.ids.tolist())
        tokenizer = self._host.tokenizer
        title = np.arange(len(tokenizer.prefix), window.keep.start)[: self._title_tokens(window)]
        rows = np.concatenate([title, np.arange(window.keep.start, window.keep.stop)])
        taken = torch.from_numpy(rows).to(self._host.device)
        positions = taken[None]
        keys, values = [], []
        for layer, key, value in zip(self._layers, cached.keys, cached.values, strict=True):
            plain = layer.rotary.restore(key[:, :, taken].float(), positions)
            keys.append(layer.key.encode(plain, min(_KEY_K, layer.key.features)))
            values.append(
                layer.value.encode(value[:, :, taken], min(_VALUE_K, layer.value.features))
            )
        starts = window.starts.astype(np.int64) + span.start
        ends = np.append(starts[1:], span.end if window.last else starts[-1] + 1)
        outside = np.full(len(title), -1)
        return _Stretch(
            window.ids[rows],
            np.concatenate([outside, starts]),
            np.concatenate([outside, ends]),
            _stacked(keys),
            _stacked(values),
        )

    def _title_tokens(self, window: Window) -> int:
        tokenizer = self._host.tokenizer
        title = tokenizer.ids(window.document.title)
        head = [*tokenizer.prefix, *title]
        return len(title) if window.ids[: len(head)].tolist() == head else 0

    def _all(self) -> Iterator[_Stretch]:
        for stretches in self._stretches.values():
            yield from stretches


def _span(piece: Document) -> Span:
    """A piece as a span of its document."""
    text = piece.text
    return in_document(Span(text, 0.0, 0.0, piece.id, 0, len(text), (), piece.metadata, 0))


def _joined(span: Span, following: Span) -> Span:
    return replace(span, text=span.text + following.text, end=following.end)


def _stacked(layers: Sequence[Codes]) -> Codes:
    return Codes(
        torch.cat([codes.atoms for codes in layers]), torch.cat([codes.scales for codes in layers])
    )


def _selected(parts: Sequence[tuple[Codes, NDArray[np.int64]]]) -> Codes:
    """Some tokens of several codes, one behind the other."""
    picked = [
        codes.map(lambda tensor, rows=rows: tensor[:, :, torch.from_numpy(rows)])
        for codes, rows in parts
    ]
    first, *others = picked
    for codes in others:
        first = first.followed_by(codes)
    return first
