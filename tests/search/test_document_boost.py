"""Sentences of documents that stand out, with the shipped host."""

from __future__ import annotations

from collections import defaultdict

import pytest
from pydantic import ValidationError

from s3_retriever import Document, DocumentRecipe, Recipe, S3Index, TapRecipe

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


def gaining(index, **part):
    """Documents gain, and nothing else depends on what else is in the result."""
    update = {"document": DocumentRecipe(**part), "coverage": None}
    return index.recipe.model_copy(update=update)


def without(index):
    return gaining(index).model_copy(update={"document": None})


def scores(index, **options):
    return {span.id: span.score for span in index.search(QUESTION, 50, **options)}


def by_document(found):
    best = defaultdict(lambda: float("-inf"))
    for place, score in found.items():
        name = place.split(":")[0]
        best[name] = max(best[name], score)
    return best


def expected(found, recipe):
    best = by_document(found)
    mark = sorted(best.values(), reverse=True)[recipe.best]
    return {
        place: score + recipe.weight * max(best[place.split(":")[0]] - mark, 0.0)
        for place, score in found.items()
    }


def test_what_else_a_document_says_gains_where_its_best_sentence_stands_out(index):
    def place(**options):
        return [span.text for span in index.search(QUESTION, 50, **options)].index(BESIDES)

    assert place(recipe=gaining(index)) < place(recipe=without(index))


@pytest.mark.parametrize("part", [{}, {"weight": 2.0}, {"best": 1}, {"best": 5}])
def test_all_sentences_of_the_best_documents_gain_what_these_exceed_the_next_one_by(index, part):
    recipe = gaining(index, **part)
    plain = scores(index, recipe=without(index))
    assert scores(index, recipe=recipe) == pytest.approx(expected(plain, recipe.document))


def test_an_index_of_few_documents_and_other_modes_are_as_without(index):
    few = gaining(index, best=len(TEXTS))
    assert scores(index, recipe=few) == scores(index, recipe=without(index))
    for mode in ("s3", "bm25"):
        plain = scores(index, mode=mode, recipe=without(index))
        assert scores(index, mode=mode, recipe=gaining(index)) == plain


def test_documents_that_may_not_be_returned_set_no_mark(index):
    kept = ["Aspirin", "Owl", "Glue", "Salt"]
    recipe = gaining(index)
    options = {"where": lambda metadata: metadata["title"] in kept}
    plain = scores(index, recipe=without(index), **options)
    assert set(by_document(plain)) <= set(kept)
    found = scores(index, recipe=recipe, **options)
    assert found == pytest.approx(expected(plain, recipe.document))
    two = {"where": lambda metadata: metadata["title"] in kept[:2]}
    assert scores(index, recipe=recipe, **two) == scores(index, recipe=without(index), **two)


def test_deleted_and_empty_documents_set_no_mark():
    with S3Index.create() as made:
        for name, text in TEXTS.items():
            made.add([Document(text, name), Document("", f"empty {name}")], progress=False)
        made.delete(["Salt"])
        recipe = gaining(made)
        plain = scores(made, recipe=without(made))
        assert scores(made, recipe=recipe) == pytest.approx(expected(plain, recipe.document))


def test_an_explanation_tells_what_the_document_adds(index):
    found = {span.text: span for span in index.search(QUESTION, 50)}
    explanation = index.explain(QUESTION, found[BESIDES])
    assert explanation.parts["document"] > 0
    assert sum(explanation.parts.values()) == pytest.approx(found[BESIDES].score)
    assert "document" not in found[BESIDES].sources


def test_a_union_adds_nothing():
    with pytest.raises(ValidationError, match="document needs fusion 'sum'"):
        Recipe(taps={"key.0": TapRecipe()}, fusion="union", document=DocumentRecipe())
