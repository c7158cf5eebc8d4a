"""`Recipe`: its parts, which of them go together, and how it is written and read."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from s3_retriever import (
    Advanced,
    DocumentBoost,
    FeatureAttention,
    FeatureCoverage,
    Interleave,
    MaxToken,
    Recipe,
    Redundancy,
    SecondHop,
    SentenceRecipe,
    TapRecipe,
    ZScore,
)

TAPS = {"hidden.5": TapRecipe()}
# Every part differs from its default.
FULL = Recipe(
    name="full",
    taps={"hidden.5": TapRecipe(weight=2.0), "key.3": TapRecipe(query_side="query")},
    sentence=SentenceRecipe(layer=5, weight=0.25),
    scoring=FeatureCoverage(length_power=0.6),
    fusion=ZScore(bm25_weight=0.5, candidates=64),
    hop=SecondHop(bridges=2, neighbours=5),
    redundancy=Redundancy(decay=0.8),
    advanced=Advanced(doc_top_k=4, pooling="max", document_boost=DocumentBoost(best=3)),
)
INTERLEAVED = Recipe(taps=TAPS, scoring=MaxToken(kernel=4), fusion=Interleave(edge_tokens=32))


# Tagged parts


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("scoring", {"kind": "feature_coverage", "kernel": 8}),
        ("scoring", {"kind": "max_token", "length_power": 0.4}),
        ("fusion", {"kind": "z_score", "edge_tokens": 32}),
        ("fusion", {"kind": "interleave", "bm25_weight": 1.0}),
        ("fusion", {"kind": "interleave", "candidates": 256}),
    ],
)
def test_a_setting_of_another_kind_cannot_be_given(field, part):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Recipe.model_validate({"taps": {"hidden.5": {}}, field: part})


@pytest.mark.parametrize("field", ["scoring", "fusion"])
@pytest.mark.parametrize("part", [{}, {"kind": "cover"}, {"kind": "sum"}, "z_score"])
def test_a_part_needs_a_known_kind(field, part):
    with pytest.raises(ValidationError, match=field):
        Recipe.model_validate({"taps": {"hidden.5": {}}, field: part})


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        (
            {"fusion": Interleave(), "hop": SecondHop()},
            "hop needs fusion z_score, not interleave",
        ),
        (
            {
                "fusion": Interleave(),
                "scoring": FeatureCoverage(),
                "redundancy": Redundancy(),
            },
            "redundancy needs fusion z_score, not interleave",
        ),
        (
            {"fusion": Interleave(), "advanced": Advanced(document_boost=DocumentBoost())},
            r"advanced\.document_boost needs fusion z_score, not interleave",
        ),
        (
            {"scoring": MaxToken(), "redundancy": Redundancy()},
            "redundancy needs scoring feature_coverage, not max_token",
        ),
        (
            {"scoring": FeatureAttention(), "redundancy": Redundancy()},
            "redundancy needs scoring feature_coverage, not feature_attention",
        ),
        (
            {"scoring": FeatureAttention(), "hop": SecondHop()},
            "hop needs scoring feature_coverage or max_token, not feature_attention",
        ),
        (
            {"scoring": FeatureAttention()},
            r"scoring feature_attention needs query_side decoder, not same at hidden\.5",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_refused(parts, problem):
    with pytest.raises(ValidationError, match=problem):
        Recipe(taps=TAPS, **parts)


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        (TapRecipe, {"weight": 0.0}),
        (TapRecipe, {"query_side": "key"}),
        (SentenceRecipe, {"layer": -1}),
        (SentenceRecipe, {"layer": 5, "weight": 0.0}),
        (FeatureCoverage, {"length_power": -0.1}),
        (MaxToken, {"kernel": 0}),
        (ZScore, {"bm25_weight": -1.0}),
        (ZScore, {"candidates": 0}),
        (Interleave, {"edge_tokens": -1}),
        (SecondHop, {"bridges": 0}),
        (SecondHop, {"neighbours": 0}),
        (SecondHop, {"weight": -0.5}),
        (DocumentBoost, {"weight": 0.0}),
        (DocumentBoost, {"best": 0}),
        (Advanced, {"doc_top_k": 0}),
        (Advanced, {"query_top_k": 0}),
        (Advanced, {"pooling": "mean"}),
        (Advanced, {"radius": -1}),
    ],
)
def test_values_out_of_range_are_refused(part, settings):
    with pytest.raises(ValidationError, match=list(settings)[-1]):
        part(**settings)


@pytest.mark.parametrize("part", [FULL, FULL.hop, FULL.advanced])
def test_a_recipe_never_changes(part):
    with pytest.raises(ValidationError, match="frozen"):
        part.name = "other"


# Copies with another value


def test_a_copy_differs_in_the_field_alone():
    changed = FULL.changed("hop.weight", 0.25)
    assert changed.hop == SecondHop(bridges=2, neighbours=5, weight=0.25)
    assert changed.changed("hop.weight", FULL.hop.weight) == FULL
    boosted = FULL.changed("advanced.document_boost.weight", 2.0)
    assert boosted.advanced.document_boost == DocumentBoost(weight=2.0, best=3)
    assert FULL.advanced.document_boost == DocumentBoost(best=3)
    assert FULL.changed("taps", TAPS).taps == TAPS


@pytest.mark.parametrize(
    ("recipe", "field", "value", "problem"),
    [
        (FULL, "advanced.doc_top_k", 0, "doc_top_k"),
        (FULL, "hop.weight", "much", "weight"),
        (FULL, "scoring.kernel", 8, "Extra inputs"),
        (FULL, "hops", None, "Extra inputs"),
        (FULL, "scoring", MaxToken(), "redundancy needs scoring feature_coverage"),
        (FULL, "fusion", Interleave(), "hop needs fusion z_score"),
        (INTERLEAVED, "hop", SecondHop(), "hop needs fusion z_score"),
        (INTERLEAVED, "advanced.document_boost", DocumentBoost(), "document_boost needs fusion"),
    ],
)
def test_a_copy_is_checked_like_any_recipe(recipe, field, value, problem):
    with pytest.raises(ValidationError, match=problem):
        recipe.changed(field, value)


@pytest.mark.parametrize("field", ["hop.weight", "hops.weight", "advanced.document_boost.best"])
def test_a_field_of_a_part_that_is_not_there_cannot_be_changed(field):
    with pytest.raises(ValueError, match=f"'{field.rpartition('.')[0].rpartition('.')[2]}'"):
        INTERLEAVED.changed(field, 1.0)


# Files


@pytest.mark.parametrize("recipe", [FULL, INTERLEAVED, Recipe(taps={})])
def test_a_recipe_survives_json(recipe):
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe.model_validate(json.loads(json.dumps(recipe.model_dump()))) == recipe


def test_parts_are_written_with_their_kind():
    written = json.loads(INTERLEAVED.model_dump_json())
    assert written["scoring"] == {"kind": "max_token", "kernel": 4}
    assert written["fusion"] == {"kind": "interleave", "edge_tokens": 32}


@pytest.mark.parametrize(
    "setting",
    [
        {"scoring": "cover"},
        {"fusion": "union"},
        {"kernel": 8},
        {"document_k": 16},
        {"lexical_weight": 1.0},
        {"second_hop": None},
        {"coverage": None},
        {"document": None},
        {"edges": 32},
        {"taps": {"hidden.5": {}, "sentence.5": {"side": "same"}}},
    ],
)
def test_recipes_of_the_old_shape_are_refused(setting):
    with pytest.raises(ValidationError, match=next(iter(setting))):
        Recipe.model_validate({"taps": {"hidden.5": {}}} | setting)
