"""The model that is measured, as a process of its own loads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from s3_retriever.codebook import Codebook
from s3_retriever.host import Host
from s3_retriever.host.device import find_device, find_dtype
from s3_retriever_bench.inference.codebooks import random_codebook
from s3_retriever_bench.inference.shapes import Shape


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that reads and answers.

    Attributes:
        name: Of the host or the shape.
        shape: Gets random weights; None for a host.
        tokenizer: Folder of the shape's tokenizer; None for a host.
        codebook: The host's codebook; random directions where None.
        tap: Tap of a random codebook; the keys of the middle layer where None.
    """

    name: str
    shape: Shape | None
    tokenizer: Path | None
    codebook: str | None
    tap: str | None

    def load(self) -> Host:
        """The model, whole, on the device that is chosen where nothing is said.

        Raises:
            HostError: It cannot be loaded, or has no LM head.
        """
        if self.shape is None:
            host = Host.load(self.name, generates=True)
            _ = host.causal  # tells if there is no head
            return host
        return self._random(self.shape)

    def find_codebook(self, host: Host, sample: str) -> Codebook:
        """The codebook to scan with.

        Args:
            host: The loaded model.
            sample: Text to centre random directions with.

        Raises:
            CodebookError: It cannot be loaded.
            InputError: The model has no such tap.
        """
        if self.codebook is not None:
            return Codebook.from_pretrained(self.codebook)
        return random_codebook(host, self.tap, sample)

    def _random(self, shape: Shape) -> Host:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = find_device()
        models: Any = AutoModelForCausalLM
        torch.manual_seed(0)
        with _made_in(find_dtype("auto", device)), device:
            model = models.from_config(shape.config(), attn_implementation="sdpa")
        tokenizer = AutoTokenizer.from_pretrained(self.tokenizer)
        return Host.of(model, tokenizer, name=self.name)


@contextmanager
def _made_in(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors in a dtype: the argument for it has another name in each transformers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
