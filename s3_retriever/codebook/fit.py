"""Fitting a codebook: one SAE per tap, from plain text, in one streaming pass."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from s3_retriever.codebook.codebook import Codebook
from s3_retriever.errors import CodebookError, InputError
from s3_retriever.host import Host, Window
from s3_retriever.host.batches import run_batches
from s3_retriever.recipe import Recipe, TapRecipe
from s3_retriever.sae import SAETrainer, TopKSAE
from s3_retriever.sae.training import report
from s3_retriever.tap import Tap, read

logger = logging.getLogger(__name__)

# The first tokens of the text are never trained on; the report is measured on them.
_HELD_OUT = 8_192
_CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class FitSettings:
    """What decides the outcome of a fit; a checkpoint is only resumed with the same.

    Attributes:
        taps: Names of the taps.
        features: Dictionary size of every SAE.
        k: Active features of a token.
        tokens: Tokens to read; the text is repeated where it is shorter.
        reuse: How often a token is trained on, on average.
        buffer_tokens: Activations that are kept for mixing, per tap.
        batch_size: Tokens of an optimiser step.
        learning_rate: Peak of Adam's learning rate.
        seed: Of the initial weights and the mixing.
    """

    taps: tuple[str, ...]
    features: int
    k: int
    tokens: int
    reuse: float
    buffer_tokens: int
    batch_size: int
    learning_rate: float
    seed: int

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole fit."""
        return max(int(self.tokens * self.reuse / self.batch_size), 1)


def default_taps(host: Host) -> tuple[Tap, ...]:
    """Keys and hidden states of the last layer of an encoder, of the middle layer of a decoder.

    The last layers of a decoder turn to the next token and retrieve badly.
    """
    depth = host.model.config.num_hidden_layers
    layer = depth - 1 if host.family.bidirectional else depth // 2
    return Tap("key", layer), Tap("hidden", layer)


def fit(
    host: Host,
    texts: Iterable[str],
    *,
    taps: Sequence[Tap | str] | None = None,
    features: int | None = None,
    k: int = 32,
    tokens: int | None = None,
    reuse: float = 2.0,
    buffer_tokens: int = 131_072,
    batch_size: int = 4_096,
    learning_rate: float = 1e-3,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    recipe: Recipe | None = None,
    progress: bool = True,
) -> Codebook:
    """Train one SAE per tap from plain text.

    The text is streamed through the host once; a buffer of bounded size mixes the activations of
    distant texts. The first 8,192 tokens are held out for the report.

    Args:
        host: The model to tap.
        texts: Plain texts. Read again from the start where they are shorter than `tokens`.
        taps: Sites to fit, such as `key.5`; `default_taps` where left out.
        features: Dictionary size; 16 times the hidden size where left out.
        k: Features of a token that stay active.
        tokens: Tokens to read; all of the text once where left out.
        reuse: How often a token is trained on, on average.
        buffer_tokens: Activations kept for mixing, per tap.
        batch_size: Tokens of an optimiser step.
        learning_rate: Peak of Adam's learning rate.
        seed: Of the initial weights and the mixing.
        checkpoint: Folder in which progress is kept once a minute; where it holds the progress
            of a fit with the same settings, that one goes on.
        recipe: Scoring defaults of the codebook; a plain sum over hidden taps (over key taps
            where there are none) where left out.
        progress: Whether a bar shows rate and time left (only in a terminal).

    Returns:
        The codebook with one SAE per tap and a report for each: unexplained variance, dead
        features, feature frequency.

    Raises:
        InputError: There is too little text, or a setting is out of range.
        CodebookError: The checkpoint is of other settings or damaged.
    """
    sites = tuple(Tap.parse(t) if isinstance(t, str) else t for t in taps or default_taps(host))
    if tokens is None:
        tokens = _count_tokens(host, texts)
    settings = FitSettings(
        taps=tuple(str(tap) for tap in sites),
        features=features or 16 * host.model.config.hidden_size,
        k=k,
        tokens=tokens,
        reuse=reuse,
        buffer_tokens=min(buffer_tokens, max(tokens // 2, batch_size)),
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    _check(settings)
    torch.manual_seed(seed)
    job = _Fit(host, sites, settings, Path(checkpoint) if checkpoint else None)
    job.run(texts, progress)
    return job.codebook(recipe)


class _Fit:
    """A fit under way: one trainer per tap, the mixing buffer, the checkpoint."""

    def __init__(
        self, host: Host, taps: tuple[Tap, ...], settings: FitSettings, checkpoint: Path | None
    ) -> None:
        self.host = host
        self.taps = taps
        self.settings = settings
        self.checkpoint = checkpoint
        self.trainers: dict[Tap, SAETrainer] = {}
        self.held_out: dict[Tap, Tensor] = {}
        self.texts_read = 0
        self.tokens_read = 0
        self.generator = torch.Generator().manual_seed(settings.seed)

    def run(self, texts: Iterable[str], progress: bool) -> None:
        resumed = self._resume()
        buffers: dict[Tap, list[Tensor]] = {tap: [] for tap in self.taps}
        held = 0
        saved = time.monotonic()
        with tqdm(
            total=self.settings.tokens,
            initial=self.tokens_read,
            unit="token",
            unit_scale=True,
            desc="Fitting",
            disable=None if progress else True,
        ) as bar:
            for text, rows in self._activations(texts, self.texts_read):
                count = len(rows[self.taps[0]])
                if not resumed and held < _held_out_tokens(self.settings):
                    for tap in self.taps:
                        self.held_out[tap] = torch.cat(
                            [self.held_out.get(tap, rows[tap][:0]), rows[tap]]
                        )
                    held += count
                    continue
                for tap in self.taps:
                    buffers[tap].append(rows[tap])
                if sum(map(len, buffers[self.taps[0]])) >= self.settings.buffer_tokens:
                    error = self._train(buffers, keep=0.5)
                    bar.set_postfix(unexplained=f"{error:.3f}")
                    if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                        self._save_checkpoint()
                        saved = time.monotonic()
                self.texts_read = text
                self.tokens_read += count
                bar.update(count)
                if self.tokens_read >= self.settings.tokens:
                    break
            if any(map(len, buffers[self.taps[0]])):
                self._train(buffers, keep=0.0)

    def codebook(self, recipe: Recipe | None) -> Codebook:
        saes = {tap: self.trainers[tap].finished().to("cpu") for tap in self.taps}
        reports = {
            str(tap): report(saes[tap], self.held_out[tap].cpu()).to_dict() for tap in self.taps
        }
        for name, measured in reports.items():
            logger.info("%s: %s", name, measured)
        depth = max(tap.layer for tap in self.taps) + 1
        return Codebook(
            host_name=self.host.name,
            fingerprint=self.host.fingerprint(depth),
            saes=saes,
            recipe=recipe or _default_recipe(self.taps, self.settings.k),
            report={"settings": asdict(self.settings), "taps": reports},
        )

    def _activations(
        self, texts: Iterable[str], skip: int
    ) -> Iterator[tuple[int, dict[Tap, Tensor]]]:
        """Activations of the text from the `skip`-th on, over and over, with texts read so far."""

        def run(batch: Sequence[Window]) -> list[dict[Tap, Tensor]]:
            seen = read(self.host, self.taps, batch)
            sizes = [window.keep.stop - window.keep.start for window in batch]
            parts = {tap: torch.split(seen[tap], sizes) for tap in self.taps}
            return [{tap: parts[tap][i] for tap in self.taps} for i in range(len(batch))]

        stream = self.host.windows(("", text) for text in _repeat(texts, skip))
        for window, rows in run_batches(stream, run, self.host.batch_tokens):
            yield skip + window.document + window.last, rows

    def _train(self, buffers: dict[Tap, list[Tensor]], keep: float) -> float:
        """Train on random batches of the buffer, then drop all but a random part of it."""
        rows = {tap: torch.cat(buffers[tap]) for tap in self.taps}
        size = len(rows[self.taps[0]])
        if not self.trainers:
            self._start(rows)
        # Half of the buffer leaves at each round, so a row is met in two rounds on average.
        steps = max(round(size * (1 - keep) * self.settings.reuse / self.settings.batch_size), 1)
        error = 0.0
        for _ in range(steps):
            chosen = torch.randint(size, (self.settings.batch_size,), generator=self.generator)
            for tap in self.taps:
                error = self.trainers[tap].train(rows[tap][chosen.to(rows[tap].device)])
        kept = torch.randperm(size, generator=self.generator)[: int(size * keep)]
        for tap in self.taps:
            buffers[tap] = [rows[tap][kept.to(rows[tap].device)]]
        return error

    def _start(self, rows: dict[Tap, Tensor]) -> None:
        for tap in self.taps:
            sae = TopKSAE(rows[tap].shape[1], self.settings.features, self.settings.k)
            self.trainers[tap] = SAETrainer(
                sae.to(rows[tap].device),
                rows[tap],
                learning_rate=self.settings.learning_rate,
                total_steps=self.settings.steps,
            )

    def _save_checkpoint(self) -> None:
        if self.checkpoint is None:
            return
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        for tap in self.taps:
            state = self.trainers[tap].state() | {"held_out": self.held_out[tap].cpu()}
            tensors |= {f"{tap}/{name}": tensor for name, tensor in state.items()}
        progress = {
            "settings": asdict(self.settings),
            "texts_read": self.texts_read,
            "tokens_read": self.tokens_read,
        }
        # One file, replaced at once: the counters ride in the header of the tensors.
        draft = self.checkpoint / "progress.safetensors.tmp"
        save_file(tensors, draft, metadata={"progress": json.dumps(progress)})
        draft.replace(self.checkpoint / "progress.safetensors")

    def _resume(self) -> bool:
        path = self.checkpoint / "progress.safetensors" if self.checkpoint else None
        if path is None or not path.is_file():
            return False
        try:
            progress = _read_progress(path)
            tensors = load_file(path)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise CodebookError(
                f"The checkpoint {path} is damaged ({error}); delete it to start afresh."
            ) from error
        if progress["settings"] != json.loads(json.dumps(asdict(self.settings))):
            raise CodebookError(
                f"The checkpoint {path} is of a fit with other settings; delete it to start "
                "afresh, or use the settings it was made with."
            )
        for tap in self.taps:
            prefix = f"{tap}/"
            state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            self.held_out[tap] = state.pop("held_out")
            self._start_from(tap, state)
        self.texts_read = int(progress["texts_read"])
        self.tokens_read = int(progress["tokens_read"])
        logger.info("Resuming after %d tokens.", self.tokens_read)
        return True

    def _start_from(self, tap: Tap, state: dict[str, Tensor]) -> None:
        width = state["sae.W_enc"].shape[0]
        sae = TopKSAE(width, self.settings.features, self.settings.k).to(self.host.device)
        self.trainers[tap] = SAETrainer(
            sae,
            self.held_out[tap].to(self.host.device),
            learning_rate=self.settings.learning_rate,
            total_steps=self.settings.steps,
        )
        self.trainers[tap].restore(state)


def _default_recipe(taps: Sequence[Tap], k: int) -> Recipe:
    hidden = [tap for tap in taps if tap.site == "hidden"]
    return Recipe(
        name="default",
        taps={str(tap): TapRecipe() for tap in hidden or taps},
        document_k=min(16, k),
        query_k=k,
    )


def _read_progress(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        progress = json.loads(file.metadata()["progress"])
    return dict(progress)


def _repeat(texts: Iterable[str], skip: int) -> Iterator[str]:
    """The texts over and over, without the first `skip`; an iterator is read once."""
    position = 0
    while True:
        before = position
        for text in texts:
            position += 1
            if position > skip:
                yield text
        if position == before or isinstance(texts, Iterator):
            return


def _count_tokens(host: Host, texts: Iterable[str]) -> int:
    if isinstance(texts, Iterator):
        raise InputError("Texts that can be read only once need tokens=, the number to read.")
    return sum(host.tokenizer.count(text) for text in texts)


def _held_out_tokens(settings: FitSettings) -> int:
    return min(_HELD_OUT, settings.tokens // 10)


def _check(settings: FitSettings) -> None:
    if settings.tokens < 2 * settings.batch_size:
        raise InputError(
            f"A fit needs at least {2 * settings.batch_size} tokens of text (two batches), and "
            f"there are {settings.tokens}; give more text or a smaller batch_size."
        )
    if not settings.taps:
        raise InputError("A codebook needs at least one tap, such as hidden.5.")
    if not 1 <= settings.k <= settings.features:
        raise InputError(f"k lies between 1 and {settings.features}, not at {settings.k}.")
    if settings.reuse <= 0 or settings.batch_size < 1 or settings.learning_rate <= 0:
        raise InputError("reuse, batch_size and learning_rate must be above zero.")
