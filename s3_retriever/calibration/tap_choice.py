"""`choose_taps`: the layer and the heads of a host that retrieve best, found without labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from s3_retriever.calibration.probes import probes_from
from s3_retriever.calibration.probing import Probed, Prober
from s3_retriever.codebook.sentence_map import SentenceMap
from s3_retriever.codebook.whitening import token_idf, whitening_of
from s3_retriever.errors import InputError
from s3_retriever.host import Host
from s3_retriever.host.families import Heads
from s3_retriever.progress import progress_bar
from s3_retriever.types import check_count, check_items, check_type

# A layer or a head is preferred to deeper ones that are better by no more than this: the deepest
# one decides how much of the host every scan runs.
_NO_BETTER = 0.01
# What a second key head must add: an index keeps a key of each token for it, of 32 bytes or more.
# In SmolLM2 and MiniLM one that adds .02 finds no more labelled evidence.
_WORTH_A_KEY_HEAD = 0.03
# A query head is taken with a better one of the same key head if it scores this share of it.
_AS_GOOD = 0.8
# Key heads that are compared with all of their good query heads together.
_TRIED = 12
# Standard errors above chance: the best of a thousand heads that know nothing has three.
_ABOVE_CHANCE = 4.0


@dataclass(frozen=True, slots=True)
class LayerScore:
    """How well a layer finds what probes ask for: mean reciprocal ranks, 0 to 1.

    Attributes:
        layer: Counted from 0.
        hidden: For topical questions, by the whitened mean states of its output.
        head: Its best query head, such as `17.5`.
        attention: For pointed questions, by that head.
    """

    layer: int
    hidden: float
    head: str
    attention: float


@dataclass(frozen=True, slots=True)
class TapChoice:
    """The layer and the heads that retrieve best.

    Attributes:
        layer: Layer of the hidden states.
        heads: Query heads, best first; none if no head beats chance, or the host is an encoder.
        curve: What every layer scores.
        hidden_chance: What hidden states would score that put sentences in random order.
        head_chance: The same for heads.
        together: What the chosen heads score together; 0 without heads.
        questions: How many questions were asked.
        measured: Whether a layer beats chance; otherwise `layer` is the host's last layer if it
            is an encoder, else an early one.
    """

    layer: int
    heads: tuple[str, ...]
    curve: tuple[LayerScore, ...]
    hidden_chance: float
    head_chance: float
    together: float
    questions: int
    measured: bool

    @property
    def taps(self) -> tuple[str, ...]:
        """The taps to fit."""
        return (f"hidden.{self.layer}",)

    def report(self) -> dict[str, Any]:
        """The choice as JSON values."""
        return {"taps": list(self.taps), **asdict(self)}


def choose_taps(
    host: Host,
    texts: Iterable[str],
    *,
    contexts: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> TapChoice:
    """Choose a layer and retrieval heads by questions made from plain text.

    The host reads contexts of about 4,000 tokens, and the questions of `probes_from`, through all
    of its layers. Each layer ranks a context's sentences by the cosine of whitened mean states,
    for topical questions; each head by the attention of a question's tokens, as a search does, for
    pointed ones. The score is the mean reciprocal rank of a question's target. Of layers or heads
    that are about as good, the shallowest is taken, since a scan runs the host up to the deepest.
    A second key head is taken only if it adds enough to be worth its room in an index. Encoders
    get no heads: those of MiniLM retrieve, but add nothing to its features.

    Args:
        host: The model, with all of its layers.
        texts: Plain texts, read as far as needed.
        contexts: Most contexts to read.
        seed: Seed of the questions.
        progress: Whether a bar shows rate and time left (only in a terminal).

    Raises:
        InputError: There is too little text to ask about.
    """
    check_type(host, Host, "host")
    texts = check_items(texts, "texts")
    contexts = check_count(contexts, "contexts")
    made = probes_from(texts, contexts, check_count(seed, "seed", least=0))
    probes = [probe for probe in made if probe.topical]
    if not probes:
        raise InputError(
            "There is too little text to choose taps by, which takes paragraphs of three sentences "
            "or more; give more text, or name the taps."
        )
    documents = [document for probe in probes for document in probe.documents]
    asked = [question for probe in probes for question in (*probe.topical, *probe.pointed)]
    weights = token_idf(host, documents)
    with progress_bar(
        progress,
        total=sum(len(each.text) for each in documents) + sum(len(each.text) for each in asked),
        unit="char",
        unit_scale=True,
        desc="Choosing taps",
    ) as bar:
        prober = Prober(host, weights, bar)
        probed = [prober.read(probe) for probe in probes]
    return _choose(host, probed, weights)


def _choose(host: Host, probed: Sequence[Probed], token_weights: Tensor) -> TapChoice:
    """Compare layers and heads by what was read."""
    depth, shape = len(host.blocks), host.family.heads(host.model.config)
    by_states = _by_states(probed, token_weights)
    by_head = torch.cat(
        [_reciprocal_ranks(each.attention, each.pointed_targets) for each in probed]
    )
    hidden_chance = _chance([each.topical_targets for each in probed])
    head_chance = _chance([each.pointed_targets for each in probed])
    states = by_states.mean(0).tolist()
    layer = _best(states, range(depth))
    measured = _beats(by_states[:, layer], hidden_chance)
    if not measured:
        layer = depth - 1 if host.family.bidirectional else depth // 4
    heads: list[int] = []
    together = 0.0
    # Heads of an encoder find what its features find too: with MiniLM they only lose recall.
    if not host.family.bidirectional:
        heads, together = _choose_heads(probed, by_head, head_chance, shape)
    best, numbers = by_head.mean(0).view(depth, shape.queries).max(1)
    return TapChoice(
        layer=layer,
        heads=tuple(_name(head, shape) for head in heads),
        curve=tuple(
            LayerScore(n, states[n], f"{n}.{int(numbers[n])}", float(best[n])) for n in range(depth)
        ),
        hidden_chance=hidden_chance,
        head_chance=head_chance,
        together=together,
        questions=len(by_states) + len(by_head),
        measured=measured,
    )


def _choose_heads(
    probed: Sequence[Probed], ranks: Tensor, chance: float, shape: Heads
) -> tuple[list[int], float]:
    """Choose one key head or two, with those of their query heads that are good.

    Args:
        probed: The contexts.
        ranks: Reciprocal ranks by each head alone [questions, layers * heads].
        chance: Their mean in random order.
        shape: The heads of a layer.

    Returns:
        Numbers of the query heads, counted through all layers, and their mean reciprocal rank
        together; nothing and 0 if none beats chance.
    """
    scores = ranks.mean(0).tolist()
    groups: dict[int, list[int]] = {}
    for head in sorted(range(len(scores)), key=lambda head: -scores[head]):
        group = groups.setdefault(head // shape.queries_per_key, [])
        if (
            _beats(ranks[:, head], chance)
            and scores[head] >= _AS_GOOD * scores[(group or [head])[0]]
        ):
            group.append(head)
    tried = [group for group in groups.values() if group][:_TRIED]
    if not tried:
        return [], 0.0
    layers = [group[0] // shape.queries for group in tried]
    together = [_together(probed, [group]) for group in tried]
    first = _best(together, layers)
    chosen, score = tried[first], together[first]
    together = [0.0 if group == chosen else _together(probed, [chosen, group]) for group in tried]
    second = _best(together, layers)
    if together[second] >= score + _WORTH_A_KEY_HEAD:
        return chosen + tried[second], together[second]
    return chosen, score


def _together(probed: Sequence[Probed], groups: Sequence[list[int]]) -> float:
    """The mean reciprocal rank by the query heads of some key heads, added as a search does."""
    ranks = []
    for each in probed:
        attention = torch.stack([each.attention[:, heads].mean(1) for heads in groups])
        ranks.append(_reciprocal_ranks(attention.sum(0)[:, None], each.pointed_targets))
    return float(torch.cat(ranks).mean())


def _by_states(probed: Sequence[Probed], token_weights: Tensor) -> Tensor:
    """Reciprocal ranks by the whitened mean states of each layer [questions, layers]."""
    columns = []
    for layer in range(len(probed[0].means)):
        means = torch.cat([each.means[layer] for each in probed])
        whitening = whitening_of(means[means.isfinite().all(1)], token_weights)

        def mapped(states: Tensor, whitening: SentenceMap = whitening) -> Tensor:
            return functional.normalize(states @ whitening.weights + whitening.bias, dim=1)

        ranks = [
            _reciprocal_ranks(
                (mapped(each.topical[layer]) @ mapped(each.means[layer]).T)[:, None],
                each.topical_targets,
            )
            for each in probed
        ]
        columns.append(torch.cat(ranks))
    return torch.cat(columns, dim=1)


def _reciprocal_ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """Rank the best target of each question; other sentences that score the same go before it.

    Args:
        scores: What each of m rankers scores the sentences [questions, m, n]; NaN is the lowest.
        targets: Which sentences are asked for, bool [questions, n].

    Returns:
        float32 [questions, m].
    """
    scores = scores.nan_to_num(-torch.inf)
    wanted = targets[:, None]
    best = scores.masked_fill(~wanted, -torch.inf).amax(-1, keepdim=True)
    return 1 / (1 + ((scores >= best) & ~wanted).sum(-1))


def _chance(targets: Sequence[Tensor]) -> float:
    """The mean reciprocal rank in random order; `targets` has bool [questions, n]."""
    expected = [
        sum(math.comb(n - rank, t - 1) / rank for rank in range(1, n - t + 2)) / math.comb(n, t)
        for each in targets
        for n, t in [(each.shape[1], max(int(row.sum()), 1)) for row in each]
    ]
    return sum(expected) / len(expected)


def _best(scores: Sequence[float], layers: Sequence[int]) -> int:
    """The place of the best score in the shallowest layer that has one about as good as any."""
    good = [n for n, score in enumerate(scores) if score >= max(scores) - _NO_BETTER]
    return min(good, key=lambda n: (layers[n], -scores[n]))


def _beats(ranks: Tensor, chance: float) -> bool:
    """Whether reciprocal ranks [questions] are better than chance for certain."""
    error = float(ranks.std()) / math.sqrt(len(ranks))
    return float(ranks.mean()) > chance + _ABOVE_CHANCE * error


def _name(head: int, shape: Heads) -> str:
    return "{}.{}".format(*divmod(head, shape.queries))
