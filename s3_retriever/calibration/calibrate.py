"""`calibrate`: choose the recipe that finds the most evidence, one setting after another."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3_retriever.calibration.evaluation import Asked, Evaluator, Gain, split
from s3_retriever.calibration.questions import LabelledQuestion, Sample, questions_from
from s3_retriever.calibration.settings import Setting, settings
from s3_retriever.codebook import Codebook
from s3_retriever.document import Document, as_documents
from s3_retriever.encoder import OnceEncoder
from s3_retriever.engine import find_codebook, shared_host
from s3_retriever.errors import InputError
from s3_retriever.host import Host
from s3_retriever.progress import Bar, progress_bar
from s3_retriever.recipe import Recipe
from s3_retriever.types import check_count, check_items

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """One value of one setting.

    Attributes:
        setting: What was varied.
        value: Its value.
        recall: Evidence recall with it.
        gain: Gain over the recipe at that point.
        kept: Whether the recipe then took on the value.
    """

    setting: str
    value: str
    recall: float
    gain: Gain
    kept: bool


class CoordinateSearch:
    """Coordinate search: one setting after another, until none improves the recipe.

    Args:
        evaluator: Measures recipes.
        bar: Shows the progress of a round.
        asked: The questions that decide.
        start: The recipe to start from.

    Attributes:
        recipe: The best recipe so far.
        trials: Everything that was tried, in order.
    """

    def __init__(
        self, evaluator: Evaluator, bar: Bar, asked: Sequence[Asked], start: Recipe
    ) -> None:
        self.recipe = start
        self.trials: list[Trial] = []
        self._evaluator = evaluator
        self._bar = bar
        self._asked = asked
        self._measured: dict[str, NDArray[np.float64]] = {}
        self._compared: set[tuple[str, str]] = set()

    def run(self, settings: Sequence[Setting]) -> None:
        """Go through all settings until a round changes nothing.

        This terminates: a change raises the recall or keeps it with fewer taps, and the number of
        recipes is finite.
        """
        before = None
        while self.recipe != before:
            before = self.recipe
            self._announce(settings)
            for setting in settings:
                self._try(setting)

    def _try(self, setting: Setting) -> None:
        """Keep the best value of a setting, if any is good enough."""
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
        """Variants that have not been compared with the recipe as it is."""
        now = _key(self.recipe)
        variants = setting.variants(self.recipe)
        fresh = [pair for pair in variants if (now, _key(pair[1])) not in self._compared]
        self._compared |= {(now, _key(recipe)) for _, recipe in fresh}
        return [pair for pair in fresh if _key(pair[1]) != now]

    def _recalls(self, recipe: Recipe) -> NDArray[np.float64]:
        key = _key(recipe)
        if key not in self._measured:
            self._measured[key] = self._evaluator.recalls(recipe, self._asked)
        return self._measured[key]

    def _announce(self, settings: Sequence[Setting]) -> None:
        """Set the bar's total to the questions of a round in which nothing changes."""
        now = {_key(recipe) for setting in settings for _, recipe in setting.variants(self.recipe)}
        self._bar.total = self._bar.n + len(now - self._measured.keys()) * len(self._asked)
        self._bar.refresh()


def _key(recipe: Recipe) -> str:
    return recipe.model_dump_json(exclude={"name"})


# Fewest questions per half; with fewer, the standard error of their mean is meaningless.
_FEWEST = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """The recipe that a calibration chose, and what it gains.

    Attributes:
        codebook: The codebook with the chosen recipe as its default: `save` it, or make an index
            with it.
        start: The codebook's recipe before.
        trials: Everything that was tried, on one half of the questions.
        before: Evidence recall of `start` on the other half, which was held out.
        after: Evidence recall of the chosen recipe on that half.
        gain: From `before` to `after`, question by question.
        questions: How many questions decided, and how many were held out.
        token_budgets: The token budgets that recall is averaged over.
    """

    codebook: Codebook
    start: Recipe
    trials: tuple[Trial, ...]
    before: float
    after: float
    gain: Gain
    questions: tuple[int, int]
    token_budgets: tuple[int, ...]

    @property
    def recipe(self) -> Recipe:
        """The chosen recipe; `start` if nothing was better."""
        return self.codebook.recipe

    def report(self) -> dict[str, Any]:
        """The calibration without its codebook, as JSON values."""
        return {
            "recipe": self.recipe.model_dump(),
            "start": self.start.model_dump(),
            "token_budgets": list(self.token_budgets),
            "questions": {"deciding": self.questions[0], "held_out": self.questions[1]},
            "held_out": {
                "before": self.before,
                "after": self.after,
                "gain": self.gain.mean,
                "interval": [self.gain.low, self.gain.high],
            },
            "trials": [asdict(trial) for trial in self.trials],
        }


def calibrate(
    documents: Iterable[Document | str],
    questions: Iterable[LabelledQuestion] | None = None,
    *,
    host: str | Host = "minilm",
    codebook: str | Path | Codebook | None = None,
    token_budget: int = 512,
    count: int = 200,
    seed: int = 0,
    progress: bool = True,
    **host_options: Any,
) -> Calibration:
    """Choose the recipe that finds the most evidence in documents like these.

    Starts from the codebook's recipe and changes one setting after another: the taps, their
    weights and query sides, how sentences score, the powers of activation and IDF, the weight of
    BM25, the second hop, the document boost, redundancy, the features kept of documents. A change
    is kept if it raises the recall of one half of the questions by more than chance would. The
    other half is held out and measures what all changes gain together.

    Args:
        documents: What will be searched, or a sample of it: documents or plain texts.
        questions: Questions about them, with their evidence. By default they are made from the
            documents, as `questions_from` does.
        host: `minilm`, `smollm2`, a local folder or GGUF file, a model id on the Hub, or a loaded
            host.
        codebook: The host's codebook, its folder, or its id on the Hugging Face Hub. Defaults to
            the one shipped for the host, or the one in the folder `s3-codebook` beside the
            model's files.
        token_budget: Tokens that a search may return. Recall is averaged over half of it, all of
            it and twice as much.
        count: Most questions to make from the documents.
        seed: Seed of the questions that are made and of the split into halves.
        progress: Whether a terminal shows a bar with rate and time left.
        host_options: For `Host.load`, such as `device="cuda"`.

    Returns:
        The codebook with the chosen recipe, everything that was tried, and the recall before and
        after.

    Raises:
        InputError: There are too few questions, or evidence lies outside the documents.
        HostError: The host cannot be loaded.
        CodebookError: There is no codebook for the host, or it does not fit.
    """
    check_count(token_budget, "token_budget")
    if questions is None:
        sample = questions_from(documents, count, seed)
    else:
        asked = tuple(check_items(questions, "questions", (LabelledQuestion,)))
        sample = Sample(tuple(as_documents(documents)), asked)
    # Checked before the host is loaded, which takes far longer.
    check_questions([sample])
    book = find_codebook(host, codebook)
    return calibrate_samples(
        shared_host(host, book, host_options),
        book,
        [sample],
        labelled=questions is not None,
        token_budget=token_budget,
        seed=seed,
        progress=progress,
    )


def calibrate_samples(
    host: Host,
    codebook: Codebook,
    samples: Sequence[Sample],
    *,
    labelled: bool,
    token_budget: int = 512,
    seed: int = 0,
    progress: bool = True,
) -> Calibration:
    """Calibrate on several samples, each with its own documents and questions.

    Args:
        host: A loaded host.
        codebook: Its codebook.
        samples: Each has documents that are searched together, and their questions.
        labelled: Whether the evidence was labelled; False if questions were made from documents.
        token_budget: Tokens that a search may return. Recall is averaged over half of it, all of
            it and twice as much.
        seed: Seed of the split into halves.
        progress: Whether a terminal shows a bar with rate and time left.

    Raises:
        InputError: There are too few questions.
        CodebookError: The codebook belongs to another host.
    """
    check_questions(samples)
    token_budget = check_count(token_budget, "token_budget")
    token_budgets = (max(token_budget // 2, 1), token_budget, 2 * token_budget)
    deciding, held_out = split(samples, seed)
    start = codebook.recipe
    encoder = OnceEncoder(host, codebook)
    with (
        progress_bar(progress, desc="Calibrating", unit="question") as bar,
        Evaluator(encoder, samples, token_budgets, bar) as evaluator,
    ):
        search = CoordinateSearch(evaluator, bar, deciding, start)
        search.run(settings(codebook, labelled))
        chosen = start
        if search.recipe != start:
            chosen = search.recipe.changed("name", "calibrated")
        before, after = (evaluator.recalls(recipe, held_out) for recipe in (start, chosen))
    return Calibration(
        codebook=codebook.with_recipe(chosen),
        start=start,
        trials=tuple(search.trials),
        before=float(before.mean()),
        after=float(after.mean()),
        gain=Gain.between(before, after),
        questions=(len(deciding), len(held_out)),
        token_budgets=token_budgets,
    )


def check_questions(samples: Sequence[Sample]) -> None:
    """Check that there are enough questions.

    Raises:
        InputError: There are too few.
    """
    count = sum(len(set(sample.questions)) for sample in samples)
    if count < 2 * _FEWEST:
        raise InputError(
            f"A calibration needs at least {2 * _FEWEST} questions, better 200, but there are "
            f"{count}; give more questions, or more and longer documents to make them from."
        )
