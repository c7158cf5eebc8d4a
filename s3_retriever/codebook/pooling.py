"""Pooling: the mean state of a sentence, from the states of its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s3_retriever.codes import encode, random_axes
from s3_retriever.cutter import Sentence, SentenceCutter
from s3_retriever.host import Window


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


class SentenceEncoder:
    """Turns the mean states of sentences into codes, and that of a question into a direction.

    What codes score with the direction is the cosine of the sentence's mean and the question's,
    both taken from the centre.

    Args:
        centre: What states lie around [width], float32, on the host's device.
    """

    def __init__(self, centre: Tensor) -> None:
        self._centre = centre
        self._axes = torch.from_numpy(random_axes(len(centre))).to(centre.device)

    @torch.inference_mode()
    def codes(self, means: Tensor) -> NDArray[np.uint8]:
        """Codes [n, bytes] of means [n, width]."""
        return encode(self._turned(means))

    @torch.inference_mode()
    def direction(self, states: Tensor) -> NDArray[np.float32]:
        """Where a question with these states [tokens, width] points, along the axes of codes.

        Returns:
            float32 [axes], of length 1; 0 for a question without tokens.
        """
        mean = states.to(self._centre).mean(0) if len(states) else self._centre
        turned = self._turned(mean[None])[0]
        direction: NDArray[np.float32] = turned / np.maximum(np.linalg.norm(turned), 1e-9)
        return direction

    def _turned(self, means: Tensor) -> NDArray[np.float32]:
        turned = (means.to(self._centre) - self._centre) @ self._axes
        return cast("NDArray[np.float32]", turned.cpu().numpy())
