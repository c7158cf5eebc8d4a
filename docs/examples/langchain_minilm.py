"""The embeddings of all-MiniLM-L6-v2, offline, for the LangChain examples.

Any embeddings class works instead. This one runs the same weights as S3, so a vector store and S3
differ only in what they do with them.
"""

from __future__ import annotations

import torch
from langchain_core.embeddings import Embeddings
from torch.nn.functional import normalize

from s3_retriever import Host


class MiniLMEmbeddings(Embeddings):
    """Embeds a text as the mean of its token states."""

    def __init__(self) -> None:
        self._host = Host.load("minilm", device="cpu", dtype="float32")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed the texts to search."""
        return [self.embed_query(text) for text in texts]

    @torch.inference_mode()
    def embed_query(self, text: str) -> list[float]:
        """Embed a question."""
        ids = torch.tensor([self._host.tokenizer.backend.encode(text).ids])
        tokens = self._host.model(input_ids=ids).last_hidden_state[0]
        return normalize(tokens.mean(dim=0), dim=0).tolist()
