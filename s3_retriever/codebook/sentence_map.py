"""`StandaloneMap`: what a sentence says in its context, turned to what it would say alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from s3_retriever.errors import CodebookError
from s3_retriever.host import Host, Window
from s3_retriever.host.batches import run_batches
from s3_retriever.host.pooling import StreamPooler
from s3_retriever.host.taps import Tap, read
from s3_retriever.text.sentences import SentenceCutter

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


# Text that a map is fitted on at most: some 20,000 sentences, after which little is gained.
_CHARACTERS = 2_000_000
# Text of which sentences are read at once, first in their context and then alone.
_CHARACTERS_AT_ONCE = 200_000
# One sentence in so many is left out of the fit, for the report.
_HELD_OUT = 10
# As many sentences' worth of pull towards leaving states as they are.
_PRIOR = 1_000.0
_TINY = 1e-12
# Of the words in place of a title.
_TITLE_WORDS = 4
_TITLE_CHARACTERS = 200


class Remembered:
    """Hands texts on and remembers the first of them, as many as a map is fitted on.

    Args:
        texts: What can be read only once.

    Attributes:
        first: What is remembered so far.
    """

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts = texts
        self._left = _CHARACTERS
        self.first: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        text = next(self._texts)
        if self._left > 0:
            self.first.append(text)
            self._left -= len(text)
        return text


def first_texts(texts: Iterable[str], characters: int = _CHARACTERS) -> list[str]:
    """The first of many texts, until there are enough for a map, or as many characters.

    The last one is whole, but for one that is longer than that by itself.
    """
    most = min(characters, _CHARACTERS)
    kept: list[str] = []
    size = 0
    for text in texts:
        kept.append(text[:most])
        size += len(text)
        if size >= most:
            break
    return kept


def fit_standalone(
    host: Host, tap: Tap, texts: Sequence[str], centre: Tensor, *, progress: bool = True
) -> tuple[StandaloneMap, dict[str, float]]:
    """Fit the map of a tap of sentences by ridge regression, from plain text.

    Sentences are read twice, in their texts and alone. Where states in context are scaled to be
    as near to the directions alone as they can be, the map is the least change to them that makes
    up for the rest; little text changes little.

    Args:
        host: The model that reads.
        tap: A tap of sentences.
        texts: Plain texts.
        centre: What states are seen from [width], the decoder bias of the SAE of the tap's tokens.
        progress: Whether a bar shows rate and time left (only in a terminal).

    Returns:
        The map, and what it is worth: the number of `sentences` it was fitted on and, where some
        could be held out, the mean `cosine` of their mapped states with those alone and
        `cosine_in_context`, without the map.
    """
    centre = centre.detach().double().cpu()
    sums = _Sums(len(centre))
    held_out: list[tuple[Tensor, Tensor]] = []
    with tqdm(
        total=sum(map(len, texts)),
        unit="char",
        unit_scale=True,
        desc="Sentences alone",
        disable=None if progress else True,
    ) as bar:
        for group in _groups(texts):
            x, y = _pairs(host, tap, group, centre)
            kept = torch.arange(len(x)) % _HELD_OUT > 0
            sums.add(x[kept], y[kept])
            held_out.append((x[~kept], y[~kept]))
            bar.update(sum(map(len, group)))
    found = sums.solve(centre)
    return found, {"sentences": sums.count, **_worth(found, centre, held_out)}


class _Sums:
    """What a ridge regression needs to know of its rows, float64."""

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

    def solve(self, centre: Tensor) -> StandaloneMap:
        """The map; it takes states as they are, which `add` takes from the centre."""
        n = max(self.count, 1)
        x, y = self._x / n, self._y / n
        eye = torch.eye(len(x), dtype=torch.float64)
        scale = self._xy.trace() / self._xx.trace() if self._xx.any() else 1.0
        spread = self._xx - n * torch.outer(x, x)
        missing = self._xy - n * torch.outer(x, y) - scale * spread
        ridge = (_PRIOR * spread.trace() / n / len(x)).clamp_min(_TINY)
        weights = scale * eye + torch.linalg.solve(spread + ridge * eye, missing)
        return StandaloneMap(weights.float(), (y - (x + centre) @ weights).float())


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts of some thousand sentences together."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= _CHARACTERS_AT_ONCE:
            yield group
            group, size = [], 0
    yield group


def _pairs(host: Host, tap: Tap, texts: Sequence[str], centre: Tensor) -> tuple[Tensor, Tensor]:
    """Mean states of sentences in their texts, and directions alone; float64 [n, width]."""
    sentences = [one for text in texts for one in _sentences(host, text)]
    titled = ((_title(text), text) for text in texts)
    x = torch.cat([centre.new_empty(0, len(centre)).float(), *_means(host, tap, titled)])
    alone = [means.mean(0) for means in _means(host, tap, (("", one) for one in sentences))]
    y = torch.stack(alone) if alone else x
    # A few characters may be tokens in a text and none alone.
    read_both = y.isfinite().all(1) & x.isfinite().all(1)
    x, y = (rows[read_both].double() - centre for rows in (x, y))
    return x, functional.normalize(y, dim=1)


def _sentences(host: Host, text: str) -> Iterator[str]:
    """The sentences of a text, as an index has them."""
    if not text or text.isspace():
        return
    starts = np.array([start for start, _ in host.tokenizer.split(text)], dtype=np.uint32)
    cutter = SentenceCutter(text)
    for sentence in (*cutter.push(starts), *cutter.finish()):
        yield text[sentence.start : sentence.end]


def _title(text: str) -> str:
    """The first words of a text, in place of a title: many documents have one in an index."""
    return " ".join(text[:_TITLE_CHARACTERS].split()[:_TITLE_WORDS])


def _means(host: Host, tap: Tap, texts: Iterable[tuple[str, str]]) -> Iterator[Tensor]:
    """Of each (title, text) the mean states of its sentences [n, width], float32, on the CPU."""

    def run(batch: Sequence[Window]) -> Sequence[Tensor]:
        sizes = [window.keep.stop - window.keep.start for window in batch]
        return torch.split(read(host, [tap.tokens], batch)[tap.tokens].cpu(), sizes)

    pooler = StreamPooler()
    parts: list[Tensor] = []
    windows = host.windows(pooler.remember(texts))
    for window, states in run_batches(windows, run, host.batch_tokens):
        parts.append(pooler.push(window, states))
        if window.last:
            yield torch.cat(parts)
            parts = []


def _worth(
    found: StandaloneMap, centre: Tensor, held_out: Sequence[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    x, y = (torch.cat(rows) for rows in zip(*held_out, strict=True))
    if not len(x):
        return {}
    mapped = (x + centre) @ found.weights.double() + found.bias.double()
    cosines = {"cosine": mapped, "cosine_in_context": x}
    return {
        name: float(functional.cosine_similarity(rows, y).mean()) for name, rows in cosines.items()
    }
