"""Probing: what all layers and heads of a host make of a context and the questions about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from s3_retriever.calibration.probes import Probe
from s3_retriever.calibration.questions import LabelledQuestion
from s3_retriever.codebook.sentence_map import weights_in_mean
from s3_retriever.document import Document
from s3_retriever.encoder.encoder import QUESTION_TITLE, first_word_is_sink
from s3_retriever.host import Host, Window
from s3_retriever.host.batches import run_batches
from s3_retriever.host.taps import Activations, SentencePooler, Site, Tap, mean_state, read_each
from s3_retriever.progress import Bar


class Probed(NamedTuple):
    """A context with n sentences, as the host sees it.

    Attributes:
        means: Mean states of the sentences, float32 [layers, n, width].
        topical: Mean states of the topical questions, float32 [layers, t, width].
        topical_targets: Which sentences are near to each of them, bool [t, n].
        attention: What each query head scores the sentences for the pointed questions, float32
            [p, layers * heads, n].
        pointed_targets: Which sentence each of these asks for, bool [p, n].
    """

    means: Tensor
    topical: Tensor
    topical_targets: Tensor
    attention: Tensor
    pointed_targets: Tensor


class Prober:
    """Reads contexts at all layers of a host.

    Args:
        host: The model.
        token_weights: Weight of each token id in a mean state, float32 [vocabulary].
        bar: Shows how many characters were read.
    """

    def __init__(self, host: Host, token_weights: Tensor, bar: Bar) -> None:
        self._host = host
        self._layers = range(len(host.blocks))
        self._shape = host.family.heads(host.model.config)
        self._token_weights = token_weights
        self._bar = bar

    @torch.inference_mode()
    def read(self, probe: Probe) -> Probed:
        """Read a context and its questions; the keys of all its tokens are held meanwhile."""
        keys: list[list[Activations]] = [[] for _ in self._layers]
        means: list[list[Tensor]] = [[] for _ in self._layers]
        poolers = [SentencePooler() for _ in self._layers]
        places: list[tuple[str, int, int]] = []
        lengths: list[int] = []
        for window, seen in self._windows(probe.documents, ("key", "hidden")):
            for layer in self._layers:
                keys[layer].append(seen[Tap("key", layer)])
                states = self._weighed([window], seen[Tap("hidden", layer)])
                means[layer].append(poolers[layer].push(states[0], window.sentences, states[1]))
            places += [(window.document.id, start, end) for start, end, _ in window.sentences]
            lengths += [n for _, _, n in window.sentences]
        topical = self._topical(probe.topical)
        queries = self._pointed(probe.pointed)
        attention = [
            self._attention(_joined(keys[layer]), [seen[layer] for seen in queries], lengths)
            for layer in self._layers
        ]
        return Probed(
            torch.stack([torch.cat(parts) for parts in means]),
            topical,
            _targets(probe.topical, places),
            torch.cat(attention, dim=1),
            _targets(probe.pointed, places),
        )

    def _windows(
        self, documents: Iterable[Document], sites: Sequence[Site]
    ) -> Iterator[tuple[Window, dict[Tap, Activations]]]:
        """Read some sites of every layer."""
        taps = [Tap(site, layer) for layer in self._layers for site in sites]

        def run(batch: Sequence[Window]) -> list[dict[Tap, Activations]]:
            seen = read_each(self._host, taps, batch)
            sentences = chain.from_iterable(window.sentences for window in batch)
            self._bar.update(sum(end - start for start, end, _ in sentences))
            return seen

        # What all layers see of windows that are sorted together is held at once.
        windows = self._host.windows(documents)
        yield from run_batches(windows, run, self._host.batch_tokens, lookahead=1)

    def _questions(
        self, texts: Iterable[str], site: Site
    ) -> Iterator[tuple[list[Window], list[Activations]]]:
        """Read a site of every layer for questions; yields each question's windows and layers."""
        metadata = {"title": QUESTION_TITLE} if first_word_is_sink(self._host) else {}
        windows: list[Window] = []
        parts: list[dict[Tap, Activations]] = []
        documents = (Document(text, metadata=metadata) for text in texts)
        for window, seen in self._windows(documents, [site]):
            windows.append(window)
            parts.append(seen)
            if window.last:
                taps = [Tap(site, layer) for layer in self._layers]
                yield windows, [_joined([part[tap] for part in parts]) for tap in taps]
                windows, parts = [], []

    def _topical(self, questions: Sequence[LabelledQuestion]) -> Tensor:
        """Mean states of questions [layers, questions, width]."""
        texts = [question.text for question in questions]
        means = [
            torch.stack([mean_state(*self._weighed(windows, each)) for each in layers])
            for windows, layers in self._questions(texts, "hidden")
        ]
        return torch.stack(means, dim=1)

    def _pointed(self, questions: Sequence[LabelledQuestion]) -> list[list[Tensor]]:
        """Queries of questions at each layer [tokens, heads * size]."""
        texts = [question.text for question in questions]
        return [
            [each.values[~each.sinks] for each in layers]
            for _, layers in self._questions(texts, "query")
        ]

    def _weighed(self, windows: Sequence[Window], seen: Activations) -> tuple[Tensor, Tensor]:
        """States of tokens and their weights in a mean, on the CPU."""
        ids = np.concatenate([window.ids[window.keep] for window in windows])
        return seen.values.cpu(), weights_in_mean(ids, seen.sinks.cpu(), self._token_weights)

    def _attention(
        self, keys: Activations, queries: Sequence[Tensor], lengths: Sequence[int]
    ) -> Tensor:
        """Score sentences by one layer's heads, as a search with heads does.

        Args:
            keys: Keys of the context [t, key heads * size].
            queries: Queries of each question [n, query heads * size].
            lengths: Tokens of each sentence.

        Returns:
            float32 [q, query heads, sentences], on the CPU.
        """
        shape = self._shape
        by_head = keys.values.float().view(-1, shape.keys, shape.size).permute(1, 2, 0)

        def attend(asked: Tensor) -> Tensor:
            """Mean attention of the question's tokens to each token [query heads, t]."""
            sizes = shape.keys, shape.queries_per_key, len(asked)
            groups = asked.float().view(len(asked), *sizes[:2], shape.size)
            logits = groups.permute(1, 2, 0, 3).flatten(1, 2) @ by_head / shape.size**0.5
            shares: Tensor = logits.masked_fill(keys.sinks, -torch.inf).softmax(-1)
            return shares.view(*sizes, len(keys.sinks)).mean(2).flatten(0, 1)

        n_tokens = torch.tensor(lengths, device=keys.values.device)
        sentence = torch.arange(len(lengths), device=n_tokens.device).repeat_interleave(n_tokens)
        scores = []
        for asked in queries:
            attention = attend(asked)
            sums = attention.new_zeros(len(attention), len(lengths))
            scores.append((sums.index_add_(1, sentence, attention) / n_tokens.sqrt()).cpu())
        return torch.stack(scores)


def _joined(parts: Sequence[Activations]) -> Activations:
    return Activations(*map(torch.cat, zip(*parts, strict=True)))


def _targets(
    questions: Sequence[LabelledQuestion], places: Sequence[tuple[str, int, int]]
) -> Tensor:
    """Which sentences overlap with the evidence of each question, bool [questions, sentences]."""
    rows = [
        [
            any(
                document == gold.document_id and gold.start < end and start < gold.end
                for gold in question.evidence
            )
            for document, start, end in places
        ]
        for question in questions
    ]
    return torch.tensor(rows, dtype=torch.bool).view(len(questions), len(places))
