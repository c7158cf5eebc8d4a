"""`WordsEncoder`: the encoder for a host without a codebook."""

from __future__ import annotations

from s3_retriever.codebook import Codebook
from s3_retriever.encoder.encoder import Encoder
from s3_retriever.host import Host
from s3_retriever.recipe import Interleave, Recipe
from s3_retriever.types import check_type

# M_BM25 U M_bias of S3-Attention, section 4, with edges as large as in the recipe `paper`.
_RECIPE = Recipe(name="bm25", taps={}, fusion=Interleave(edge_tokens=32))


class WordsEncoder(Encoder):
    """Cuts documents with a host's tokenizer and never runs the host: there are no features.

    An index made with it ranks by BM25 and the edges alone. Its codebook has no taps.

    Args:
        host: The host.
    """

    def __init__(self, host: Host) -> None:
        super().__init__(host, Codebook(host.name, host.fingerprint(1), {}, _RECIPE))

    def named_recipe(self, recipe: str | Recipe) -> Recipe:
        """Choose a recipe.

        Args:
            recipe: Any name, for BM25 and the edges interleaved, or the caller's own recipe, whose
                parts that need features are dropped.
        """
        if isinstance(recipe, str):
            return self.codebook.recipe
        check_type(recipe, Recipe, "recipe")
        return recipe.model_copy(
            update={"taps": {}, "sentence": None, "heads": None, "hop": None, "redundancy": None}
        )
