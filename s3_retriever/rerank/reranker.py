"""`Reranker`: passages read together with a question, ranked by what attention heads look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s3_retriever.codebook.heads import check_heads
from s3_retriever.errors import HostError, InputError
from s3_retriever.host import Host
from s3_retriever.host.taps import Head
from s3_retriever.rerank.attention import Reading
from s3_retriever.types import Scores, check_items, check_text, check_type

_BEGINNING = "Here are some passages.\n"
_ASKING = "\nFind the passages that answer this question.\nQuestion:"
_ENDING = "\nAnswer:"
# A question without content: what is looked at for it, is looked at for any question.
_NO_QUESTION = "N/A"
# Passages and questions are cut to these shares of a prompt.
_PASSAGE_SHARE, _QUESTION_SHARE = 8, 4
# Tokens that a prompt must have for passages.
_LEAST_ROOM = 32
# Longer titles are cut.
_TITLE_TOKENS = 32


class Passage(Protocol):
    """What is read of a passage; `search.reranking.Passage` is one."""

    @property
    def document_id(self) -> str:
        """The document's id."""

    @property
    def title(self) -> str:
        """The document's title; empty if it has none."""

    @property
    def start(self) -> int:
        """Where the passage begins in the document."""

    @property
    def text(self) -> str:
        """The passage."""


@dataclass(frozen=True, slots=True)
class _Block:
    """The passages of a document that are read one after another.

    Attributes:
        title: Token ids of the title.
        texts: Numbers of the passages, and their token ids.
    """

    title: list[int]
    texts: list[tuple[int, list[int]]]

    @property
    def size(self) -> int:
        """How many tokens it has."""
        return len(self.title) + sum(len(ids) for _, ids in self.texts)


class Reranker:
    """Ranks passages by the attention that they get when a language model reads a question.

    The passages stand in one prompt, the best ones last, and the question behind them. A passage
    scores the attention of some heads from the question's tokens to its own, over the root of their
    number. Heads that retrieve are used as they are (Zhang et al. 2025, "Query-Focused Retrieval
    Heads"); of all heads together, what a question without content gets them to look at is taken
    off (Chen et al. 2024, "Attention in Large Language Models Yields Efficient Zero-Shot
    Re-Rankers"). The model runs no deeper than the deepest head, and attention is spelled out for
    the question's tokens alone.

    Args:
        host: A language model; an encoder cannot read this way.
        heads: Query heads that retrieve, such as `17.5`; by default all heads.

    Raises:
        HostError: The host is an encoder.
        InputError: A head is written in another way, or the host does not have it.
    """

    def __init__(self, host: Host, heads: Iterable[str] | None = None) -> None:
        check_type(host, Host, "host")
        if host.family.bidirectional:
            raise encoder_refused(host.name)
        shape = host.family.heads(host.model.config)
        self.host = host
        self._calibrated = heads is None
        if heads is None:
            every = range(shape.queries)
            self.heads = [Head(n, head) for n in range(len(host.blocks)) for head in every]
        else:
            self.heads = [Head.parse(head) for head in check_items(heads, "heads")]
        if not self.heads:
            raise InputError("A reranker needs at least one head; leave heads out for all of them.")
        check_heads(self.heads, host)
        self._by_layer: dict[int, list[int]] = {}
        for head in self.heads:
            self._by_layer.setdefault(head.layer, []).append(head.number)
        self._depth = max(self._by_layer) + 1

    def scores(self, question: str, passages: Sequence[Passage]) -> Scores:
        """Score passages for a question.

        Those that do not fit into one prompt, which is as long as the host's window, are dealt out
        to several. A passage that is very long is read to an eighth of a prompt.

        Args:
            question: Any text; of a very long one, the beginning is read.
            passages: The best first, as found.

        Returns:
            float64 [n], higher is better; comparable within one call only.

        Raises:
            InputError: The question is empty, or the host's windows are too short.
            HostError: The model does not say what it looks at.
        """
        check_text(question, "question")
        scores = np.zeros(len(passages))
        ids = self.host.tokenizer.ids
        before, after = ids(_ASKING), ids(_ENDING)
        room = self._room() - len(before) - len(after)
        asked = ids(f" {' '.join(question.split())}")[: room // _QUESTION_SHARE]
        looks = [(1.0, asked)]
        if self._calibrated:
            looks.append((-1.0, ids(f" {_NO_QUESTION}")))
        room -= max(len(question_ids) for _, question_ids in looks)
        if room < _LEAST_ROOM:
            raise InputError(
                f"The windows of host {self.host.name!r} have {self.host.shape.size} tokens, too "
                "few to rerank; load it with a larger window."
            )
        prompts = self._prompts(passages, room)
        for blocks in prompts:
            prompt, ranges = self._laid_out(blocks)
            reading = Reading(self.host, prompt, self._depth)
            numbers = list(ranges)
            bounds = np.array([ranges[number] for number in numbers])
            for sign, question_ids in looks:
                rows = slice(len(before), len(before) + len(question_ids))
                suffix = [*before, *question_ids, *after]
                scores[numbers] += sign * self._looked(reading, len(prompt), suffix, rows, bounds)
        return scores

    def _room(self) -> int:
        """Tokens of a prompt, but for its beginning."""
        host = self.host
        limit = host.shape.size if host.positions is None else min(host.shape.size, host.positions)
        return limit - len(host.tokenizer.prefix) - len(host.tokenizer.ids(_BEGINNING))

    def _prompts(self, passages: Sequence[Passage], room: int) -> list[list[_Block]]:
        """Deal documents out to as few prompts as have room for them, each best last."""
        ids = self.host.tokenizer.ids
        longest = max(room // _PASSAGE_SHARE, 1)
        documents: dict[str, list[int]] = {}
        for number, passage in enumerate(passages):
            documents.setdefault(passage.document_id, []).append(number)
        blocks = []
        for numbers in documents.values():
            title = passages[numbers[0]].title
            heading = ids(f"\n{title}:\n" if title else "\n")[: min(_TITLE_TOKENS, longest)]
            numbers.sort(key=lambda number: passages[number].start)
            texts = [(number, ids(f"{passages[number].text}\n")[:longest]) for number in numbers]
            blocks.append(_Block(heading, texts))
        return _dealt(blocks, room)

    def _laid_out(self, blocks: Sequence[_Block]) -> tuple[list[int], dict[int, tuple[int, int]]]:
        """A prompt's token ids, and the first and the end of those of each passage."""
        prompt = [*self.host.tokenizer.prefix, *self.host.tokenizer.ids(_BEGINNING)]
        ranges = {}
        for block in reversed(blocks):
            prompt += block.title
            for number, text in block.texts:
                ranges[number] = len(prompt), len(prompt) + len(text)
                prompt += text
        return prompt, ranges

    def _looked(
        self,
        reading: Reading,
        size: int,
        suffix: Sequence[int],
        rows: slice,
        bounds: NDArray[np.int64],
    ) -> Scores:
        """The mean attention that passages get from some tokens behind them.

        Args:
            reading: The passages.
            size: Tokens of them.
            suffix: Token ids of what stands behind them.
            rows: Those that look.
            bounds: First token of each passage and the one after its last, int64 [n, 2].

        Returns:
            The sum over a passage's tokens, over the root of their number, float64 [n].
        """
        total = size + len(suffix)
        sums = torch.zeros(len(bounds), dtype=torch.float64)

        def watch(layer: int, weights: Tensor) -> None:
            numbers = self._by_layer.get(layer)
            if numbers is None or rows.start == rows.stop:
                return
            attention = weights[numbers, rows].mean(1).sum(0).double().cpu()
            # A layer with a sliding window sees the last tokens only.
            unseen = total - len(attention)
            up_to = torch.cat([attention.new_zeros(unseen + 1), attention.cumsum(0)])
            first, end = torch.from_numpy(bounds).T
            sums.add_(up_to[end] - up_to[first])

        reading.look(suffix, watch)
        lengths = bounds[:, 1] - bounds[:, 0]
        scores: Scores = sums.numpy() / len(self.heads) / np.maximum(lengths, 1) ** 0.5
        return scores


def encoder_refused(name: str) -> HostError:
    """The error that a host cannot rerank."""
    return HostError(
        f"Host {name!r} is an encoder and cannot rerank, which takes a language model; name one, "
        "such as rerank_host='smollm2'."
    )


def _dealt(blocks: Sequence[_Block], room: int) -> list[list[_Block]]:
    """Deal blocks out so that every prompt has good ones and bad ones; larger ones are cut up."""
    pieces = list(chain.from_iterable(_cut(block, room) for block in blocks))
    n = max(-(-sum(piece.size for piece in pieces) // room), 1)
    while True:
        hands = [pieces[first::n] for first in range(min(n, len(pieces)))]
        if all(sum(piece.size for piece in hand) <= room for hand in hands):
            return hands
        n += 1


def _cut(block: _Block, room: int) -> Iterable[_Block]:
    """Blocks that have room in a prompt, each with the title."""
    texts: list[tuple[int, list[int]]] = []
    left = room - len(block.title)
    for number, text in block.texts:
        if texts and len(text) > left:
            yield _Block(block.title, texts)
            texts, left = [], room - len(block.title)
        texts.append((number, text))
        left -= len(text)
    yield _Block(block.title, texts)
