"""`Encoder`: text to features, through host, taps and SAEs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s3_retriever.codebook.codebook import Codebook
from s3_retriever.codebook.sentence_map import StandaloneMap
from s3_retriever.features import EncodedQuestion, TapFeatures
from s3_retriever.host import Host, Window
from s3_retriever.host.batches import LOOKAHEAD_BATCHES, run_batches
from s3_retriever.host.device import Fetched
from s3_retriever.host.pooling import StreamPooler
from s3_retriever.host.taps import Tap, group_queries, read
from s3_retriever.quantization import encode, random_axes
from s3_retriever.recipe import Recipe
from s3_retriever.sae import TopKEncoder


class SentenceEncoder:
    """Turns the mean states of sentences into codes, and that of a question into a direction.

    What codes score with the direction is the cosine of the sentence's mean, mapped to what it
    would be alone, and the question's, both taken from the centre.

    Args:
        centre: What states lie around [width], float32, on the host's device.
        standalone: The map of sentences, on the CPU; None leaves them as they are.
    """

    def __init__(self, centre: Tensor, standalone: StandaloneMap | None) -> None:
        self._centre = centre
        self._axes = torch.from_numpy(random_axes(len(centre))).to(centre.device)
        # Mapping and turning are one product.
        self._weights, self._bias = self._axes, -centre @ self._axes
        if standalone is not None:
            self._weights = standalone.weights.to(centre) @ self._axes
            self._bias = standalone.bias.to(centre) @ self._axes

    @torch.inference_mode()
    def codes(self, means: Tensor) -> NDArray[np.uint8]:
        """Codes [n, bytes] of means [n, width]."""
        turned = torch.addmm(self._bias, means.to(self._centre), self._weights)
        return encode(turned.cpu().numpy())

    @torch.inference_mode()
    def direction(self, states: Tensor) -> NDArray[np.float32]:
        """Where a question with these states [tokens, width] points, along the axes of codes.

        Returns:
            float32 [axes], of length 1; 0 for a question without tokens.
        """
        mean = states.to(self._centre).mean(0) if len(states) else self._centre
        turned = ((mean - self._centre) @ self._axes).cpu().numpy()
        direction: NDArray[np.float32] = turned / np.maximum(np.linalg.norm(turned), 1e-9)
        return direction


Features = Mapping[str, NDArray[np.int32]]

# Token states that wait for their sentences' ends at most, beyond those of one batch.
_STATES_BYTES = 1 << 26
# Sentences that are encoded together, which takes less time than window by window.
_CODES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class TokenFeatures:
    """Features of consecutive tokens of one document.

    Attributes:
        document: Ordinal of the document in its stream.
        starts: Character start of each token in the document, int64 [n].
        features: Tap name to feature indices, int32 [n, k]; -1 where fewer than k fire.
        codes: Of the sentences that are complete with these tokens, by the name of their tap,
            uint8 [m, bytes].
        last: Whether the document ends here.
    """

    document: int
    starts: NDArray[np.int64]
    features: Features
    last: bool
    codes: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Scanned:
    """Which rows of a batch are a window's: of features by tap name, and of token states.

    States wait for their sentence's end where there is room for them, on the CPU.
    """

    rows: slice
    encoded: Mapping[str, Fetched]
    seen: Fetched | None

    @property
    def features(self) -> Features:
        return {name: found.tensor()[self.rows].numpy() for name, found in self.encoded.items()}

    @property
    def states(self) -> Tensor:
        assert self.seen is not None
        return self.seen.tensor()[self.rows]


@dataclass(slots=True)
class _Read:
    """What was read of a window of a question: by tap values and indices, and token states."""

    features: dict[str, tuple[Tensor, Tensor]]
    states: Tensor | None


class Encoder:
    """A host and its codebook, ready to encode.

    The SAEs run on the host's device and in its dtype.

    Raises:
        CodebookError: The codebook belongs to another host.
    """

    def __init__(self, host: Host, codebook: Codebook) -> None:
        codebook.check_host(host)
        self.host = host
        self.codebook = codebook
        self._saes = {str(tap): _on_host(sae.encoder(), host) for tap, sae in codebook.saes.items()}
        self._sentences: dict[str, SentenceEncoder] = {}

    @property
    def fingerprint(self) -> str:
        """Of the host's weights, as far down as the taps need them."""
        return self.codebook.fingerprint

    @property
    def identity(self) -> str:
        """Of the codebook."""
        return self.codebook.identity

    def feature_sizes(self, recipe: Recipe) -> dict[str, int]:
        """Sizes of the dictionaries of a recipe's taps."""
        return self.codebook.feature_sizes(recipe)

    def vector_bytes(self, recipe: Recipe) -> dict[str, int]:
        """Bytes of a sentence vector."""
        return self.codebook.code_sizes(recipe)

    def named_recipe(self, recipe: str | Recipe) -> Recipe:
        """A recipe by name, or the caller's own, checked against the codebook."""
        return self.codebook.named_recipe(recipe)

    def documents(
        self, texts: Iterable[tuple[str, str]], recipe: Recipe
    ) -> Iterator[TokenFeatures]:
        """Scan a stream of (title, text), in order and in bounded memory.

        Every document gives at least one item, the last of which says so.
        """
        taps = {name: Tap.parse(name) for name in recipe.taps}
        sentence = _sentence_tap(recipe)
        sites = list({*taps.values(), *([sentence.tokens] if sentence else [])})

        def run(batch: Sequence[Window]) -> list[_Scanned]:
            seen = read(self.host, sites, batch)
            encoded = {
                name: Fetched(self._indices(name, seen[tap], recipe.advanced.doc_top_k))
                for name, tap in taps.items()
            }
            states = Fetched(seen[sentence.tokens]) if sentence else None
            return [_Scanned(rows, encoded, states) for rows in _rows(batch)]

        batch_tokens = self.host.batch_tokens
        if sentence is None:
            stream = run_batches(self.host.windows(texts), run, batch_tokens)
            for window, scanned in stream:
                yield TokenFeatures(window.document, window.starts, scanned.features, window.last)
            return
        pooler = StreamPooler()
        windows = self.host.windows(pooler.remember(texts))
        read_ones: list[tuple[TokenFeatures, Tensor]] = []
        waiting = 0
        for window, scanned in run_batches(windows, run, batch_tokens, self._lookahead(sentence)):
            found = TokenFeatures(window.document, window.starts, scanned.features, window.last)
            means = pooler.push(window, scanned.states)
            read_ones.append((found, means))
            # A window in which no sentence ends counts as well: there may be any number of them.
            waiting += max(len(means), 1)
            if waiting >= _CODES_AT_ONCE:
                yield from self._with_codes(str(sentence), read_ones)
                read_ones, waiting = [], 0
        yield from self._with_codes(str(sentence), read_ones)

    def _with_codes(
        self, name: str, read_ones: Sequence[tuple[TokenFeatures, Tensor]]
    ) -> Iterator[TokenFeatures]:
        """Add the codes of the sentences whose means [n, width] stand beside them."""
        if not read_ones:
            return
        sizes = [len(means) for _, means in read_ones]
        codes = self._sentence_encoder(name).codes(torch.cat([means for _, means in read_ones]))
        for (found, _), (first, end) in zip(
            read_ones, pairwise(accumulate(sizes, initial=0)), strict=True
        ):
            yield replace(found, codes={name: codes[first:end]})

    def question(self, text: str, recipe: Recipe) -> EncodedQuestion:
        """Features of a question, by tap name. A question of any length is read in windows.

        Of a tap of sentences they are a single row: all axes of its codes, and where the
        question's mean state points along them.
        """
        sides = {
            name: Tap("query", Tap.parse(name).layer)
            if part.query_side == "query"
            else Tap.parse(name)
            for name, part in recipe.taps.items()
        }
        sentence = _sentence_tap(recipe)
        sites = {*sides.values(), *([sentence.tokens] if sentence else [])}

        def run(batch: Sequence[Window]) -> list[_Read]:
            seen = read(self.host, list(sites), batch)
            sizes = [window.keep.stop - window.keep.start for window in batch]
            parts = [_Read({}, None) for _ in batch]
            for name, side in sides.items():
                x = group_queries(seen[side], self.host) if side.site == "query" else seen[side]
                values, indices = self._saes[name].encode(x, recipe.advanced.query_top_k)
                rows = zip(torch.split(values, sizes), torch.split(indices, sizes), strict=True)
                for part, found in zip(parts, rows, strict=True):
                    part.features[name] = found
            if sentence:
                for part, states in zip(
                    parts, torch.split(seen[sentence.tokens], sizes), strict=True
                ):
                    part.states = states
            return parts

        windows = self.host.windows([("", text)])
        parts = [part for _, part in run_batches(windows, run, self.host.batch_tokens)]
        features = {
            name: _question_features([part.features[name] for part in parts]) for name in sides
        }
        if sentence is None:
            return EncodedQuestion(features)
        states = torch.cat([part.states for part in parts if part.states is not None])
        return EncodedQuestion(features, self._sentence_encoder(str(sentence)).direction(states))

    def _lookahead(self, sentence: Tap) -> int:
        """Batches that are sorted at once: the states of all of them wait to be put in order."""
        width = self.codebook.states_of(str(sentence)).width
        batch_bytes = self.host.batch_tokens * width * self.host.model.dtype.itemsize
        return max(min(LOOKAHEAD_BATCHES, _STATES_BYTES // batch_bytes), 1)

    def _sentence_encoder(self, name: str) -> SentenceEncoder:
        """The encoder of a tap of sentences; states lie around what their SAE subtracts first."""
        if name not in self._sentences:
            centre = self.codebook.states_of(name).b_dec.detach()
            self._sentences[name] = SentenceEncoder(
                centre.to(self.host.device, torch.float32),
                self.codebook.standalone.get(Tap.parse(name)),
            )
        return self._sentences[name]

    @torch.inference_mode()
    def _indices(self, name: str, x: Tensor, k: int) -> Tensor:
        sae = self._saes[name]
        _, indices = sae.encode(x, min(k, sae.k))
        return indices.to(torch.int32)


@torch.no_grad()
def _on_host(encoder: TopKEncoder, host: Host) -> TopKEncoder:
    """The encoder on the host's device and in its dtype.

    Its bias was computed in float32: in bfloat16 the mean would drown small values.
    """
    weights, bias = (
        part.detach().to(host.device, host.model.dtype) for part in (encoder.weights, encoder.bias)
    )
    return TopKEncoder(weights, bias, encoder.k)


def _rows(batch: Sequence[Window]) -> Iterator[slice]:
    """The rows of each window's kept tokens, windows one after another."""
    sizes = (window.keep.stop - window.keep.start for window in batch)
    return (slice(start, stop) for start, stop in pairwise(accumulate(sizes, initial=0)))


def _sentence_tap(recipe: Recipe) -> Tap | None:
    return Tap("sentence", recipe.sentence.layer) if recipe.sentence else None


def _question_features(parts: list[tuple[Tensor, Tensor]]) -> TapFeatures:
    values, indices = zip(*parts, strict=True)
    return TapFeatures(
        indices=torch.cat(indices).cpu().numpy(), values=torch.cat(values).cpu().numpy()
    )
