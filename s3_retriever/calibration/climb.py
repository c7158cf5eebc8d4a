"""Coordinate search: one setting after the other, until none makes the recipe better."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from s3_retriever.calibration.exam import Asked, Exam
from s3_retriever.calibration.gain import Gain
from s3_retriever.calibration.grid import Setting
from s3_retriever.recipe import Recipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """One value of one setting.

    Attributes:
        setting: What was varied.
        value: Its value.
        recall: Evidence recall with it.
        gain: Over the recipe as it was at that point.
        kept: Whether the recipe has it from then on.
    """

    setting: str
    value: str
    recall: float
    gain: Gain
    kept: bool


class Climb:
    """A coordinate search under way.

    Args:
        exam: Measures recipes.
        asked: The questions that decide.
        start: The recipe to set out from.

    Attributes:
        recipe: The best recipe so far.
        trials: All that was tried, in order.
    """

    def __init__(self, exam: Exam, asked: Sequence[Asked], start: Recipe) -> None:
        self.recipe = start
        self.trials: list[Trial] = []
        self._exam = exam
        self._asked = asked
        self._measured: dict[str, NDArray[np.float64]] = {}
        self._compared: set[tuple[str, str]] = set()

    def run(self, settings: Sequence[Setting]) -> None:
        """Go through all settings until a round changes nothing.

        It ends: a change raises the recall or keeps it with fewer taps, and there are only so many
        recipes.
        """
        before = None
        while self.recipe != before:
            before = self.recipe
            self._announce(settings)
            for setting in settings:
                self._try(setting)

    def _try(self, setting: Setting) -> None:
        """Keep the best of those values of a setting that are good enough, if any is."""
        before = self._recalls(self.recipe)
        tried: list[tuple[Trial, Recipe]] = []
        for value, recipe in self._fresh(setting):
            after = self._recalls(recipe)
            gain = Gain.between(before, after)
            trial = Trial(setting.name, value, float(after.mean()), gain, kept=False)
            tried.append((trial, recipe))
        better = [pair for pair in tried if setting.keeps(pair[0].gain)]
        best, recipe = max(better, key=lambda pair: pair[0].recall, default=(None, self.recipe))
        for trial, _ in tried:
            self.trials.append(replace(trial, kept=trial is best))
        self.recipe = recipe
        if best is not None:
            logger.info("%s: %s, recall %.3f", best.setting, best.value, best.recall)

    def _fresh(self, setting: Setting) -> list[tuple[str, Recipe]]:
        """Variants that were not yet compared with the recipe as it is."""
        now = _key(self.recipe)
        found = [(value, recipe) for value, recipe in setting.variants(self.recipe)]
        fresh = [pair for pair in found if (now, _key(pair[1])) not in self._compared]
        self._compared |= {(now, _key(recipe)) for _, recipe in fresh}
        return [pair for pair in fresh if _key(pair[1]) != now]

    def _recalls(self, recipe: Recipe) -> NDArray[np.float64]:
        key = _key(recipe)
        if key not in self._measured:
            self._measured[key] = self._exam.recalls(recipe, self._asked)
        return self._measured[key]

    def _announce(self, settings: Sequence[Setting]) -> None:
        """Tell the bar what a round takes, if nothing changes on the way."""
        now = {_key(recipe) for setting in settings for _, recipe in setting.variants(self.recipe)}
        bar = self._exam.bar
        bar.total = bar.n + len(now - self._measured.keys()) * len(self._asked)
        bar.refresh()


def _key(recipe: Recipe) -> str:
    return recipe.model_dump_json(exclude={"name"})
