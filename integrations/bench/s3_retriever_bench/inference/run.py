"""Inference: answering from the evidence of a scan beside reading the whole context."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from s3_retriever import (
    Answer,
    Codebook,
    CodebookError,
    Host,
    InputError,
    LongContext,
    ScannedContext,
    Span,
)
from s3_retriever.answer.generation import generate
from s3_retriever.answer.prompt import Prompt, Request
from s3_retriever.engine.hosting import codebook_name
from s3_retriever.host.device import find_device, find_dtype
from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever_bench.inference.models import (
    DEFAULT_SHAPE,
    make_tokenizer,
    random_codebook,
    random_model,
    shape_named,
)
from s3_retriever_bench.inference.report import inference_claims
from s3_retriever_bench.shared.corpus import (
    Questions,
    choose_questions,
    source_files,
    source_name,
    text_of,
)
from s3_retriever_bench.shared.costs import TokenClock, memory_kind, peak_bytes, used_bytes
from s3_retriever_bench.shared.processes import run_alone
from s3_retriever_bench.shared.report import check
from s3_retriever_bench.shared.storage import Part, Store, files_digest

# Characters of the context to read and answer from before the clock starts, and the token budget of
# that answer: fewer tokens than those characters have, or no search would take place.
_WARM_UP = 2_000
_WARM_UP_BUDGET = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of `s3r bench inference`.

    `sizes` are answered from in both ways (by default those of the shape), `scan_sizes` by S3
    alone. Without a codebook or a tap, a host has its own codebook if there is one, else random
    directions. `texts` and `ask` are files as `corpus.documents` and `corpus.choose_questions` read
    them.

    Raises:
        InputError: Both a shape and a host are given, there is no such shape, or a codebook is
            given without a host or with a tap.
    """

    sizes: Sequence[int] = ()
    scan_sizes: Sequence[int] = ()
    shape: str | None = None
    host: str | None = None
    codebook: str | None = None
    tap: str | None = None
    token_budget: int = 1024
    new_tokens: int = 16
    questions: int = 4
    texts: Sequence[Path] = ()
    ask: Path | None = None
    folder: Path | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        """Refuse contradictions and set defaults."""
        if self.shape and self.host:
            raise InputError("A run measures a shape or a host; omit --shape or --host.")
        if self.codebook and (self.tap or not self.host):
            raise InputError(
                "A codebook belongs to a host and has its own taps; give it with --host and "
                "without --tap."
            )
        if self.host and not (self.codebook or self.tap):
            with suppress(CodebookError):
                object.__setattr__(self, "codebook", codebook_name(self.host, None))
        lengths = shape_named(self.shape or DEFAULT_SHAPE).lengths
        if not self.host:
            object.__setattr__(self, "shape", self.shape or DEFAULT_SHAPE)
        if not self.sizes:
            object.__setattr__(self, "sizes", lengths)


def run_inference(plan: Plan) -> dict[str, Any]:
    """Measure each way at each length, each in its own process.

    Args:
        plan: What to measure. If it has a folder, a run with the same settings resumes there.

    Returns:
        JSON values: `settings`, `machine`, `versions`, `sizes` (by the tokens asked for: `full`,
        see `measure_full`, and `s3`, see `measure_evidence`) and `claims`.

    Raises:
        InputError: Texts or questions are not usable, or the folder has results of other settings.
        S3Error: The host or the codebook is not usable.
    """
    questions = choose_questions(plan.ask, source_files(plan.texts), plan.questions)
    store = Store(plan.folder, _settings(plan, len(questions.measured)), plan.fresh)
    with store.resumable(), tempfile.TemporaryDirectory() as scratch:
        sizes = _Run(plan, questions, store, Path(scratch)).sizes()
    claims = check(inference_claims(sizes))
    return store.figures("s3-retriever", "torch", "transformers", sizes=sizes, claims=claims)


def _settings(plan: Plan, questions: int) -> dict[str, Any]:
    device = find_device()
    shape = asdict(shape_named(plan.shape)) if plan.shape else {}
    shape.pop("lengths", None)
    return {
        "host": plan.host,
        "shape": plan.shape,
        **shape,
        "dtype": str(find_dtype("auto", device)).removeprefix("torch."),
        "device": str(device),
        "memory": memory_kind(device),
        "codebook": plan.codebook or "random directions",
        "tap": None if plan.codebook else plan.tap or "keys of the middle layer",
        "token_budget": plan.token_budget,
        "new_tokens": plan.new_tokens,
        "questions": questions,
        "texts": source_name(plan.texts),
        "ask": None if plan.ask is None else plan.ask.name,
    }


@dataclass(frozen=True, slots=True)
class Job:
    """What a measuring process does.

    Attributes:
        plan: The model, and how many tokens evidence and answers have.
        tokenizer: Folder of a shape's tokenizer; None for a host.
        path: File of the context.
        questions: Questions to ask one after another.
        warm_up: Question to ask first, about the context's beginning.
    """

    plan: Plan
    tokenizer: Path | None
    path: Path
    questions: tuple[str, ...]
    warm_up: str

    def load(self) -> Host:
        """The complete model, on the default device.

        Raises:
            HostError: It cannot be loaded, or has no LM head.
        """
        if self.tokenizer is not None:
            return random_model(self.plan.shape or DEFAULT_SHAPE, self.tokenizer)
        assert self.plan.host is not None
        host = Host.load(self.plan.host, generates=True)
        _ = host.causal  # Raises if there is no head.
        return host

    def codebook(self, host: Host) -> Codebook:
        """The codebook to scan with; random directions have their centre in the text.

        Raises:
            CodebookError: It cannot be loaded.
            InputError: The model has no such tap.
        """
        if self.plan.codebook is not None:
            return Codebook.from_pretrained(self.plan.codebook)
        return random_codebook(host, self.plan.tap, self.beginning)

    @property
    def text(self) -> str:
        """The context."""
        with self.path.open(encoding="utf-8", newline="") as file:
            return file.read()

    @property
    def beginning(self) -> str:
        """The part for first runs, which compile and allocate."""
        return self.text[:_WARM_UP]


class _Run:
    """The parts of a run, each measured unless it was before."""

    def __init__(self, plan: Plan, questions: Questions, store: Store, scratch: Path) -> None:
        self._plan = plan
        self._files = source_files(plan.texts)
        self._questions = questions
        self._store = store
        self._scratch = scratch
        self._digest = files_digest(self._files, questions)

    def sizes(self) -> dict[str, dict[str, Any]]:
        both = set(self._plan.sizes)
        parts = [
            (size, way)
            for size in sorted(both | set(self._plan.scan_sizes))
            for way in _WAYS
            if size in both or way == "s3"
        ]
        results: dict[str, dict[str, Any]] = {}
        runs = (self._part(*part) for part in parts)
        measured = self._store.measured_all(runs, len(parts), "Inference", "process")
        for part, result in measured:
            results.setdefault(part.method, {})[part.name] = result
        return results

    def _part(self, size: int, way: str) -> Part:
        return Part(way, str(size), self._digest, lambda: run_alone(_WAYS[way], self._job(size)))

    def _job(self, size: int) -> Job:
        path = self._scratch / f"{size}.txt"
        if not path.exists():
            text = text_of(self._files, size, self._tokenizer)
            path.write_text(text, encoding="utf-8", newline="")
        folder = None if self._plan.host else self._scratch / "tokenizer"
        asked = self._questions
        return Job(self._plan, folder, path, asked.measured, asked.warm_up[0])

    @cached_property
    def _tokenizer(self) -> OffsetTokenizer:
        if self._plan.host is not None:
            return Host.load(self._plan.host, layers=1, device="cpu").tokenizer
        shape = shape_named(self._plan.shape or DEFAULT_SHAPE)
        tokenizer = make_tokenizer(self._files, shape.vocabulary)
        tokenizer.save_pretrained(self._scratch / "tokenizer")
        return OffsetTokenizer(tokenizer)


def tokens_per_second(clocks: Sequence[TokenClock]) -> float:
    """Rate of the tokens after the first ones, over several answers."""
    tokens = sum(len(clock.ticks) - 1 for clock in clocks)
    return round(tokens / sum(clock.ticks[-1] - clock.ticks[0] for clock in clocks), 3)


def measure_evidence(job: Job) -> dict[str, Any]:
    """Scan a context, then answer questions from the evidence for each.

    Args:
        job: The context and the questions.

    Returns:
        JSON values. `tokens`: of the context as scanned. `scan_seconds`. `first_token_seconds`:
        from the text to the first new token of the first answer, scan included. Of the further
        questions `further_token_seconds`, the median from the question to the first new token,
        and `further_seconds`, all of them; None and none with a single question.
        `retrieval_seconds`: the median of all questions. `tokens_per_second`: of the tokens after
        the first ones. `prompt_tokens`: of the longest prompt. `loaded_bytes`, `peak_bytes`.

    Raises:
        S3Error: The model or the codebook cannot be loaded, or the questions do not fit it.
    """
    host = job.load()
    loaded = used_bytes(host.device)
    model = LongContext(host, codebook=job.codebook(host))
    with model.scan(job.beginning, progress=False) as scanned:
        _ask(scanned, job, job.warm_up, min(job.plan.token_budget, _WARM_UP_BUDGET))
    text = job.text
    began = time.perf_counter()
    with model.scan(text, progress=False) as scanned:
        scan = time.perf_counter() - began
        asked = [_ask(scanned, job, question, job.plan.token_budget) for question in job.questions]
        tokens = scanned.tokens
    further = [round(clock.ticks[0] - start, 4) for start, clock, _ in asked[1:]]
    answers = [answer for _, _, answer in asked]
    return {
        "tokens": tokens,
        "scan_seconds": round(scan, 4),
        "first_token_seconds": round(asked[0][1].ticks[0] - began, 4),
        "further_token_seconds": round(median(further), 4) if further else None,
        "further_seconds": further,
        "retrieval_seconds": round(median(answer.retrieval_seconds for answer in answers), 4),
        "tokens_per_second": tokens_per_second([clock for _, clock, _ in asked]),
        "prompt_tokens": max(answer.prompt_tokens for answer in answers),
        "loaded_bytes": loaded,
        "peak_bytes": peak_bytes(host.device),
    }


def _ask(
    scanned: ScannedContext, job: Job, question: str, budget: int
) -> tuple[float, TokenClock, Answer]:
    """When the question was asked, when the tokens came, and the answer."""
    clock = TokenClock()
    began = time.perf_counter()
    answer = scanned.answer(
        question,
        token_budget=budget,
        max_new_tokens=job.plan.new_tokens,
        min_new_tokens=job.plan.new_tokens,
        streamer=clock,
    )
    return began, clock, answer


def measure_full(job: Job) -> dict[str, Any]:
    """Let the model's own `generate` read a whole context and answer the first question.

    Args:
        job: The context and the questions.

    Returns:
        JSON values. `first_token_seconds`: from the text to the first new token, tokenising
        included. `tokens_per_second`: of the tokens after it. `prompt_tokens`, `cache_bytes` (the
        KV cache of prompt and answer), `loaded_bytes` and `peak_bytes`. Or `failed`, why it was
        not measured.

    Raises:
        S3Error: The model cannot be loaded.
    """
    host = job.load()
    loaded = used_bytes(host.device)
    text, question = job.text, job.questions[0]
    tokens = len(Prompt(host).ids(text, question))
    if host.positions is not None and tokens + job.plan.new_tokens > host.positions:
        return {"failed": f"beyond the model's {host.positions:,} positions"}
    _answer(host, job, job.beginning, job.warm_up)
    began = time.perf_counter()
    clock = _answer(host, job, text, question)
    heads = host.family.heads(host.model.config)
    # Keys and values of all layers; sliding windows keep less.
    cached = 2 * len(host.blocks) * (tokens + job.plan.new_tokens - 1) * heads.keys * heads.size
    return {
        "prompt_tokens": tokens,
        "first_token_seconds": round(clock.ticks[0] - began, 4),
        "tokens_per_second": tokens_per_second([clock]),
        "cache_bytes": cached * host.model.dtype.itemsize,
        "loaded_bytes": loaded,
        "peak_bytes": peak_bytes(host.device),
    }


def _answer(host: Host, job: Job, text: str, question: str) -> TokenClock:
    """Generate as from evidence, with the whole text as the evidence."""
    clock = TokenClock()
    options = {"streamer": clock, "min_new_tokens": job.plan.new_tokens}
    request = Request(host, question, 1, job.plan.new_tokens, Prompt(host), options)
    generate(request, [Span(text, 0.0, 0.0, "context", 0, len(text), (), {}, 0)], 0.0)
    return clock


_WAYS: dict[str, Callable[[Job], dict[str, Any]]] = {"full": measure_full, "s3": measure_evidence}
