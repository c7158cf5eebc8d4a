"""The best documents lift their sentences; with the shipped host."""

from __future__ import annotations

from collections import defaultdict

import pytest
from pydantic import ValidationError

from s3_retriever import (
    Advanced,
    Document,
    DocumentBoost,
    Interleave,
    Recipe,
    S3Index,
    TapRecipe,
)

TEXTS = {
    "Salt": "Road salt melts ice. It rusts cars. Towns buy it in autumn.",
    "Comet": "The comet was seen in 1811. Its tail was long. Many feared it.",
    "Aspirin": "Aspirin thins the blood. Bleeding was rare in the trial. Doses were low.",
    "Glue": "Fish glue holds wood. It smells badly. Makers of violins boil it.",
    "Owl": "An owl hears a mouse below the snow. Its ears differ in height. It hunts at night.",
    "Bat": "The vampire bat thins the blood that it drinks. It weighs little. Its teeth are sharp.",
    "Tea": "Green tea is steamed. Black tea is left to wither. Both come from one plant.",
}
QUESTION = "Does aspirin thin the blood?"
BESIDES = "Doses were low."


@pytest.fixture(scope="module")
def index():
    with S3Index.create() as made:
        texts = TEXTS.items()
        made.add((Document(text, name, {"title": name}) for name, text in texts), progress=False)
        yield made


def boosting(index, **settings):
    """Documents boost, and a score does not depend on what else is in the result."""
    return without(index).changed("advanced.document_boost", DocumentBoost(**settings))


def without(index):
    plain = index.recipe.changed("redundancy", None)
    return plain.changed("advanced.document_boost", None)


def scores(index, **options):
    return {span.id: span.score for span in index.search(QUESTION, 50, **options)}


def by_document(plain):
    best = defaultdict(lambda: float("-inf"))
    for place, score in plain.items():
        name = place.split(":")[0]
        best[name] = max(best[name], score)
    return best


def expected(plain, boost):
    best = by_document(plain)
    next_best = sorted(best.values(), reverse=True)[boost.best]
    return {
        place: score + boost.weight * max(best[place.split(":")[0]] - next_best, 0.0)
        for place, score in plain.items()
    }


def test_the_other_sentences_of_a_document_gain_when_its_best_one_stands_out(index):
    def place(**options):
        return [span.text for span in index.search(QUESTION, 50, **options)].index(BESIDES)

    assert place(recipe=boosting(index)) < place(recipe=without(index))


@pytest.mark.parametrize("settings", [{}, {"weight": 2.0}, {"best": 1}, {"best": 5}])
def test_all_sentences_of_the_best_documents_gain_their_margin(index, settings):
    recipe = boosting(index, **settings)
    plain = scores(index, recipe=without(index))
    assert scores(index, recipe=recipe) == pytest.approx(
        expected(plain, recipe.advanced.document_boost)
    )


def test_an_index_of_few_documents_and_other_modes_are_as_without(index):
    few = boosting(index, best=len(TEXTS))
    assert scores(index, recipe=few) == scores(index, recipe=without(index))
    for mode in ("s3", "bm25"):
        plain = scores(index, mode=mode, recipe=without(index))
        assert scores(index, mode=mode, recipe=boosting(index)) == plain


def test_documents_that_may_not_be_returned_do_not_count(index):
    kept = ["Aspirin", "Owl", "Glue", "Salt"]
    recipe = boosting(index)
    options = {"where": lambda metadata: metadata["title"] in kept}
    plain = scores(index, recipe=without(index), **options)
    assert set(by_document(plain)) <= set(kept)
    boosted = scores(index, recipe=recipe, **options)
    assert boosted == pytest.approx(expected(plain, recipe.advanced.document_boost))
    two = {"where": lambda metadata: metadata["title"] in kept[:2]}
    assert scores(index, recipe=recipe, **two) == scores(index, recipe=without(index), **two)


def test_deleted_and_empty_documents_do_not_count():
    with S3Index.create() as made:
        for name, text in TEXTS.items():
            made.add([Document(text, name), Document("", f"empty {name}")], progress=False)
        made.delete(["Salt"])
        recipe = boosting(made)
        plain = scores(made, recipe=without(made))
        assert scores(made, recipe=recipe) == pytest.approx(
            expected(plain, recipe.advanced.document_boost)
        )


def test_an_explanation_says_what_the_document_adds(index):
    span = {span.text: span for span in index.search(QUESTION, 50)}[BESIDES]
    explanation = index.explain(QUESTION, span)
    assert explanation.contributions["document"] > 0
    assert sum(explanation.contributions.values()) == pytest.approx(span.score)
    assert "document" not in span.sources


def test_a_document_boost_needs_z_scores():
    advanced = Advanced(document_boost=DocumentBoost())
    with pytest.raises(ValidationError, match=r"advanced\.document_boost needs fusion z_score"):
        Recipe(taps={"key.0": TapRecipe()}, fusion=Interleave(), advanced=advanced)
