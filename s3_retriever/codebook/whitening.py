"""Whitening: the sentence map of a decoder.

The mean states of a decoder's sentences lie close together: a few directions, which all sentences
share, hold most of the variance, and a cosine sees little else. A map that evens the directions
out, and a mean in which rare tokens count more, set sentences apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from s3_retriever.codebook.sentence_map import SentenceMap, mean_states, titled
from s3_retriever.document import Document
from s3_retriever.host import Host
from s3_retriever.progress import progress_bar

# Half of the way to equal variances: eigenvalues of the covariance to the power of -1/4, where a
# full whitening has -1/2. On HotpotQA it is better than none or all of it.
_POWER = -0.25
# Smallest eigenvalue, as a share of their mean: directions without variance are not blown up.
_SMALLEST = 1e-5


def fit_whitening(
    host: Host, layer: int, texts: Sequence[str], *, progress: bool = True
) -> tuple[SentenceMap, dict[str, float]]:
    """Fit the whitening of a layer's mean states from plain text.

    Args:
        host: The model that reads.
        layer: Layer of the hidden states.
        texts: Plain texts.
        progress: Whether a bar shows rate and time left (only in a terminal).

    Returns:
        The map, with token weights, and its report: the number of `sentences` it was fitted on.
    """
    documents = [titled(text) for text in texts]
    weights = token_idf(host, documents)
    with progress_bar(
        progress, total=sum(map(len, texts)), unit="char", unit_scale=True, desc="Whitening"
    ) as bar:
        parts = [means for _, means in mean_states(host, layer, documents, bar, weights)]
    means = torch.cat(parts)
    means = means[means.isfinite().all(1)]
    return whitening_of(means, weights), {"sentences": len(means)}


def token_idf(host: Host, documents: Iterable[Document]) -> Tensor:
    """Compute the inverse document frequency of every token id, over sentences.

    Returns:
        float32 [vocabulary], `log((N + 1) / (n + 1))` for a token in n of N sentences.
    """
    counts = torch.zeros(host.tokenizer.backend.get_vocab_size())
    sentences = 0
    rest = torch.empty(0, dtype=torch.long)
    for window in host.windows(documents):
        rest = torch.cat([rest, torch.from_numpy(window.ids[window.keep])])
        for sentence in window.sentences:
            counts[torch.unique(rest[: sentence.n_tokens])] += 1
            rest = rest[sentence.n_tokens :]
        sentences += len(window.sentences)
    return torch.log((sentences + 1) / (counts + 1))


def whitening_of(means: Tensor, token_weights: Tensor) -> SentenceMap:
    """Whiten mean states half-way, without rotating them (ZCA).

    Args:
        means: Mean states of sentences [n, width].
        token_weights: Weight of each token id in these means [vocabulary].
    """
    means = means.double()
    centre = means.mean(0)
    covariance = (means - centre).T @ (means - centre) / max(len(means), 1)
    values, axes = torch.linalg.eigh(covariance)
    values = values.clamp_min(_SMALLEST * values.mean()).clamp_min(1e-12)
    weights = (axes * values**_POWER) @ axes.T
    return SentenceMap(weights.float(), (-centre @ weights).float(), token_weights)
