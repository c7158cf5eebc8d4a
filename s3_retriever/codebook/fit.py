"""Fitting a codebook: one SAE per tap, from plain text, in one streaming pass."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from s3_retriever.errors import CodebookError, InputError, brief
from s3_retriever.features import MAX_FEATURES
from s3_retriever.host import Host, Window
from s3_retriever.host.batches import run_batches
from s3_retriever.host.device import fast_in_bfloat16
from s3_retriever.host.taps import Activations, Tap, read_each
from s3_retriever.paths import regular_size
from s3_retriever.progress import Bar, progress_bar
from s3_retriever.sae import SAETrainer, TopKSAE
from s3_retriever.sae.training import metric_of, report
from s3_retriever.sae.weights import save_weights
from s3_retriever.types import (
    check_count,
    check_flag,
    check_items,
    check_path,
    check_positive,
    check_string,
    check_type,
)

logger = logging.getLogger(__name__)

# Between two checkpoints.
_CHECKPOINT_SECONDS = 60.0
# The first tokens of the text are never trained on; the report is measured on them.
_HELD_OUT = 8_192
# Above this share of dead features, a fit is worth a warning.
_MOST_DEAD = 0.2


class Checkpoint:
    """The progress of a fit in one file, which is replaced atomically.

    Args:
        folder: The file's folder; made by the first `save`.
        identity: JSON values that identify the fit; a checkpoint of another fit is refused.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._path = folder / "progress.safetensors"
        self._identity = json.loads(json.dumps(identity))
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is old enough for another."""
        return time.monotonic() - self._saved >= _CHECKPOINT_SECONDS

    def save(self, tensors: dict[str, Tensor], counters: dict[str, int]) -> None:
        """Replace the checkpoint.

        Args:
            tensors: Tensors by name.
            counters: Numbers by name; they go into the file's header.

        Raises:
            CodebookError: The file cannot be written.
        """
        draft = self._path.with_suffix(".tmp")
        header = json.dumps({"fit": self._identity, "counters": counters})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            save_weights(tensors, draft, {"progress": header})
            draft.replace(self._path)
        except (OSError, SafetensorError) as error:
            raise CodebookError(
                f"The checkpoint {self._path} cannot be written ({brief(error)}); check free space "
                "and permissions."
            ) from error
        self._saved = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, int]] | None:
        """Read what `save` was given last; None if there is no checkpoint yet.

        Raises:
            CodebookError: The checkpoint is damaged or of another fit.
        """
        if not self._path.exists():
            return None
        try:
            regular_size(self._path)
            with safe_open(self._path, framework="pt") as file:
                progress = json.loads(file.metadata()["progress"])
            identity, counters = progress["fit"], dict(progress["counters"])
            tensors = load_file(self._path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise self.damaged(error) from error
        if identity != self._identity:
            raise CodebookError(
                f"The checkpoint {self._path} is from a fit with another host or other settings; "
                "delete it to start afresh, or repeat the command that it was made with."
            )
        return tensors, counters

    def damaged(self, error: object) -> CodebookError:
        """The error for a checkpoint that does not hold what `save` was given."""
        return CodebookError(
            f"The checkpoint {self._path} is damaged ({brief(error)}); delete it to start afresh."
        )


@dataclass(frozen=True, slots=True)
class FitSettings:
    """All that decides the outcome of a fit; a checkpoint resumes only with the same settings.

    Attributes:
        taps: Names of the taps.
        features: Dictionary size of every SAE.
        k: Most features of a token that stay active.
        tokens: Tokens to read; a shorter text is repeated.
        reuse: How often a token is trained on, on average.
        buffer_tokens: Activations that are kept for mixing, per tap.
        batch_size: Tokens of an optimiser step.
        learning_rate: Peak of Adam's learning rate.
        seed: Seed of the initial weights and the mixing.
        query_metric: Whether errors in keys count by what queries make of them.
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
    query_metric: bool = False

    @property
    def held_out(self) -> int:
        """Tokens at the beginning of the text that are kept for the report."""
        return max(min(_HELD_OUT, self.tokens // 10), 1)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole fit."""
        return max(int((self.tokens - self.held_out) * self.reuse / self.batch_size), 1)


class Fit(NamedTuple):
    """The result of a fit.

    Attributes:
        saes: Tap to its SAE.
        report: JSON values: the settings and, by tap name, the fields of an `SAEReport`.
    """

    saes: dict[Tap, TopKSAE]
    report: dict[str, Any]


def default_taps(host: Host) -> tuple[Tap, ...]:
    """Choose keys and hidden states: an encoder's last layer, a decoder's middle layer.

    The last layers of a decoder predict the next token and retrieve badly.
    """
    depth = host.model.config.num_hidden_layers
    layer = depth - 1 if host.family.bidirectional else depth // 2
    return Tap("key", layer), Tap("hidden", layer)


def sites_of(host: Host, taps: Sequence[Tap | str] | None) -> tuple[Tap, ...]:
    """The taps to fit, each once; `default_taps` if none are named.

    Raises:
        InputError: A name cannot be read.
    """
    chosen = check_items(taps or default_taps(host), "taps", (str, Tap))
    named = (tap if isinstance(tap, Tap) else Tap.parse(tap) for tap in chosen)
    return tuple(dict.fromkeys(named))


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
    query_metric: bool = False,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Fit:
    """Train one SAE per tap from plain text.

    The text streams through the host once; a buffer of bounded size mixes the activations of
    distant texts. Attention sinks are left out. The first 8,192 tokens (at most a tenth of all)
    are held out for the report.

    Args:
        host: The model to tap.
        texts: Plain texts. Read again from the start if they have fewer tokens than `tokens`.
        taps: Sites to fit, such as `key.5`; defaults to `default_taps`.
        features: Dictionary size; defaults to 16 times the hidden size.
        k: Most features of a token that stay active.
        tokens: Tokens to read, including those held out; defaults to those of the text.
        reuse: How often a token is trained on, on average.
        buffer_tokens: Activations kept for mixing, per tap.
        batch_size: Tokens of an optimiser step.
        learning_rate: Peak of Adam's learning rate.
        seed: Seed of the initial weights and the mixing.
        query_metric: Whether errors in keys count by how much they change attention, measured
            by the second moment of the text's first queries; for key taps scored by
            `FeatureAttention`. Hidden taps are fitted as ever.
        checkpoint: Folder that keeps the progress, saved once a minute and when interrupted. If it
            holds the progress of a fit with the same host and settings, that fit goes on; give the
            same text again.
        progress: Whether a bar shows rate and time left (only in a terminal).

    Returns:
        One SAE per tap, and a report for each: unexplained variance, dead features, feature
        frequency.

    Raises:
        InputError: There is too little text, or a setting is out of range.
        CodebookError: The checkpoint is damaged or of another fit.
    """
    check_type(host, Host, "host")
    texts = check_items(texts, "texts")
    sites = sites_of(host, taps)
    tokens = (
        _count_tokens(host, texts, progress) if tokens is None else check_count(tokens, "tokens")
    )
    if features is None:
        features = 16 * int(host.model.config.hidden_size)
    features = check_count(features, "features")
    buffer_tokens = check_count(buffer_tokens, "buffer_tokens")
    batch_size = check_count(batch_size, "batch_size")
    settings = FitSettings(
        taps=tuple(str(tap) for tap in sites),
        features=features,
        k=check_count(k, "k"),
        tokens=tokens,
        reuse=check_positive(reuse, "reuse"),
        buffer_tokens=min(buffer_tokens, max(tokens // 2, batch_size)),
        batch_size=batch_size,
        learning_rate=check_positive(learning_rate, "learning_rate"),
        seed=check_count(seed, "seed", least=0),
        query_metric=check_flag(query_metric, "query_metric"),
    )
    _check(settings)
    if settings.query_metric and not any(tap.site == "key" for tap in sites):
        raise InputError("A metric of queries is for key taps; name one, such as key.5.")
    folder = None if checkpoint is None else check_path(checkpoint, "checkpoint")
    job = _Job(host, sites, settings, folder)
    job.run(texts, progress)
    return job.result()


class _Job:
    """A fit under way: one trainer per tap, the mixing buffer, the checkpoint.

    Attributes:
        windows_read: Windows read so far, over all passes of the text.
        tokens_read: Their tokens.
    """

    def __init__(
        self, host: Host, taps: tuple[Tap, ...], settings: FitSettings, checkpoint: Path | None
    ) -> None:
        self.host = host
        self.taps = taps
        self.settings = settings
        # By key tap, the tap of the queries whose second moment is measured before training.
        self.query_taps: dict[Tap, Tap] = {}
        if settings.query_metric:
            self.query_taps = {t: replace(t, site="query") for t in taps if t.site == "key"}
        self.moments: dict[Tap, Tensor] = {}
        self.checkpoint: Checkpoint | None = None
        if checkpoint is not None:
            depth = max(tap.layer for tap in taps) + 1
            identity = {"host": host.fingerprint(depth), **asdict(settings)}
            self.checkpoint = Checkpoint(checkpoint, identity)
        self.trainers: dict[Tap, SAETrainer] = {}
        self.held_out: dict[Tap, list[Tensor]] = {tap: [] for tap in taps}
        self.buffer: dict[Tap, list[Tensor]] = {tap: [] for tap in taps}
        self.windows_read = 0
        self.tokens_read = 0
        self.generator = torch.Generator().manual_seed(settings.seed)

    @property
    def buffered(self) -> int:
        """Tokens in the buffer."""
        # Ctrl-C may come when only some taps have the rows of a window.
        return min(sum(map(len, parts)) for parts in self.buffer.values())

    def run(self, texts: Iterable[str], progress: bool) -> None:
        self._resume()
        with progress_bar(
            progress,
            total=self.settings.tokens,
            initial=self.tokens_read,
            unit="token",
            unit_scale=True,
            desc="Fitting",
        ) as bar:
            try:
                self._read(texts, bar)
            except KeyboardInterrupt:
                self._save_progress()
                raise
        if not self.trainers:
            raise InputError(
                f"The text ended after {self.tokens_read} tokens, which are all held out; give "
                "more text."
            )
        # What follows may be interrupted, too.
        self._save_progress()

    def _read(self, texts: Iterable[str], bar: Bar) -> None:
        """Read what is left of the text and train on it."""
        unread = self._activations(texts) if self.tokens_read < self.settings.tokens else ()
        for seen in unread:
            bar.update(self._take(seen))
            full = self.buffered >= self.settings.buffer_tokens
            if full:
                self._train(bar, keep=0.5)
            if self.checkpoint and self.checkpoint.due and (full or not self.trainers):
                self._save_progress()
            if self.tokens_read >= self.settings.tokens:
                break
        if self.buffered:
            self._train(bar, keep=0.0)

    def result(self) -> Fit:
        saes = {tap: self.trainers[tap].finished().to("cpu") for tap in self.taps}
        for tap, sae in saes.items():
            if not all(bool(weight.half().isfinite().all()) for weight in (sae.W_enc, sae.W_dec)):
                raise CodebookError(
                    f"The training of {tap} diverged, and nothing was written; fit with a lower "
                    "learning rate."
                )
            sae.layer = tap.layer if tap.site == "hidden" else None
        reports = {
            str(tap): report(saes[tap], torch.cat(self.held_out[tap]).cpu()).to_dict()
            for tap in self.taps
        }
        for name, measured in reports.items():
            logger.info("%s: %s", name, measured)
            _warn(name, measured)
        return Fit(saes, {"settings": asdict(self.settings), "taps": reports})

    def _activations(self, texts: Iterable[str]) -> Iterator[dict[Tap, Activations]]:
        """Read the windows that are still unread; yields what the taps see of each."""
        unread = islice(self._windows(texts), self.windows_read, None)
        batch_tokens = self.host.batch_tokens
        # No more activations wait to be put in order than the buffer holds.
        lookahead = max(self.settings.buffer_tokens // batch_tokens, 1)
        sites = (*self.taps, *self.query_taps.values())
        run = partial(read_each, self.host, sites)
        for _, seen in run_batches(unread, run, batch_tokens, lookahead):
            yield seen

    def _windows(self, texts: Iterable[str]) -> Iterator[Window]:
        """Yield the text's windows over and over; those held out come in the first pass only."""
        for first_pass in chain([True], repeat(False)):
            tokens, trainable = 0, False
            for window in self.host.windows(texts):
                held_out = tokens < self.settings.held_out
                size = len(window.starts)
                tokens += size
                trainable |= size > 0 and not held_out
                if first_pass or not held_out:
                    yield window
            if isinstance(texts, Iterator):
                return
            if not trainable:
                raise InputError(
                    f"The text has {tokens} tokens, which are all held out; give more text."
                )

    def _take(self, seen: Mapping[Tap, Activations]) -> int:
        """Hold a window's activations out or put them into the buffer; returns its tokens.

        A token that is an attention sink at any tap is dropped, as all taps train on the same.
        """
        content = ~torch.stack([part.sinks for part in seen.values()]).any(0)
        store = self.held_out if self.tokens_read < self.settings.held_out else self.buffer
        for tap in self.taps:
            store[tap].append(seen[tap].values[content])
        if not self.trainers:
            for tap, query_tap in self.query_taps.items():
                moments = _moments(seen[query_tap].values[content], self.host)
                self.moments[tap] = self.moments.get(tap, torch.zeros_like(moments)) + moments
        count = len(content)
        self.windows_read += 1
        self.tokens_read += count
        return count

    def _train(self, bar: Bar, keep: float) -> None:
        """Train on random batches of the buffer, then drop all but a random part of it.

        Args:
            bar: Shows the unexplained variance of each batch, as the mean over the taps.
            keep: Share of the buffer to keep.
        """
        rows = {tap: torch.cat(self.buffer[tap]) for tap in self.taps}
        size = self.buffered
        if not self.trainers:
            self._start(rows)
        # Half of the buffer leaves at each round, so a row is met in two rounds on average.
        steps = max(round(size * (1 - keep) * self.settings.reuse / self.settings.batch_size), 1)
        for _ in range(steps):
            chosen = torch.randint(size, (self.settings.batch_size,), generator=self.generator)
            errors = [
                self.trainers[tap].train(rows[tap][chosen.to(rows[tap].device)])
                for tap in self.taps
            ]
            bar.set_postfix_str(f"unexplained={sum(errors) / len(errors):.3f}")
        kept = torch.randperm(size, generator=self.generator)[: int(size * keep)]
        for tap in self.taps:
            self.buffer[tap] = [rows[tap][kept.to(rows[tap].device)]]

    def _start(self, samples: dict[Tap, Tensor]) -> None:
        """Make the trainers without touching the caller's random state."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            self.trainers = {
                tap: SAETrainer(
                    TopKSAE(sample.shape[1], self.settings.features, self.settings.k).to(
                        sample.device
                    ),
                    sample,
                    learning_rate=self.settings.learning_rate,
                    total_steps=self.settings.steps,
                    bfloat16=fast_in_bfloat16(sample.device),
                    metric=self._metric(tap),
                )
                for tap, sample in samples.items()
            }

    def _metric(self, tap: Tap) -> Tensor | None:
        """The metric of the queries at a key tap, head by head [width, width]; None without."""
        moments = self.moments.get(tap)
        if moments is None:
            return None
        blocks: Tensor = torch.block_diag(*metric_of(moments))  # type: ignore[no-untyped-call]
        return blocks

    def _save_progress(self) -> None:
        if self.checkpoint is None or not self.windows_read:
            return
        tensors = {"generator": self.generator.get_state()}
        for tap in self.taps:
            state = self.trainers[tap].state() if self.trainers else {}
            state["held_out"] = torch.cat(self.held_out[tap]).cpu()
            # Later the buffer is not saved; a resumed fit reads as many tokens more.
            if self.buffered and not self.trainers:
                state["buffer"] = torch.cat(self.buffer[tap])[: self.buffered].cpu()
            if tap in self.moments and not self.trainers:
                state["moments"] = self.moments[tap].cpu()
            tensors |= {f"{tap}/{name}": tensor for name, tensor in state.items()}
        counters = {
            "windows_read": self.windows_read,
            "tokens_read": self.tokens_read - (self.buffered if self.trainers else 0),
        }
        self.checkpoint.save(tensors, counters)

    def _resume(self) -> None:
        progress = None if self.checkpoint is None else self.checkpoint.load()
        if self.checkpoint is None or progress is None:
            return
        try:
            self._restore(*progress)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise self.checkpoint.damaged(error) from error
        logger.info("Resuming after %d tokens.", self.tokens_read)

    def _restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, int]) -> None:
        self.generator.set_state(tensors["generator"])
        states = {
            tap: {
                name.removeprefix(f"{tap}/"): tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{tap}/")
            }
            for tap in self.taps
        }
        for tap in self.taps:
            self.held_out[tap] = [states[tap].pop("held_out").to(self.host.device)]
            if (buffer := states[tap].pop("buffer", None)) is not None:
                self.buffer[tap] = [buffer.to(self.host.device)]
            if (moments := states[tap].pop("moments", None)) is not None:
                self.moments[tap] = moments.to(self.host.device)
        # Without weights the fit ended before its first round of training.
        if all(states.values()):
            self._start({tap: self.held_out[tap][0] for tap in self.taps})
            for tap in self.taps:
                self.trainers[tap].restore(states[tap])
        self.windows_read = counters["windows_read"]
        self.tokens_read = counters["tokens_read"]


def _moments(queries: Tensor, host: Host) -> Tensor:
    """Second moments of the queries that look at each key head, float32 [key heads, size, size].

    Args:
        queries: [tokens, query heads * size]; of all heads, or of those that share a key head.
        host: The host that they were read from.
    """
    heads = host.family.heads(host.model.config)
    groups = queries.shape[1] // (heads.queries_per_key * heads.size)
    grouped = queries.float().view(-1, groups, heads.queries_per_key, heads.size)
    looking = grouped.transpose(0, 1).flatten(1, 2)
    return looking.mT @ looking


def _count_tokens(host: Host, texts: Iterable[str], progress: bool) -> int:
    if isinstance(texts, Iterator):
        raise InputError(
            "Texts from an iterator can be read only once, so pass tokens=, the number to read."
        )
    count = 0
    with progress_bar(progress, unit="token", unit_scale=True, desc="Counting tokens") as bar:
        for text in texts:
            for ids, _ in host.tokenizer.stream(check_string(text, "text")):
                count += len(ids)
                bar.update(len(ids))
    return count


def _warn(tap: str, measured: Mapping[str, Any]) -> None:
    """Say so if an SAE spends its features badly."""
    if measured["dead_share"] > _MOST_DEAD:
        logger.warning(
            "%.0f %% of the features at %s never fire; give more text, fewer features or another "
            "layer.",
            100 * measured["dead_share"],
            tap,
        )
    if measured["frequent"]:
        logger.warning(
            "%d features at %s fire on more than half of all tokens and say nothing about a text; "
            "another layer may be better.",
            measured["frequent"],
            tap,
        )


def _check(settings: FitSettings) -> None:
    if settings.tokens < 2 * settings.batch_size:
        raise InputError(
            f"A fit needs at least {2 * settings.batch_size} tokens of text (two batches), and "
            f"there are {settings.tokens}; give more text or a smaller batch_size."
        )
    if settings.features > MAX_FEATURES:
        raise InputError(f"features must be at most {MAX_FEATURES}, not {settings.features}.")
    if not 1 <= settings.k <= settings.features:
        raise InputError(f"k must be between 1 and {settings.features}, not {settings.k}.")
