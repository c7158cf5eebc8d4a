"""`SentenceEncoder`: codes of sentences and directions of questions, from mean states."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s3_retriever.codebook.standalone import StandaloneMap
from s3_retriever.codes import encode, random_axes


class SentenceEncoder:
    """Turns the mean states of sentences into codes, and that of a question into a direction.

    What codes score with the direction is the cosine of the sentence's mean, mapped to what it
    would be alone, and the question's, both taken from the centre.

    Args:
        centre: What states lie around [width], float32, on the host's device.
        standalone: The map of sentences, on the CPU; None leaves them as they are.
    """

    def __init__(self, centre: Tensor, standalone: StandaloneMap | None) -> None:
        self._centre = centre
        self._axes = torch.from_numpy(random_axes(len(centre))).to(centre.device)
        # Mapping and turning are one product.
        self._weights, self._bias = self._axes, -centre @ self._axes
        if standalone is not None:
            self._weights = standalone.weights.to(centre) @ self._axes
            self._bias = standalone.bias.to(centre) @ self._axes

    @torch.inference_mode()
    def codes(self, means: Tensor) -> NDArray[np.uint8]:
        """Codes [n, bytes] of means [n, width]."""
        turned = torch.addmm(self._bias, means.to(self._centre), self._weights)
        return encode(turned.cpu().numpy())

    @torch.inference_mode()
    def direction(self, states: Tensor) -> NDArray[np.float32]:
        """Where a question with these states [tokens, width] points, along the axes of codes.

        Returns:
            float32 [axes], of length 1; 0 for a question without tokens.
        """
        mean = states.to(self._centre).mean(0) if len(states) else self._centre
        turned = ((mean - self._centre) @ self._axes).cpu().numpy()
        direction: NDArray[np.float32] = turned / np.maximum(np.linalg.norm(turned), 1e-9)
        return direction
