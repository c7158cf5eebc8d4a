"""Adapters: what a few steps of training on refusals do, by how the adapter starts."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from s3_retriever import Codebook, Host, InputError, Tap, TopKSAE, sails_init
from s3_retriever.types import Split
from s3_retriever_bench.adapters.data import (
    Behaviour,
    Sources,
    contrast_pairs,
    harmful_pairs,
    read_behaviour,
    refuses,
    training_pairs,
)
from s3_retriever_bench.adapters.finetuning import (
    Chat,
    answer_likelihood,
    answers,
    perplexity,
    train,
)
from s3_retriever_bench.shared.corpus import documents
from s3_retriever_bench.shared.storage import Part, Store, check_names, files_digest

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 8
# Characters of the plain text, of which its first tokens are read.
_TEXT_CHARACTERS = 200_000
_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
UNTRAINED = "untrained"
# How PEFT starts the others.
_PEFT_STARTS = {"lora": True, "pissa": "pissa_niter_16", "olora": "olora"}
_VERSIONS = ("s3-retriever", "peft", "torch", "transformers")
STARTS = (*_PEFT_STARTS, "sails", "full")


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of `s3r bench adapt`.

    Attributes:
        sources: The data.
        host: A causal model with a chat template.
        codebook: Folder of the codebook with the SAE.
        tap: The hidden tap of the SAE; the adapters are in the layers after it.
        starts: How adapters start: `lora`, `pissa` and `olora` as PEFT starts them, `sails`; or
            `full`, which trains all weights.
        seeds: Seeds of the data's order and of random starts: 0 to this.
        steps: Training steps of eight examples.
        rank: Rank of the adapters.
        rates: Learning rates of adapters, each tried with each start.
        full_rate: Learning rate of full fine-tuning.
        prompts: Most prompts of each measured kind.
        new_tokens: Tokens of an answer that are judged.
        text_tokens: Tokens of plain text for perplexity.
        contrast: Examples that `sails` compares: `answers` or `prompts`.
        tokens: At which tokens it compares them.
        features: How many features it chooses.
        examples: Most examples of a side that it compares.
        split: `test` to report, `dev` to choose.
        folder: Where to keep results.
        fresh: Whether to measure again what the folder holds.
    """

    sources: Sources
    host: str = "smollm2"
    codebook: str = "smollm2"
    tap: str = "hidden.8"
    starts: Sequence[str] = STARTS
    seeds: int = 3
    steps: int = 12
    rank: int = 8
    rates: Sequence[float] = (1e-3, 3e-3)
    full_rate: float = 5e-5
    prompts: int = 32
    new_tokens: int = 12
    text_tokens: int = 1_024
    contrast: str = "answers"
    tokens: str = "all"
    features: int = 32
    examples: int = 100
    split: Split = "test"
    folder: Path | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        """Refuse what there is not."""
        check_names(self.starts, STARTS, "start")


def run_adapt(plan: Plan) -> dict[str, Any]:
    """Train each start with each seed, and measure what the model then says.

    Args:
        plan: What to measure. If it has a folder, a run with the same settings resumes there.

    Returns:
        JSON values: `settings`, `machine`, `versions` and `runs`, by start and seed.

    Raises:
        InputError: The data are not usable, or the folder has results of other settings.
        S3Error: The host or the codebook is not usable.
    """
    behaviour = read_behaviour(plan.sources, plan.split, plan.prompts)
    store = Store(plan.folder, _settings(plan, behaviour), plan.fresh)
    digest = files_digest(plan.sources, plan.split)
    bench = _Bench(plan, behaviour)
    parts = [
        Part(
            start if start == UNTRAINED else f"{start} {rate:g}",
            str(seed),
            digest,
            partial(bench.run, start, rate, seed),
        )
        for start, rate, seed in _runs(plan)
    ]
    runs: dict[str, dict[str, Any]] = {}
    with store.resumable():
        for part, run in store.measured_all(parts, len(parts), "Adapters", "run"):
            # Judged anew, so that a better judge needs no new answers.
            run["refused"] = {kind: [*map(refuses, said)] for kind, said in run["answers"].items()}
            runs.setdefault(part.name, {})[part.method] = run
    return store.figures(*_VERSIONS, runs=runs)


def run_starting(plan: Plan, examples: int) -> dict[str, Any]:
    """Time the starts alone, each on a fresh copy of the model; nothing is trained.

    Args:
        plan: Which starts, of which host; full fine-tuning has none.
        examples: Examples a side that `sails` compares, of all harmful prompts.

    Returns:
        JSON values: `settings`, `machine`, `versions` and `seconds`, by start.

    Raises:
        InputError: The data have fewer harmful prompts.
        S3Error: The host or the codebook is not usable.
    """
    behaviour = read_behaviour(plan.sources, plan.split, plan.prompts)
    behaviour = replace(behaviour, refused=harmful_pairs(plan.sources))
    if len(behaviour.refused) < examples:
        raise InputError(
            f"{plan.sources.harmful} has {len(behaviour.refused)} prompts; ask for at most as many "
            "examples a side."
        )
    plan = replace(plan, examples=examples)
    bench = _Bench(plan, behaviour)
    starts = [start for start in plan.starts if start != "full"]
    store = Store(None, _settings(plan, behaviour), plan.fresh)
    seconds = {start: bench.start_seconds(start) for start in starts}
    return store.figures(*_VERSIONS, seconds=seconds)


def _runs(plan: Plan) -> Iterator[tuple[str, float, int]]:
    """Start, learning rate and seed of every run; all starts of a seed before the next seed."""
    yield UNTRAINED, 0.0, 0
    for seed in range(plan.seeds):
        for start in plan.starts:
            for rate in [plan.full_rate] if start == "full" else plan.rates:
                yield start, rate, seed


def _settings(plan: Plan, behaviour: Behaviour) -> dict[str, Any]:
    names = (
        "host codebook tap steps rank rates full_rate new_tokens text_tokens tokens "
        "features examples split"
    )
    return {
        **{name: getattr(plan, name) for name in names.split()},
        "compare": plan.contrast,
        "batch": _BATCH,
        **{f"{name}_prompts": len(getattr(behaviour, name)) for name in Behaviour.__slots__},
        **{name: path.name for name, path in zip(Sources._fields, plan.sources, strict=True)},
    }


@dataclass(slots=True)
class _Bench:
    """Model and data of all runs, loaded when the first run needs them."""

    plan: Plan
    behaviour: Behaviour
    _loaded: tuple[Any, Any, TopKSAE, Chat, Tensor] | None = field(default=None)

    def run(self, start: str, rate: float, seed: int) -> dict[str, Any]:
        """Train one start and measure it; without training the model as it is."""
        _, _, _, chat, windows = self._load()
        plan = self.plan
        model, report, starting = self._started(start, seed)
        losses: list[float] = []
        trained = 0
        began = time.perf_counter()
        if start != UNTRAINED:
            trained = sum(w.numel() for w in model.parameters() if w.requires_grad)
            pairs = training_pairs(self.behaviour, plan.steps * _BATCH, seed)
            losses = train(model, chat, pairs, _BATCH, rate)
        training = time.perf_counter() - began
        kept = 0.0 if report is None else _update_share(report, model)
        if start not in (UNTRAINED, "full"):
            model = model.merge_and_unload()
        said = {
            kind: answers(model, chat, getattr(self.behaviour, kind), plan.new_tokens)
            for kind in ("harmful", "unsafe", "safe")
        }
        return {
            "perplexity": perplexity(model, windows),
            "likelihood": answer_likelihood(model, chat, self.behaviour.answered),
            "parameters": trained,
            "start_seconds": starting,
            "train_seconds": round(training, 2),
            "losses": losses,
            "basis": None
            if report is None
            else {
                "rank": report.rank,
                "unexplained": report.unexplained,
                "features": [[f.index, f.difference, f.tokens] for f in report.features[:8]],
                "update_share": kept,
            },
            "answers": said,
        }

    def start_seconds(self, start: str) -> float:
        """How long a start takes."""
        return self._started(start, seed=0)[2]

    def _started(self, start: str, seed: int) -> tuple[Any, Any, float]:
        """A copy of the model with its start, the report of SAILS, and the seconds it took."""
        base, tokenizer, sae, _, _ = self._load()
        torch.manual_seed(seed)
        model, report = copy.deepcopy(base), None
        began = time.perf_counter()
        if start != UNTRAINED:
            model, report = self._begin(model, tokenizer, sae, start)
        return model, report, round(time.perf_counter() - began, 2)

    def _begin(self, model: Any, tokenizer: Any, sae: TopKSAE, start: str) -> tuple[Any, Any]:
        """The model with its start, and the report of SAILS."""
        from peft import LoraConfig, get_peft_model

        plan = self.plan
        if start == "full":
            return model.requires_grad_(requires_grad=True), None
        layer = Tap.parse(plan.tap).layer
        depth = int(model.config.num_hidden_layers)
        config = LoraConfig(
            r=plan.rank,
            lora_alpha=2 * plan.rank,
            target_modules=_MODULES,
            layers_to_transform=list(range(layer + 1, depth)),
            init_lora_weights=_PEFT_STARTS.get(start, True),  # type: ignore[arg-type]
        )
        adapted = get_peft_model(model, config)
        if start != "sails":
            return adapted, None
        wanted, unwanted = contrast_pairs(self.behaviour, plan.examples, plan.contrast)
        report = sails_init(
            adapted,
            sae,
            wanted,
            unwanted,
            tokenizer=tokenizer,
            layer=layer,
            tokens=plan.tokens,  # type: ignore[arg-type]
            features=plan.features,
            progress=False,
        )
        return adapted, report

    def _load(self) -> tuple[Any, Any, TopKSAE, Chat, Tensor]:
        if self._loaded is None:
            plan = self.plan
            host = Host.load(plan.host, generates=True, dtype="float32")
            tokenizer = host.tokenizer.source
            if not tokenizer.chat_template:
                raise InputError(f"Host {plan.host!r} has no chat template; choose another host.")
            chat = Chat(tokenizer)
            text = ""
            for document in documents([plan.sources.text]):
                text += document.text + "\n\n"
                if len(text) > _TEXT_CHARACTERS:
                    break
            sae = Codebook.from_pretrained(plan.codebook).sae(plan.tap)
            windows = chat.windows(text, plan.text_tokens)
            self._loaded = (host.causal, tokenizer, sae, chat, windows)
        return self._loaded


def _update_share(report: Any, model: Any) -> float:
    """The share of all updates' squared norm that lies in the basis."""
    from peft import get_peft_model_state_dict

    updates = report.updates(get_peft_model_state_dict(model))
    whole = sum(update.size**2 for update in updates)
    return float(sum(update.share * update.size**2 for update in updates) / max(whole, 1e-12))
