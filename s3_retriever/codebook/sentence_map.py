"""`SentenceMap`: predicts the mean state of a sentence alone from that in its context."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from s3_retriever.document import Document
from s3_retriever.errors import CodebookError
from s3_retriever.host import Host, Window
from s3_retriever.host.batches import run_batches
from s3_retriever.host.taps import Activations, SentencePooler, Tap, read_each
from s3_retriever.progress import Bar, progress_bar
from s3_retriever.sae.weights import load_weights, save_weights
from s3_retriever.types import check_path, check_string

_MAP_FILE = "map.safetensors"


@dataclass(frozen=True, slots=True)
class SentenceMap:
    """A linear map of mean states: `x W + b` points where the sentence alone would point.

    In its context, the states of a sentence also reflect its neighbours. A question has no
    neighbours. It is therefore compared with the state that the sentence would have alone, as far
    as its state in context predicts it.

    Attributes:
        weights: W, float32 [width, width].
        bias: b, float32 [width].
        token_weights: Weight of each token id in a mean state, float32 [vocabulary]; None if all
            count the same. A map with token weights is a whitening, and maps questions too.
    """

    weights: Tensor
    bias: Tensor
    token_weights: Tensor | None = None

    def save(self, folder: Path) -> None:
        """Write the map, weights in float16.

        Args:
            folder: The folder; made if it does not exist.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weights": self.weights.half(), "bias": self.bias}
        if self.token_weights is not None:
            tensors["token_weights"] = self.token_weights.half()
        save_weights(tensors, folder / _MAP_FILE)

    @classmethod
    def load(cls, folder: str | Path, width: int) -> SentenceMap:
        """Read a map of states of some width.

        Raises:
            CodebookError: The file is missing or damaged, or of another width.
        """
        path = check_path(folder) / _MAP_FILE
        shapes = {"weights": (width, width), "bias": (width,)}
        # How many tokens the host has is known when it is loaded.
        optional = {"token_weights": (None,)}
        sentence_map = cls(**load_weights(path, "sentence map", shapes, optional))
        counts = sentence_map.token_weights
        if counts is not None and (counts < 0).any():
            raise CodebookError(
                f"The sentence map {path} has negative token weights; fetch or fit the codebook "
                "again."
            )
        return sentence_map


# Most text that a map is fitted on: some 20,000 sentences, after which little is gained.
_CHARACTERS = 2_000_000
# Text whose sentences are read together, first in their context and then alone.
_CHARACTERS_AT_ONCE = 200_000
# One sentence in so many is held out of the fit, for the report.
_HELD_OUT = 10
# Strength of the pull towards leaving states as they are, in sentences.
_PRIOR = 1_000.0
_TINY = 1e-12
# Size of the words used as a title.
_TITLE_WORDS = 4
_TITLE_CHARACTERS = 200


def keep_first(texts: Iterator[str], kept: list[str]) -> Iterator[str]:
    """Hand texts on, and keep the first of them for a map.

    Args:
        texts: Texts that can be read only once.
        kept: List to append the first texts to, as many as a map is fitted on.
    """
    size = 0
    for text in texts:
        check_string(text, "text")
        if size < _CHARACTERS:
            kept.append(text)
            size += len(text)
        yield text


def first_texts(texts: Iterable[str], characters: int = _CHARACTERS) -> list[str]:
    """Take the first of many texts, until they have enough characters for a map.

    Args:
        texts: Plain texts.
        characters: How many characters are enough; at most two million.

    Returns:
        The texts; a single text that is longer is cut.
    """
    most = min(characters, _CHARACTERS)
    taken: list[str] = []
    size = 0
    for text in texts:
        check_string(text, "text")
        taken.append(text[:most])
        size += len(text)
        if size >= most:
            break
    return taken


def fit_sentence_map(
    host: Host, layer: int, texts: Sequence[str], centre: Tensor, *, progress: bool = True
) -> tuple[SentenceMap, dict[str, float]]:
    """Fit the map of a layer by ridge regression, from plain text.

    The host reads each sentence twice, in its text and alone. Among all maps that predict the
    directions alone well, the regression prefers those near a mere scaling of the states in
    context; little text changes little.

    Args:
        host: The model that reads.
        layer: Layer of the hidden states.
        texts: Plain texts.
        centre: Centre of the states [width]: the decoder bias of the layer's SAE.
        progress: Whether a bar shows rate and time left (only in a terminal).

    Returns:
        The map, and its report: the number of `sentences` it was fitted on and, if any could be
        held out, the mean `cosine` of their mapped states with those alone and
        `cosine_in_context`, the same without the map.
    """
    centre = centre.detach().double().cpu()
    sums = _Sums(len(centre))
    held_out: list[tuple[Tensor, Tensor]] = []
    # Everything is read twice.
    total = 2 * sum(map(len, texts))
    with progress_bar(
        progress, total=total, unit="char", unit_scale=True, desc="Mapping sentences"
    ) as bar:
        for group in _groups(texts):
            x, y = _pairs(host, layer, group, centre, bar)
            kept = torch.arange(len(x)) % _HELD_OUT > 0
            sums.add(x[kept], y[kept])
            held_out.append((x[~kept], y[~kept]))
    sentence_map = sums.solve(centre)
    return sentence_map, {"sentences": sums.count, **_cosines(sentence_map, centre, held_out)}


class _Sums:
    """Sufficient statistics of a ridge regression, float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._x, self._y = (torch.zeros(width, dtype=torch.float64) for _ in range(2))
        self._xx, self._xy = (torch.zeros(width, width, dtype=torch.float64) for _ in range(2))

    def add(self, x: Tensor, y: Tensor) -> None:
        self.count += len(x)
        self._x += x.sum(0)
        self._y += y.sum(0)
        self._xx += x.T @ x
        self._xy += x.T @ y

    def solve(self, centre: Tensor) -> SentenceMap:
        """Solve for the map. It takes states as they are; `add` takes them less the centre."""
        n = max(self.count, 1)
        x, y = self._x / n, self._y / n
        eye = torch.eye(len(x), dtype=torch.float64)
        scale = self._xy.trace() / self._xx.trace() if self._xx.any() else 1.0
        spread = self._xx - n * torch.outer(x, x)
        missing = self._xy - n * torch.outer(x, y) - scale * spread
        ridge = (_PRIOR * spread.trace() / n / len(x)).clamp_min(_TINY)
        weights = scale * eye + torch.linalg.solve(spread + ridge * eye, missing)
        return SentenceMap(weights.float(), (y - (x + centre) @ weights).float())


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    """Group texts into a few thousand sentences each."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= _CHARACTERS_AT_ONCE:
            yield group
            group, size = [], 0
    yield group


def _pairs(
    host: Host, layer: int, texts: Sequence[str], centre: Tensor, bar: Bar
) -> tuple[Tensor, Tensor]:
    """Compute mean states of sentences in their texts and directions alone, less the centre.

    Returns:
        Both float64 [n, width], on the CPU.
    """
    in_context: list[Tensor] = []
    sentences: list[Document] = []
    for window, means in mean_states(host, layer, map(titled, texts), bar):
        in_context.append(means)
        text = window.document.text
        sentences += [Document(text[part.start : part.end]) for part in window.sentences]
    alone: list[Tensor] = []
    parts: list[Tensor] = []
    for window, means in mean_states(host, layer, sentences, bar):
        parts.append(means)
        if window.last:
            alone.append(torch.cat(parts).mean(0))
            parts = []
    x = torch.cat([centre.new_empty(0, len(centre)).float(), *in_context])
    y = torch.stack(alone) if alone else x
    # A few characters may have tokens in a text but none alone, or none but an attention sink.
    in_both = y.isfinite().all(1) & x.isfinite().all(1)
    x, y = (rows[in_both].double() - centre for rows in (x, y))
    return x, functional.normalize(y, dim=1)


def mean_states(
    host: Host,
    layer: int,
    documents: Iterable[Document],
    bar: Bar,
    token_weights: Tensor | None = None,
) -> Iterator[tuple[Window, Tensor]]:
    """Read documents; yields windows and the mean states of their sentences, float32 [m, width].

    Args:
        host: The model that reads.
        layer: Layer of the hidden states.
        documents: What to read.
        bar: Shows how many characters were read.
        token_weights: Weight of each token id in a mean; None if all count the same.
    """
    tap = Tap("hidden", layer)

    def run(batch: Sequence[Window]) -> Sequence[Activations]:
        seen = [read[tap] for read in read_each(host, [tap], batch)]
        # The bar moves with every batch; results wait for those of earlier windows.
        sentences = chain.from_iterable(window.sentences for window in batch)
        bar.update(sum(sentence.end - sentence.start for sentence in sentences))
        return [Activations(values.cpu(), sinks.cpu()) for values, sinks in seen]

    pooler = SentencePooler()
    for window, seen in run_batches(host.windows(documents), run, host.batch_tokens):
        ids = window.ids[window.keep]
        weights = weights_in_mean(ids, seen.sinks, token_weights)
        yield window, pooler.push(seen.values, window.sentences, weights)


def weights_in_mean(
    ids: NDArray[np.int64], ignored: Tensor, token_weights: Tensor | None
) -> Tensor:
    """Weigh tokens for mean states.

    Args:
        ids: Ids of the tokens [tokens].
        ignored: Which of them do not count, as attention sinks, bool [tokens], on the CPU.
        token_weights: Weight of each token id; None if all count the same.

    Returns:
        float32 [tokens].
    """
    content = (~ignored).float()
    if token_weights is None:
        return content
    return content * token_weights[torch.from_numpy(ids)]


def titled(text: str) -> Document:
    """A text with its first words as title, because many documents of an index have one."""
    title = " ".join(text[:_TITLE_CHARACTERS].split()[:_TITLE_WORDS])
    return Document(text, metadata={"title": title})


def _cosines(
    sentence_map: SentenceMap, centre: Tensor, held_out: Sequence[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """Compare held-out states, mapped and as they are in context, with those alone."""
    x, y = (torch.cat(rows) for rows in zip(*held_out, strict=True))
    if not len(x):
        return {}
    mapped = (x + centre) @ sentence_map.weights.double() + sentence_map.bias.double()
    cosines = {"cosine": mapped, "cosine_in_context": x}
    return {
        name: float(functional.cosine_similarity(rows, y).mean()) for name, rows in cosines.items()
    }
