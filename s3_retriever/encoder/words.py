"""`WordsEncoder`: what stands in for an encoder where a host has no codebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from s3_retriever.codebook import Codebook
from s3_retriever.encoder import Encoder, TokenFeatures
from s3_retriever.features import EncodedQuestion, TapFeatures
from s3_retriever.host import Host
from s3_retriever.host.taps import Tap
from s3_retriever.recipe import Interleave, Recipe
from s3_retriever.sae import TopKSAE

_TAP = "hidden.0"
# M_BM25 U M_bias of S3-Attention, section 4; the paper does not state the size of the edges, and
# the recipe `paper` takes as many.
_RECIPE = Recipe(name="bm25", taps={}, fusion=Interleave(edge_tokens=32))


class WordsEncoder(Encoder):
    """Counts a host's tokens without running it: no feature ever fires.

    An index made with it ranks by BM25 and the edges alone.

    Args:
        host: The host; its tokenizer is used.
    """

    def __init__(self, host: Host) -> None:
        sae = TopKSAE(1, 1, 1)
        for weight in sae.parameters():
            torch.nn.init.zeros_(weight)  # always the same, as kept scans know it by its weights
        saes = {Tap.parse(_TAP): sae}
        super().__init__(host, Codebook(host.name, host.fingerprint(1), saes, _RECIPE))

    def documents(
        self, texts: Iterable[tuple[str, str]], recipe: Recipe
    ) -> Iterator[TokenFeatures]:
        """The tokens of a stream of (title, text), in order and in bounded memory."""
        for window in self.host.windows(texts):
            none = np.full((len(window.starts), 1), -1, dtype=np.int32)
            features = dict.fromkeys(recipe.taps, none)
            yield TokenFeatures(window.document, window.starts, features, window.last)

    def question(self, text: str, recipe: Recipe) -> EncodedQuestion:  # noqa: ARG002
        """No features."""
        none = TapFeatures(np.empty((0, 1), dtype=np.int64), np.empty((0, 1), dtype=np.float32))
        return EncodedQuestion(dict.fromkeys(recipe.taps, none))

    def named_recipe(self, recipe: str | Recipe) -> Recipe:
        """The recipe `bm25`, or fusion and edges of the caller's own without its taps."""
        if isinstance(recipe, str):
            return self.codebook.recipe
        return recipe.model_copy(update={"taps": {}, "sentence": None, "hop": None})
