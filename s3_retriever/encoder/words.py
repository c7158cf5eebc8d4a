"""`WordsEncoder`: the encoder of a host that has no codebook."""

from __future__ import annotations

from s3_retriever.codebook import Codebook
from s3_retriever.encoder.encoder import Encoder
from s3_retriever.host import Host
from s3_retriever.recipe import Interleave, Recipe

# M_BM25 U M_bias of S3-Attention, section 4. The paper does not give the size of the edges; the
# recipe `paper` takes as many.
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
            recipe: Any name, for BM25 and the edges interleaved, or a recipe of the caller's own,
                of which only what needs no features is kept.
        """
        if isinstance(recipe, str):
            return self.codebook.recipe
        return recipe.model_copy(
            update={"taps": {}, "sentence": None, "hop": None, "redundancy": None}
        )
