"""Dense embeddings of a host, for the vector stores of LangChain and LlamaIndex."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray
from torch.nn import functional

from s3_retriever import Codebook, Document, Host
from s3_retriever.codebook.sentence_map import SentenceMap, mean_states
from s3_retriever.host.source import locate
from s3_retriever.progress import progress_bar

_LONGEST = 256
_BATCH = 64
# Texts that take long enough to deserve their own progress bar.
_MANY = 2_000
# A decoder makes an attention sink of the first token, so that should not be a word of the text.
_BEFORE = {"title": "Text:"}

_Encode = Callable[[Sequence[str]], NDArray[np.float32]]


class Embedder(Embeddings):
    """Embeds texts in the best way known for a host, as unit vectors in float32.

    A decoder whose codebook has a whitening: the mean states of the whitening's layer, weighted
    by IDF and without attention sinks, whitened. Any other host: as all-MiniLM-L6-v2 is published
    to do, the mean of the last hidden states over the attention mask, of at most 256 tokens.

    Remembers texts, which recur among contexts, but not questions, so that search times include
    theirs.

    Args:
        host: The host whose weights embed; without a whitening they are loaded again, with all
            layers.
        codebook: The host's codebook.
    """

    def __init__(self, host: Host, codebook: Codebook | None = None) -> None:
        self._encode = _whitened(host, codebook) or _published(host)
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


def _whitened(host: Host, codebook: Codebook | None) -> _Encode | None:
    """Embeds with the codebook's whitening; None if it has none."""
    for layer, whitening in codebook.sentence_maps.items() if codebook else ():
        if whitening.token_weights is not None:
            return functools.partial(_encode_whitened, host, layer, whitening)
    return None


@torch.inference_mode()
def _encode_whitened(
    host: Host, layer: int, whitening: SentenceMap, texts: Sequence[str]
) -> NDArray[np.float32]:
    # A text without line breaks, read as a line, is a single sentence.
    lines = [Document(" ".join(text.split()), metadata=_BEFORE, unit="line") for text in texts]
    total = sum(len(line.text) for line in lines)
    shown = len(texts) > _MANY
    with progress_bar(shown, total=total, unit="char", unit_scale=True, desc="Embedding") as bar:
        parts = mean_states(host, layer, lines, bar, whitening.token_weights)
        means = torch.cat([means for _, means in parts])
    # Without a single token that counts, a text has no direction.
    vectors = (means @ whitening.weights + whitening.bias).nan_to_num(0.0)
    return cast("NDArray[np.float32]", functional.normalize(vectors, dim=1).numpy())


def _published(host: Host) -> _Encode:
    model = _sentence_transformer(locate(host.name), min(_LONGEST, host.shape.size))

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        shown = len(texts) > _MANY and sys.stderr.isatty()
        vectors = model.encode(list(texts), batch_size=_BATCH, show_progress_bar=shown)
        return cast("NDArray[np.float32]", vectors)

    return encode


@functools.cache
def _sentence_transformer(path: str, longest: int) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(path, max_seq_length=longest, model_kwargs={"dtype": torch.float32})
    tokenizer = transformer.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()])
