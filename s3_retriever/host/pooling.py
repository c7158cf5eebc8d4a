"""Pooling: the mean state of a sentence, from the states of its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s3_retriever.host import Window
from s3_retriever.text.sentences import Sentence, SentenceCutter


class SentencePooler:
    """Averages the states of one document's tokens sentence by sentence, as they stream in.

    Args:
        text: The document's text.
    """

    def __init__(self, text: str) -> None:
        self._cutter = SentenceCutter(text) if text and not text.isspace() else None
        self._states: list[Tensor] = []

    def push(self, starts: NDArray[np.int64], states: Tensor, *, last: bool) -> Tensor:
        """Take further tokens.

        Args:
            starts: Their character starts [n].
            states: Their states [n, width], on any device.
            last: Whether the document ends with them.

        Returns:
            Means [m, width], float32, of the sentences that are complete now.
        """
        if self._cutter is None:
            return states[:0].float()
        self._states.append(states.float())
        found = list(self._cutter.push(starts.astype(np.uint32)))
        if last:
            found += self._cutter.finish()
        return self._means(found)

    def _means(self, sentences: Iterable[Sentence]) -> Tensor:
        lengths = [sentence.n_tokens for sentence in sentences]
        states = torch.cat(self._states)
        done = sum(lengths)
        self._states = [states[done:]]
        parts = torch.split(states[:done], lengths) if lengths else ()
        return torch.stack([part.mean(0) for part in parts]) if lengths else states[:0]


class StreamPooler:
    """Averages the states of a stream of documents, sentence by sentence."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._current: SentencePooler | None = None

    def remember(self, texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Hand on (title, text), keeping the texts until their tokens have come."""
        for document, (title, text) in enumerate(texts):
            self._texts[document] = text
            yield title, text

    def push(self, window: Window, states: Tensor) -> Tensor:
        """Take the states [n, width] of the next window; as `SentencePooler.push`."""
        if self._current is None:
            self._current = SentencePooler(self._texts.pop(window.document))
        means = self._current.push(window.starts, states, last=window.last)
        if window.last:
            self._current = None
        return means
