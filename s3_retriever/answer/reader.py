"""`Reader`: the host of a long context and how it reads and is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3_retriever.answer.prompt import Prompt
from s3_retriever.answer.request import Request
from s3_retriever.codebook import Encoder
from s3_retriever.engine import S3Index
from s3_retriever.engine.identity import Identity
from s3_retriever.host import Host
from s3_retriever.index import Store
from s3_retriever.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Reader:
    """What reads a context and answers from it.

    Attributes:
        encoder: Host and codebook.
        recipe: How the context is indexed and questions are scored.
        codebook: Where the codebook was named to be; None where it belongs to the host.
        chat_options: Passed on to the tokenizer's chat template.
    """

    encoder: Encoder
    recipe: Recipe
    codebook: str | Path | None
    chat_options: Mapping[str, Any]

    @property
    def host(self) -> Host:
        """The one model that scans and generates."""
        return self.encoder.host

    @property
    def identity(self) -> Identity:
        """What a scan keeps about how it was made."""
        return Identity.of(self.encoder, self.recipe, self.codebook)

    def index(self, store: Store) -> S3Index:
        """The index in a store."""
        return S3Index(store, self.encoder, self.recipe)

    def request(
        self,
        question: str,
        token_budget: int,
        max_new_tokens: int,
        prompt: str | None,
        options: Mapping[str, Any],
    ) -> Request:
        """A question for the host, checked before any work.

        Raises:
            InputError: It cannot be asked like this.
            HostError: The host cannot generate.
        """
        written = Prompt(self.host, prompt, self.chat_options)
        return Request(self.host, question, token_budget, max_new_tokens, written, options)
