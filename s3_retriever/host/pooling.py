"""Pooling: the mean state of a sentence, from the states of its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from s3_retriever.features import Sentence


class SentencePooler:
    """Averages the states of tokens sentence by sentence, as they stream in.

    It holds the states of the unfinished sentence only.
    """

    def __init__(self) -> None:
        self._states: list[Tensor] = []

    def push(self, states: Tensor, sentences: Sequence[Sentence]) -> Tensor:
        """Take the next tokens; documents follow one another.

        Args:
            states: Their states [n, width], on any device.
            sentences: The m sentences that are complete with them.

        Returns:
            Mean states of these sentences, float32 [m, width].
        """
        self._states.append(states.float())
        if not sentences:
            return states[:0].float()
        lengths = [sentence.n_tokens for sentence in sentences]
        complete, rest = torch.cat(self._states).tensor_split([sum(lengths)])
        self._states = [rest]
        return torch.stack([part.mean(0) for part in torch.split(complete, lengths)])
