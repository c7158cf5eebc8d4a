"""`StandaloneMap`: what a sentence says in its context, turned to what it would say alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from s3_retriever.errors import CodebookError

STANDALONE_FILE = "standalone.safetensors"


@dataclass(frozen=True, slots=True)
class StandaloneMap:
    """A linear map of mean states: `x W + b` points where the sentence would point alone.

    The states of a sentence that is read in its context tell of its neighbours too. A question
    has no neighbours. What it is compared with is, therefore, the state that the sentence would
    have had alone, as far as the state in context tells it.

    Attributes:
        weights: W, float32 [width, width].
        bias: b, float32 [width].
    """

    weights: Tensor
    bias: Tensor

    def save(self, folder: Path) -> None:
        """Write the map, weights in float16.

        Args:
            folder: Made where it is missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / STANDALONE_FILE
        path.touch()
        mode = path.stat().st_mode
        save_file({"weights": self.weights.half(), "bias": self.bias}, path)
        # The library writes files that only their owner can read.
        path.chmod(mode)

    @classmethod
    def load(cls, folder: Path) -> StandaloneMap:
        """Read a map.

        Raises:
            CodebookError: The file is missing or damaged.
        """
        path = folder / STANDALONE_FILE
        try:
            tensors = load_file(path)
            weights, bias = tensors["weights"].float(), tensors["bias"].float()
        except (OSError, SafetensorError, KeyError) as error:
            raise CodebookError(f"The map of sentences {path} cannot be read: {error}") from error
        if bias.ndim != 1 or weights.shape != (len(bias), len(bias)):
            raise CodebookError(
                f"The map of sentences {path} is not square; fetch or fit the codebook again."
            )
        return cls(weights, bias)
