"""The embeddings of all-MiniLM-L6-v2, offline, for the LangChain examples.

Any class of embeddings does in their place. This one runs the very weights that S3 runs, so that
a vector store and S3 differ in nothing but what they do with them.
"""

from __future__ import annotations

import torch
from langchain_core.embeddings import Embeddings
from torch.nn.functional import normalize

from s3_retriever import Host


class MiniLMEmbeddings(Embeddings):
    """One vector for each text: the mean of its tokens."""

    def __init__(self) -> None:
        self._host = Host.load("minilm", device="cpu", dtype="float32")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts that are searched."""
        return [self.embed_query(text) for text in texts]

    @torch.inference_mode()
    def embed_query(self, text: str) -> list[float]:
        """Embed a text that is searched for."""
        ids = torch.tensor([self._host.tokenizer.backend.encode(text).ids])
        tokens = self._host.model(input_ids=ids).last_hidden_state[0]
        return normalize(tokens.mean(dim=0), dim=0).tolist()
