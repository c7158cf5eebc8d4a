"""`OnceEncoder`: an encoder that reads a text once, whatever recipes it is read with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from s3_retriever.codebook import CachingEncoder, Codebook, Encoder, TokenFeatures
from s3_retriever.codebook.encoder import QuestionFeatures
from s3_retriever.host import Host
from s3_retriever.recipe import QuerySide, Recipe, SentenceRecipe, TapRecipe
from s3_retriever.tap import Tap

_Features = dict[str, QuestionFeatures]

# Features of documents that are kept at most, in tokens times taps.
_CACHED_TOKENS = 2_000_000
# Questions that are kept at most.
_CACHED_QUESTIONS = 4_096


class OnceEncoder(CachingEncoder):
    """Reads all taps of the codebook at once, and gives each recipe what it asks for.

    A document is read with as many features as the SAEs have; as they come strongest first, the
    first `document_k` of them are what it has with less.
    """

    def __init__(self, host: Host, codebook: Codebook) -> None:
        super().__init__(host, codebook, _CACHED_TOKENS // len(codebook.saes))
        self._read: OrderedDict[tuple[str, QuerySide, int, str], _Features] = OrderedDict()

    def documents(
        self, texts: Iterable[tuple[str, str]], recipe: Recipe
    ) -> Iterator[TokenFeatures]:
        """As `Encoder.documents`."""
        k = max(sae.k for sae in self.codebook.saes.values())
        whole = with_all_taps(recipe, self.codebook, "same").model_copy(update={"document_k": k})
        for found in super().documents(texts, whole):
            strongest = {name: found.features[name][:, : recipe.document_k] for name in recipe.taps}
            yield replace(found, features=strongest)

    def question(self, text: str, recipe: Recipe) -> _Features:
        """As `Encoder.question`."""
        sides = {part.query_side for part in recipe.taps.values()}
        read = {side: self._question_from(side, text, recipe) for side in sides}
        found = {name: read[part.query_side][name] for name, part in recipe.taps.items()}
        if recipe.sentence:
            found[recipe.sentence.tap] = read[min(sides)][recipe.sentence.tap]
        return found

    def _question_from(self, side: QuerySide, text: str, recipe: Recipe) -> _Features:
        """Features of a question at all taps that can be read from a side."""
        whole = with_all_taps(recipe, self.codebook, side)
        key = (text, side, recipe.query_k, whole.tap_names[-1])
        if key not in self._read:
            self._read[key] = Encoder.question(self, text, whole)
            if len(self._read) > _CACHED_QUESTIONS:
                self._read.popitem(last=False)
        return self._read[key]


def with_all_taps(recipe: Recipe, codebook: Codebook, side: QuerySide) -> Recipe:
    """A recipe with all taps of a codebook that a question can be compared with from a side."""
    taps = [tap for tap in codebook.saes if side in query_sides(tap)]
    deepest = codebook.sentence_tap
    update = {
        "taps": {str(tap): TapRecipe(query_side=side) for tap in taps},
        "sentence": recipe.sentence or (SentenceRecipe(tap=str(deepest)) if deepest else None),
    }
    return recipe.model_copy(update=update)


def query_sides(tap: Tap) -> tuple[QuerySide, ...]:
    """What a question can be read from, to be compared with a tap."""
    return ("same", "query") if tap.site == "key" else ("same",)
