"""`Encoder`: text to features, through host, taps and SAEs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s3_retriever.codebook import Codebook
from s3_retriever.codebook.sentence_map import SentenceMap, weights_in_mean
from s3_retriever.document import Document
from s3_retriever.features import (
    EncodedChunk,
    EncodedQuestion,
    HeadQueries,
    Layout,
    TapFeatures,
)
from s3_retriever.host import Host, Window
from s3_retriever.host.batches import LOOKAHEAD_BATCHES, run_batches
from s3_retriever.host.device import Fetched
from s3_retriever.host.taps import (
    Activations,
    Head,
    SentencePooler,
    Tap,
    group_queries,
    mean_state,
    read_each,
    read_marked,
)
from s3_retriever.quantization import quantize, quantize_standard, random_axes
from s3_retriever.recipe import FeatureAttention, Recipe
from s3_retriever.sae import TopKEncoder
from s3_retriever.text import count_terms, language_of
from s3_retriever.types import check_type

# Most bytes of token states that wait for the ends of their sentences, beyond those of one batch.
_STATES_BYTES = 1 << 26
# Sentences that are quantized together, which takes less time than window by window.
_QUANTIZED_TOGETHER = 256
# Read before a question, as titles are before documents, and never kept.
QUESTION_TITLE = "Question:"
# A question below both sizes is short.
_SHORT_TOKENS = 6
_SHORT_CHARACTERS = 200
# Far more than attention logits have.
_LARGEST_FACTOR = 1e6


class SentenceEncoder:
    """Quantizes the mean states of sentences, and finds the direction of a question.

    The product of a quantized vector and a direction is the cosine of the sentence's mean state,
    mapped to what it would be alone, and the question's, both relative to the centre. A whitening
    maps both sides.

    Args:
        centre: Centre of the states, float32 [width], on the host's device.
        sentence_map: The map of mean states, on the CPU; None leaves them as they are.
    """

    def __init__(self, centre: Tensor, sentence_map: SentenceMap | None) -> None:
        axes = torch.from_numpy(random_axes(len(centre))).to(centre)
        # Map and rotation are one matrix product.
        self._weights, self._bias = self._question = axes, -centre @ axes
        if sentence_map is not None:
            self._weights = sentence_map.weights.to(centre) @ axes
            self._bias = sentence_map.bias.to(centre) @ axes
            if sentence_map.token_weights is not None:
                self._question = self._weights, self._bias

    @torch.inference_mode()
    def vectors(self, means: Tensor) -> NDArray[np.uint8]:
        """Quantize mean states [n, width] to vectors, uint8 [n, bytes]."""
        coordinates = torch.addmm(self._bias, means.to(self._bias), self._weights)
        # A sentence of attention sinks alone has no direction.
        return quantize(coordinates.nan_to_num(0.0).cpu().numpy())

    @torch.inference_mode()
    def direction(self, states: Tensor, weights: Tensor) -> NDArray[np.float32]:
        """Find the direction of the mean of a question's states [tokens, width].

        Args:
            states: The states.
            weights: Weight of each token in the mean [tokens], 0 for attention sinks.

        Returns:
            float32 [axes], of unit length; 0 for a question without tokens that count.
        """
        matrix, bias = self._question
        mean = mean_state(states.to(bias), weights.to(bias))
        coordinates = (mean @ matrix + bias).nan_to_num(0.0).cpu().numpy()
        direction: NDArray[np.float32] = coordinates / np.maximum(np.linalg.norm(coordinates), 1e-9)
        return direction


@dataclass(frozen=True, slots=True)
class _Scanned:
    """One window's share of what was computed for its batch.

    Attributes:
        rows: Rows of the window's kept tokens.
        indices: Tap name to feature indices of the batch's tokens, int32 [tokens, k].
        states: Hidden states of the batch's tokens [tokens, width], which wait on the CPU for the
            ends of their sentences; None if the recipe does not score sentences.
        sinks: Which of these tokens are attention sinks, bool [tokens]; None without states.
        keys: Key head to the coordinates of the batch's keys [tokens, axes]; NaN for attention
            sinks.
    """

    rows: slice
    indices: Mapping[str, Fetched]
    states: Fetched | None
    sinks: Fetched | None
    keys: Mapping[str, Fetched]

    def chunk(self, window: Window) -> EncodedChunk:
        """The window's tokens and sentences, still without sentence vectors."""
        document = window.document
        language = language_of(document.text, document.metadata)
        return EncodedChunk(
            document=document,
            starts=window.starts,
            sentences=window.sentences,
            terms=count_terms(document.title, document.text, window.sentences, language),
            features={
                name: indices.tensor()[self.rows].numpy() for name, indices in self.indices.items()
            },
            vectors=None,
            last=window.last,
            keys={
                head: _quantized_keys(keys.tensor()[self.rows].numpy())
                for head, keys in self.keys.items()
            },
            language=language,
        )


class Encoder:
    """A host and its codebook, ready to encode.

    The SAEs run on the host's device and in its dtype.

    Attributes:
        host: The host.
        codebook: The codebook.

    Raises:
        CodebookError: The codebook belongs to another host.
    """

    def __init__(self, host: Host, codebook: Codebook) -> None:
        check_type(codebook, Codebook, "codebook")
        codebook.check_host(host)
        self.host = host
        self.codebook = codebook
        self._saes = {str(tap): _on_host(sae.encoder(), host) for tap, sae in codebook.saes.items()}
        self._sentence_encoders: dict[int, SentenceEncoder] = {}

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the host's weights, up to the deepest tap."""
        return self.codebook.fingerprint

    @property
    def identity(self) -> str:
        """Identity of the codebook."""
        return self.codebook.identity

    def layout(self, recipe: Recipe) -> Layout:
        """What an index keeps of each token and sentence for a recipe."""
        return self.codebook.layout(recipe)

    def named_recipe(self, recipe: str | Recipe) -> Recipe:
        """A recipe by name, or the caller's own, checked against the codebook."""
        return self.codebook.named_recipe(recipe)

    def documents(
        self, documents: Iterable[Document | str] | Document | str, recipe: Recipe
    ) -> Iterator[EncodedChunk]:
        """Encode a stream of documents, in order and in bounded memory.

        With a recipe that has only BM25, the host does not run.

        Yields:
            The chunks of each document in turn, at least one; the last one says so.
        """
        check_type(recipe, Recipe, "recipe")
        taps = {name: Tap.parse(name) for name in recipe.taps}
        hidden = _sentence_states(recipe)
        heads = {h: Tap("key", h.layer, h.number) for h in self.codebook.query_heads(recipe)}
        sites = list({*taps.values(), *heads.values(), *([hidden] if hidden else [])})

        def run(batch: Sequence[Window]) -> list[_Scanned]:
            seen = read_marked(self.host, sites, batch) if sites else {}
            indices = {
                name: Fetched(self._indices(name, seen[tap], recipe.advanced.doc_top_k))
                for name, tap in taps.items()
            }
            states, sinks = map(Fetched, seen[hidden]) if hidden else (None, None)
            keys = {str(head): Fetched(self._keys(head, seen[tap])) for head, tap in heads.items()}
            return [_Scanned(rows, indices, states, sinks, keys) for rows in _rows(batch)]

        windows = self.host.windows(documents)
        lookahead = self._lookahead(hidden) if hidden else LOOKAHEAD_BATCHES
        stream = run_batches(windows, run, self.host.batch_tokens, lookahead)
        if hidden:
            yield from self._with_vectors(hidden.layer, stream)
        else:
            for window, scanned in stream:
                yield scanned.chunk(window)

    def question(self, text: str, recipe: Recipe) -> EncodedQuestion:
        """Encode a question of any length; a long one is read in windows.

        Unknown words and attention sinks have no features: to the host, all unknown words are the
        same word.
        """
        check_type(recipe, Recipe, "recipe")
        sides = {
            name: Tap.parse(name)
            if part.query_side == "same"
            else replace(Tap.parse(name), site="query")
            for name, part in recipe.taps.items()
        }
        hidden = _sentence_states(recipe)
        heads = self.codebook.query_heads(recipe)
        asked = {Tap("query", head.layer) for head in heads}
        sites = list({*sides.values(), *asked, *([hidden] if hidden else [])})
        if not sites:
            return EncodedQuestion({})
        windows = self.host.windows([self._behind_title(Document(text))])
        run = partial(read_each, self.host, sites)
        read_windows, parts = zip(*run_batches(windows, run, self.host.batch_tokens), strict=True)
        ids = np.concatenate([window.ids[window.keep] for window in read_windows])
        unknown = torch.from_numpy(ids == self.host.tokenizer.unknown_id)
        seen: dict[Tap, Activations] = {}
        for site in sites:
            values, sinks = map(torch.cat, zip(*(part[site] for part in parts), strict=True))
            # Unknown words are ignored just as sinks are.
            seen[site] = Activations(values, sinks | unknown.to(sinks.device))
        features: dict[str, TapFeatures] = {}
        tap_queries: dict[str, HeadQueries] = {}
        for name, side in sides.items():
            if isinstance(recipe.scoring, FeatureAttention):
                tap_queries[name] = self._tap_queries(name, seen[side])
            else:
                features[name] = self._features(name, recipe, seen[side])
        queries = {
            str(head): self._queries(head, group, seen[Tap("query", head.layer)])
            for head, group in heads.items()
        }
        if hidden is None:
            return EncodedQuestion(features, None, queries, tap_queries)
        states, ignored = seen[hidden]
        weights = weights_in_mean(ids, ignored.cpu(), self._token_weights(hidden.layer))
        encoder = self._sentence_encoder(hidden.layer)
        direction = encoder.direction(states, weights)
        return EncodedQuestion(features, direction, queries, tap_queries)

    @torch.inference_mode()
    def _keys(self, head: Head, seen: Activations) -> Tensor:
        """Coordinates of a head's keys, float32 [tokens, axes]; NaN for attention sinks."""
        key_head = self.codebook.key_heads[head]
        coordinates = key_head.coordinates(seen.values)
        return coordinates.masked_fill(seen.sinks[:, None], torch.nan)

    @torch.inference_mode()
    def _queries(self, key_head: Head, heads: Sequence[Head], seen: Activations) -> HeadQueries:
        """The queries of a question's tokens to a key head; sinks and unknown words ask nothing."""
        keys = self.codebook.key_heads[key_head]
        tokens = torch.nonzero(~seen.sinks)[:, 0]
        asked = torch.stack([head.of(seen.values[tokens], keys.size) for head in heads], dim=1)
        factors = keys.queries(asked.flatten(0, 1))
        return HeadQueries(factors.cpu().numpy(), tokens.cpu().numpy().repeat(len(heads)))

    @torch.inference_mode()
    def _tap_queries(self, name: str, seen: Activations) -> HeadQueries:
        """The queries of a question's tokens to the features of a key tap.

        Every query head looks by itself, at what the features are in its own key head.
        """
        shape = self.host.family.heads(self.host.model.config)
        sae = self.codebook.sae(name)
        directions = sae.mean_contributions.to(seen.values.device)
        directions = directions.view(sae.features, -1, shape.size)
        tokens = torch.nonzero(~seen.sinks)[:, 0]
        asked = seen.values[tokens].float()
        # Without sizes that are to be found: there may be no tokens.
        asked = asked.view(-1, directions.shape[1], shape.queries_per_key, shape.size)
        factors = torch.einsum("nkqs,fks->nkqf", asked, directions / shape.size**0.5)
        # Whatever a codebook says, sums of these have to stay finite.
        factors = factors.nan_to_num(0.0).clamp_(-_LARGEST_FACTOR, _LARGEST_FACTOR)
        heads = asked.shape[1] * asked.shape[2]
        return HeadQueries(factors.flatten(0, 2).cpu().numpy(), tokens.cpu().numpy().repeat(heads))

    def _behind_title(self, question: Document) -> Document:
        """Put a title before a short question if its first word would be an attention sink.

        A decoder makes a sink of a window's first token. If its tokenizer puts none before a text,
        a question of one word would be lost. A long question only loses its "what" or "who".
        """
        text, tokenizer = question.text, self.host.tokenizer
        short = (
            first_word_is_sink(self.host)
            and len(text) < _SHORT_CHARACTERS
            and tokenizer.count(text) < _SHORT_TOKENS
        )
        return replace(question, metadata={"title": QUESTION_TITLE}) if short else question

    def _with_vectors(
        self, layer: int, stream: Iterable[tuple[Window, _Scanned]]
    ) -> Iterator[EncodedChunk]:
        """Yield the chunks of scanned windows with the vectors of their sentences."""
        pooler = SentencePooler()
        waiting: list[tuple[EncodedChunk, Tensor]] = []
        size = 0
        for window, scanned in stream:
            assert scanned.states is not None and scanned.sinks is not None
            states = scanned.states.tensor()[scanned.rows]
            sinks = scanned.sinks.tensor()[scanned.rows]
            ids = window.ids[window.keep]
            weights = weights_in_mean(ids, sinks, self._token_weights(layer))
            means = pooler.push(states, window.sentences, weights)
            waiting.append((scanned.chunk(window), means))
            # A window in which no sentence ends counts too: any number of them may follow.
            size += max(len(means), 1)
            if size >= _QUANTIZED_TOGETHER:
                yield from self._quantized(layer, waiting)
                waiting, size = [], 0
        yield from self._quantized(layer, waiting)

    def _quantized(
        self, layer: int, waiting: Sequence[tuple[EncodedChunk, Tensor]]
    ) -> Iterator[EncodedChunk]:
        """Yield chunks with sentence vectors made from the given means [m, width]."""
        if not waiting:
            return
        means = torch.cat([means for _, means in waiting])
        vectors = self._sentence_encoder(layer).vectors(means)
        bounds = pairwise(accumulate((len(means) for _, means in waiting), initial=0))
        for (chunk, _), (first, end) in zip(waiting, bounds, strict=True):
            yield replace(chunk, vectors=vectors[first:end])

    def _lookahead(self, hidden: Tap) -> int:
        """How many batches to sort at once: the hidden states of all of them have to be held."""
        width = len(self.codebook.centre(hidden.layer))
        batch_bytes = self.host.batch_tokens * width * self.host.model.dtype.itemsize
        return max(min(LOOKAHEAD_BATCHES, _STATES_BYTES // batch_bytes), 1)

    def _token_weights(self, layer: int) -> Tensor | None:
        sentence_map = self.codebook.sentence_maps.get(layer)
        return None if sentence_map is None else sentence_map.token_weights

    def _sentence_encoder(self, layer: int) -> SentenceEncoder:
        if layer not in self._sentence_encoders:
            self._sentence_encoders[layer] = SentenceEncoder(
                self.codebook.centre(layer).to(self.host.device, torch.float32),
                self.codebook.sentence_maps.get(layer),
            )
        return self._sentence_encoders[layer]

    @torch.inference_mode()
    def _indices(self, name: str, seen: Activations, k: int) -> Tensor:
        """Find the features of documents' tokens, int32 [tokens, k]; attention sinks have none."""
        sae = self._saes[name]
        _, indices = sae.encode(seen.values, min(k, sae.k))
        return indices.to(torch.int32).masked_fill(seen.sinks[:, None], -1)

    @torch.inference_mode()
    def _features(self, name: str, recipe: Recipe, seen: Activations) -> TapFeatures:
        """Features of a question at a tap, read on the recipe's query side; sinks have none."""
        side, k = recipe.taps[name].query_side, recipe.advanced.query_top_k
        x = seen.values if side == "same" else group_queries(seen.values, self.host)
        if side == "decoder":
            # The SAE's bias adds the same to every key's logit.
            products = x.float() @ self.codebook.sae(name).W_dec.detach().to(x.device).T
            values, indices = products.topk(min(k, products.shape[1]), dim=1)
            indices = indices.masked_fill(values <= 0, -1)
            values = values.clamp_min(0.0)
        else:
            values, indices = self._saes[name].encode(x, k)
        sinks = seen.sinks[:, None]
        return TapFeatures(
            indices=indices.masked_fill(sinks, -1).cpu().numpy(),
            values=values.masked_fill(sinks, 0.0).cpu().numpy(),
        )


@torch.no_grad()
def _on_host(encoder: TopKEncoder, host: Host) -> TopKEncoder:
    """Move an encoder to the host's device and dtype.

    Its bias was computed in float32: in bfloat16 the mean would drown small values.
    """
    weights, bias = (
        part.detach().to(host.device, host.model.dtype) for part in (encoder.weights, encoder.bias)
    )
    threshold = None if encoder.threshold is None else encoder.threshold.to(host.device)
    return TopKEncoder(weights, bias, encoder.k, threshold)


def first_word_is_sink(host: Host) -> bool:
    """Whether a host makes an attention sink of a text's first word.

    A decoder does so with the first token of a window, unless its tokenizer puts one before.
    """
    return not host.family.bidirectional and not host.tokenizer.prefix


def _quantized_keys(coordinates: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Quantize keys [tokens, axes]; those of attention sinks, which are NaN, become 0.

    No other key has the lowest value in all of its coordinates.
    """
    sinks = np.isnan(coordinates).any(axis=1)
    keys = quantize_standard(np.nan_to_num(coordinates))
    keys[sinks] = 0
    return keys


def _rows(batch: Sequence[Window]) -> Iterator[slice]:
    """Find the rows of each window's kept tokens, windows one after another."""
    sizes = (len(window.starts) for window in batch)
    return (slice(start, stop) for start, stop in pairwise(accumulate(sizes, initial=0)))


def _sentence_states(recipe: Recipe) -> Tap | None:
    """The tap that sentence vectors average; None if the recipe does not score sentences."""
    layer = recipe.sentence_layer
    return None if layer is None else Tap("hidden", layer)
