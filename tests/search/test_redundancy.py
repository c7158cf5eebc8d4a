"""What chosen spans have of the question counts less in those that follow; the shipped host."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from s3_retriever import (
    Document,
    FeatureCoverage,
    Interleave,
    Recipe,
    Redundancy,
    S3Index,
    TapRecipe,
)
from s3_retriever.search import admitted, rank
from s3_retriever.search.signals import count_terms, term_gains

QUESTION = "Which glue do violin makers boil, and in which year was the comet seen?"
GLUE = "The glue that violin makers boil, which they make of {}, smells."
COMET = "They had seen the comet from every house that year."
ANIMALS = ("fish", "hides", "hooves", "rabbit skin", "sturgeon", "bones", "horns", "cod")
OTHER = [
    f"{who} {what} in {where}."
    for who in ("The miller", "A nurse", "Our neighbour", "Her uncle", "The old judge")
    for what in ("slept late", "boiled an egg", "bought a violin", "saw the sea")
    for where in ("May", "a strange year", "the harbour", "Vienna", "the first days of spring")
]


@pytest.fixture(scope="module")
def index():
    """Many sentences that repeat one half of the question, one that has the other; two segments."""
    with S3Index.create() as made:
        glue = [Document(GLUE.format(animal), animal) for animal in ANIMALS]
        made.add([*glue, Document(COMET, "comet"), Document(COMET, "gone")], progress=False)
        others = (Document(" ".join(OTHER[i : i + 5]), f"other {i}") for i in range(0, 100, 5))
        made.add(others, progress=False)
        made.delete("gone")
        yield made


def with_redundancy(index, **settings):
    return index.recipe.changed("redundancy", Redundancy(**settings))


def without(index):
    return index.recipe.changed("redundancy", None)


def scores(spans):
    return [(span.id, span.score) for span in spans]


def test_the_other_half_of_a_question_comes_sooner(index):
    def place(recipe):
        return [span.document_id for span in index.search(QUESTION, 50, recipe=recipe)].index(
            "comet"
        )

    assert place(index.recipe) < place(without(index))


def shares_of_all(index, ranking):
    """What each feature and term adds to every sentence, one sentence at a time."""
    recipe, coactivation = index.recipe, ranking.coactivation
    rows = []
    for number in range(len(ranking.snapshot)):
        _, segment, ordinal = ranking.snapshot.locate(number)
        row = []
        for tap, part in coactivation.question.items():
            has, _ = segment.sentence_features(tap, ordinal)
            row.extend(np.isin(part.features, has) * coactivation.weights[tap])
        length = segment.sentences[ordinal]["n_tokens"] ** recipe.scoring.length_power
        rows.append(np.array(row) / length)
    matrices = {"s3": np.array(rows)}
    if "bm25" in ranking.raw_scores:
        gains = term_gains(ranking.snapshot, count_terms(QUESTION))
        matrices["bm25"] = np.zeros((len(rows), len(gains.terms)))
        np.add.at(matrices["bm25"], (gains.numbers, gains.which), gains.gains)
    for source, matrix in matrices.items():
        raw, contribution = matrix.sum(axis=1), ranking.contributions[source]
        np.testing.assert_allclose(raw, ranking.raw_scores[source])
        above = contribution - contribution[ranking.eligible].min()
        matrix *= np.divide(above, raw, out=np.zeros_like(above), where=raw > 0)[:, None]
    return np.hstack(list(matrices.values()))


def chosen_one_by_one(index, ranking, redundancy):
    """All sentences in the order of what is left of their scores, looked at again every time."""
    shares = shares_of_all(index, ranking)
    left = np.ones(shares.shape[1])
    rest, said, chosen = set(np.flatnonzero(ranking.eligible).tolist()), set(), []
    while rest:
        now = {number: ranking.scores[number] - shares[number] @ (1 - left) for number in rest}
        best = max(sorted(rest), key=lambda number: round(now[number], 9))
        rest.remove(best)
        _, segment, ordinal = ranking.snapshot.locate(best)
        text = segment.text(ordinal, ordinal)
        if text.strip() in said:
            continue
        said.add(text.strip())
        chosen.append((text, now[best]))
        has = shares[best] > 0
        left[has] = np.maximum(left[has] * redundancy.decay, redundancy.floor)
    return chosen


@pytest.mark.parametrize("mode", ["s3", "hybrid"])
@pytest.mark.parametrize(("decay", "floor"), [(0.9, 0.7), (0.5, 0.1), (0.0, 0.0)])
def test_spans_come_by_what_is_left_of_their_scores(index, mode, decay, floor):
    recipe = with_redundancy(index, decay=decay, floor=floor)
    snapshot = index._store.snapshot()
    allowed = admitted(snapshot, None)
    ranking = rank(snapshot, QUESTION, recipe, index.encoder, mode, allowed)
    expected = chosen_one_by_one(index, ranking, recipe.redundancy)
    assert len(expected) > 64
    spans = index.search(QUESTION, 1_000, mode=mode, recipe=recipe)
    assert [span.score for span in spans] == pytest.approx([score for _, score in expected])
    assert [span.text for span in spans] == [text.strip() for text, _ in expected]
    falling = [span.score for span in spans]
    assert falling == sorted(falling, reverse=True)
    for limits in ({"k": 7}, {"token_budget": sum(span.tokens for span in spans[:7])}):
        assert scores(index.search(QUESTION, mode=mode, recipe=recipe, **limits))[:7] == scores(
            spans[:7]
        )


def test_spans_that_do_not_fit_or_repeat_a_sentence_make_nothing_redundant(index):
    recipe = with_redundancy(index, decay=0.5, floor=0.1)
    long = " ".join([QUESTION] * 30).replace(".", "").replace("?", "")
    with S3Index.create() as made:
        made.add([Document(COMET, "comet"), Document(GLUE.format("fish"), "fish")], progress=False)
        plain = scores(made.search(QUESTION, token_budget=60, recipe=recipe))
        assert len(plain) == 2
    with S3Index.create() as made:
        texts = {"long": long, "comet": COMET, "copy": COMET, "fish": GLUE.format("fish")}
        made.add((Document(text, name) for name, text in texts.items()), progress=False)
        spans = made.search(QUESTION, token_budget=60, recipe=recipe)
        whole = made.search(QUESTION, 9, recipe=without(made))
        assert "long" in {span.document_id for span in whole}
        assert [span.document_id for span in spans] in (["comet", "fish"], ["fish", "comet"])
        own = {span.document_id: span.score for span in whole}
        # The first has lost nothing, the second only what it shares with the first.
        assert spans[0].score == own[spans[0].document_id]


def test_nothing_decays_with_a_floor_or_a_decay_of_one_and_in_mode_bm25(index):
    for mode in ("hybrid", "s3", "bm25"):
        plain = index.search(QUESTION, 200, mode=mode, recipe=without(index))
        for settings in ({"decay": 1.0}, {"floor": 1.0}):
            recipe = with_redundancy(index, **settings)
            assert scores(index.search(QUESTION, 200, mode=mode, recipe=recipe)) == scores(plain)
        if mode == "bm25":
            assert scores(index.search(QUESTION, 200, mode=mode)) == scores(plain)


def test_an_explanation_says_what_a_span_lost(index):
    spans = index.search(QUESTION, 40)
    lost = []
    for span in spans:
        contributions = index.explain(QUESTION, span).contributions
        assert sum(contributions.values()) == pytest.approx(span.score)
        lost.append(contributions["redundancy"])
    assert lost[0] == 0 > min(lost[1:])
    assert max(lost) == 0
    off = index.explain(QUESTION, spans[1], recipe=without(index))
    assert "redundancy" not in off.contributions


def test_a_copy_of_a_chosen_span_is_explained_as_having_lost_nothing(index):
    with S3Index.create() as made:
        made.add([Document(COMET, "one"), Document(COMET, "two")], progress=False)
        made.add([Document(text, f"o {i}") for i, text in enumerate(OTHER)], progress=False)
        spans = made.search(QUESTION, 2, unique=False)
        assert {span.document_id for span in spans} == {"one", "two"}
        assert made.explain(QUESTION, spans[1]).contributions["redundancy"] == 0


def test_wide_spans_make_redundant_what_their_peak_has(index):
    recipe = with_redundancy(index, decay=0.5, floor=0.2).changed("advanced.radius", 20)
    spans = index.search(QUESTION, 30, recipe=recipe)
    places = [(span.document_id, span.start, span.end) for span in spans]
    assert len(set(places)) == len(places)
    assert [span.score for span in spans] == sorted((s.score for s in spans), reverse=True)
    for span in spans[:5]:
        explanation = index.explain(QUESTION, span, recipe=recipe)
        assert sum(explanation.contributions.values()) == pytest.approx(span.score)


def test_redundancy_needs_z_scores_and_feature_coverage():
    taps = {"hidden.5": TapRecipe()}
    with pytest.raises(ValidationError, match="redundancy needs fusion z_score"):
        Recipe(taps=taps, fusion=Interleave(), scoring=FeatureCoverage(), redundancy=Redundancy())
    with pytest.raises(ValidationError, match="redundancy needs scoring feature_coverage"):
        Recipe(taps=taps, redundancy=Redundancy())
    for settings in ({"decay": 1.1}, {"floor": -0.1}):
        with pytest.raises(ValidationError):
            Redundancy(**settings)
