"""Dense embeddings of a host, for the vector stores of LangChain and LlamaIndex."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from s3_retriever import Host
from s3_retriever.host.source import locate

_LONGEST = 256
_BATCH = 64
# Texts that take long enough to deserve their own progress bar.
_MANY = 2_000


class Embedder(Embeddings):
    """Embeds texts as all-MiniLM-L6-v2 is published to do, and any other host the same way.

    The mean of the last hidden states over the attention mask, normalised to length 1, float32,
    of at most 256 tokens. Remembers texts, which recur among contexts, but not questions, so that
    search times include theirs.

    Args:
        host: The host whose weights embed; they are loaded again, with all layers.
    """

    def __init__(self, host: Host) -> None:
        self._model = _sentence_transformer(locate(host.name), min(_LONGEST, host.shape.size))
        self._known: dict[str, NDArray[np.float32]] = {}

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings [n, width] of texts; new ones are embedded in batches of similar length."""
        fresh = list(dict.fromkeys(text for text in texts if text not in self._known))
        if fresh:
            self._known.update(zip(fresh, self._encode(fresh), strict=True))
        return np.stack([self._known[text] for text in texts])

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """See LangChain's `Embeddings`."""
        # Rows as they are: the vector store makes an array of them anyway.
        return cast("list[list[float]]", list(self.vectors(texts)))

    def embed_query(self, text: str) -> list[float]:
        """See LangChain's `Embeddings`."""
        return cast("list[float]", self._encode([text])[0].tolist())

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        shown = len(texts) > _MANY and sys.stderr.isatty()
        vectors = self._model.encode(texts, batch_size=_BATCH, show_progress_bar=shown)
        return cast("NDArray[np.float32]", vectors)


@functools.cache
def _sentence_transformer(path: str, longest: int) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(path, max_seq_length=longest, model_kwargs={"dtype": torch.float32})
    tokenizer = transformer.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()])
