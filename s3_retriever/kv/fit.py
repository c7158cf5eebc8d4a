"""Fitting a codebook of keys and values from plain text, in one streaming pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from s3_retriever.codebook.fit import Checkpoint
from s3_retriever.errors import InputError
from s3_retriever.host import Host
from s3_retriever.kv.atoms import MAX_ATOMS
from s3_retriever.kv.hosts import query_metrics, read_cache, rotations
from s3_retriever.kv.layer import LayerAtoms
from s3_retriever.kv.rotary import Rotary
from s3_retriever.kv.training import AtomTrainer
from s3_retriever.progress import progress_bar
from s3_retriever.types import check_count, check_items, check_path, check_string, check_type


@dataclass(frozen=True, slots=True)
class FitSettings:
    """All that decides the outcome; a checkpoint resumes only with the same settings.

    Attributes:
        features: Atoms of a head's dictionary.
        key_k: Atoms of a key while fitting.
        value_k: Atoms of a value while fitting.
        tokens: Tokens to read.
        batch_tokens: Tokens of one round of learning.
        seed: Seed of the first atoms.
    """

    features: int
    key_k: int
    value_k: int
    tokens: int
    batch_tokens: int
    seed: int


class Fit(NamedTuple):
    """The result of a fit.

    Attributes:
        layers: Dictionaries and rotation of each layer.
        report: JSON values: the settings, the tokens read, and the share of the variance of the
            held-out keys and values that stays unexplained, by `key.0`, `value.0` and so on.
    """

    layers: list[LayerAtoms]
    report: dict[str, Any]


def fit(
    host: Host,
    texts: Iterable[str],
    *,
    features: int = 1_024,
    key_k: int = 8,
    value_k: int = 16,
    tokens: int = 32_768,
    batch_tokens: int = 4_096,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Fit:
    """Fit dictionaries of the keys and values of all layers of a host.

    Texts are joined into windows of the host's length. Attention sinks are left out, layer by
    layer. The first window is held out for the report.

    Args:
        host: A causal model, loaded with all its layers.
        texts: Plain texts; what they have beyond `tokens` is not read.
        features: Atoms of a head's dictionary, at most 4,096; a power of two wastes no bits.
        key_k: Atoms of a key while fitting; a cache may use more or fewer.
        value_k: Atoms of a value while fitting.
        tokens: Tokens to read, besides those held out.
        batch_tokens: Tokens of one round of learning, whose keys and values are held in memory.
        seed: Seed of the first atoms.
        checkpoint: Folder that keeps the progress, saved at most once a minute. If it holds the
            progress of a fit with the same host and settings, that fit goes on; give the same text
            again.
        progress: Whether a bar shows rate and time left (only in a terminal).

    Raises:
        InputError: There is too little text, or a setting is out of range.
        HostError: The host's cache cannot be encoded.
        CodebookError: The checkpoint is damaged or of another fit.
    """
    check_type(host, Host, "host")
    texts = check_items(texts, "texts")
    settings = FitSettings(
        features=check_count(features, "features", least=2),
        key_k=check_count(key_k, "key_k"),
        value_k=check_count(value_k, "value_k"),
        tokens=check_count(tokens, "tokens"),
        batch_tokens=check_count(batch_tokens, "batch_tokens"),
        seed=check_count(seed, "seed", least=0),
    )
    _check(settings)
    folder = None if checkpoint is None else check_path(checkpoint, "checkpoint")
    job = _Job(host, settings, folder)
    job.run(texts, progress)
    return job.result()


class _Job:
    """A fit under way: two trainers a layer, and the vectors of the batch that is being read."""

    def __init__(self, host: Host, settings: FitSettings, checkpoint: Path | None) -> None:
        self.host = host
        self.settings = settings
        self.rotations = [rotary.to(host.device) for rotary in rotations(host)]
        depth = len(self.rotations)
        self.trainers: dict[str, AtomTrainer] = {}
        self.held_out: dict[str, Tensor] = {}
        self.windows_read = 0
        self.tokens_read = 0
        self.checkpoint: Checkpoint | None = None
        if checkpoint is not None:
            identity = {"kv": host.fingerprint(depth), **asdict(settings)}
            self.checkpoint = Checkpoint(checkpoint, identity)

    def run(self, texts: Iterable[str], progress: bool) -> None:
        windows = _windows(self.host, texts)
        first = next(windows, None)
        if first is not None:
            self.held_out = self._vectors(first)
            self.trainers = self._new_trainers(first)
            self._resume()
        unread = islice(windows, self.windows_read, None)
        batch: list[dict[str, Tensor]] = []
        waiting = 0
        total = self.settings.tokens
        with progress_bar(
            progress,
            total=total,
            initial=self.tokens_read,
            unit="token",
            unit_scale=True,
            desc="Fitting",
        ) as bar:
            while self.tokens_read + waiting < total and (ids := next(unread, None)) is not None:
                batch.append(self._vectors(ids))
                waiting += len(ids)
                bar.update(len(ids))
                if waiting >= min(self.settings.batch_tokens, total - self.tokens_read):
                    self._train(batch)
                    self.windows_read += len(batch)
                    self.tokens_read += waiting
                    batch, waiting = [], 0
                    self._save()
        if not self.tokens_read:
            raise InputError(
                f"The text ended after {waiting} tokens besides the first window, and a fit needs "
                f"{min(self.settings.batch_tokens, total)}; give more text."
            )

    def _new_trainers(self, ids: list[int]) -> dict[str, AtomTrainer]:
        """Trainers of all layers; errors in keys count by what a window's queries make of them."""
        features, generator = self.settings.features, torch.Generator()
        generator.manual_seed(self.settings.seed)
        trainers = {}
        for layer, metrics in enumerate(query_metrics(self.host, ids, self.rotations)):
            alike = torch.eye(metrics.shape[-1], device=metrics.device).repeat(len(metrics), 1, 1)
            for site, metric in (("key", metrics), ("value", alike)):
                name = f"{site}.{layer}"
                trainers[name] = AtomTrainer(features, self._k(name), generator, metric)
        return trainers

    def result(self) -> Fit:
        atoms = {name: trainer.finished() for name, trainer in self.trainers.items()}
        layers = [
            LayerAtoms(atoms[f"key.{i}"], atoms[f"value.{i}"], rotary.to(torch.device("cpu")))
            for i, rotary in enumerate(self.rotations)
        ]
        report = {
            "settings": asdict(self.settings),
            "tokens": self.tokens_read,
            "unexplained_variance": {
                name: atoms[name].unexplained(self.held_out[name].cpu()[None], self._k(name))
                for name in self.trainers
            },
        }
        return Fit(layers, report)

    def _k(self, name: str) -> int:
        return self.settings.key_k if name.startswith("key") else self.settings.value_k

    def _vectors(self, ids: list[int]) -> dict[str, Tensor]:
        """The keys, their positions taken off, and values of a window, sinks left out."""
        cached = read_cache(self.host, ids)
        vectors = {}
        for i, rotary in enumerate(self.rotations):
            content = ~cached.sinks[i]
            keys = _without_positions(cached.keys[i], rotary)
            vectors[f"key.{i}"] = keys[0][:, content]
            vectors[f"value.{i}"] = cached.values[i][0][:, content]
        return vectors

    def _train(self, batch: list[dict[str, Tensor]]) -> None:
        for name, trainer in self.trainers.items():
            trainer.train(torch.cat([window.pop(name) for window in batch], dim=1))

    def _save(self) -> None:
        if self.checkpoint is None or not self.checkpoint.due:
            return
        tensors = {
            f"{name}/{key}": tensor
            for name, trainer in self.trainers.items()
            for key, tensor in trainer.state().items()
        }
        counters = {"windows_read": self.windows_read, "tokens_read": self.tokens_read}
        self.checkpoint.save(tensors, counters)

    def _resume(self) -> None:
        progress = None if self.checkpoint is None else self.checkpoint.load()
        if self.checkpoint is None or progress is None:
            return
        tensors, counters = progress
        try:
            for name, trainer in self.trainers.items():
                prefix = f"{name}/"
                state = {
                    n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)
                }
                trainer.restore(state, self.host.device)
            self.windows_read = counters["windows_read"]
            self.tokens_read = counters["tokens_read"]
        except (KeyError, ValueError, TypeError) as error:
            raise self.checkpoint.damaged(error) from error


def _windows(host: Host, texts: Iterable[str]) -> Iterator[list[int]]:
    """Join texts, with a blank line between them, and cut them into full windows."""
    prefix, gap = host.tokenizer.prefix, host.tokenizer.ids("\n\n")
    room = host.shape.size - len(prefix)
    waiting: list[int] = []
    for text in texts:
        for ids, _ in host.tokenizer.stream(check_string(text, "text")):
            waiting.extend(ids.tolist())
            while len(waiting) >= room:
                yield prefix + waiting[:room]
                waiting = waiting[room:]
        waiting.extend(gap)


def _without_positions(keys: Tensor, rotary: Rotary) -> Tensor:
    positions = torch.arange(keys.shape[2], device=keys.device)[None]
    return rotary.restore(keys.float(), positions)


def _check(settings: FitSettings) -> None:
    if settings.features > MAX_ATOMS:
        raise InputError(f"features must be at most {MAX_ATOMS}, not {settings.features}.")
    for name, k in (("key_k", settings.key_k), ("value_k", settings.value_k)):
        if k > settings.features:
            raise InputError(f"{name} must be at most {settings.features}, the features, not {k}.")
    # Half as many again, as attention sinks are left out.
    least = -(-3 * settings.features // 2)
    if min(settings.batch_tokens, settings.tokens) < least:
        raise InputError(
            f"{settings.features} features need batches of at least {least} tokens; raise tokens "
            "and batch_tokens, or fit fewer features."
        )
