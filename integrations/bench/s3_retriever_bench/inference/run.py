"""A whole run: each length with and without the whole context in the KV cache."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from s3_retriever import __version__
from s3_retriever.errors import InputError
from s3_retriever.host import Host
from s3_retriever.host.device import find_device, find_dtype
from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever_bench.corpus import source_files
from s3_retriever_bench.inference.claims import check_claims
from s3_retriever_bench.inference.contexts import write_context
from s3_retriever_bench.inference.evidence import measure_evidence
from s3_retriever_bench.inference.full import measure_full
from s3_retriever_bench.inference.isolation import run_alone
from s3_retriever_bench.inference.job import Job
from s3_retriever_bench.inference.plan import Plan
from s3_retriever_bench.inference.shapes import shape_named
from s3_retriever_bench.inference.subject import Subject
from s3_retriever_bench.inference.tokenizer import make_tokenizer
from s3_retriever_bench.machine import machine, versions
from s3_retriever_bench.peak import memory_kind
from s3_retriever_bench.speed.questions import Questions, choose_questions
from s3_retriever_bench.store import Store

_DRAWING = ["matplotlib", "scipy"]
_WAYS: dict[str, Callable[[Job], dict[str, Any]]] = {"full": measure_full, "s3": measure_evidence}


def run_inference(plan: Plan) -> dict[str, Any]:
    """Measure what a plan says, each way at each length in a process of its own.

    Args:
        plan: The plan. Where it has a folder, what is finished is kept there, and a run of the
            same settings goes on.

    Returns:
        JSON values: `settings`, `machine`, `versions`, `sizes` (by the tokens asked for: `full`,
        see `measure_full`, and `s3`, see `measure_evidence`) and `claims` (see `check_claims`).

    Raises:
        InputError: Packages are missing, texts or questions are not usable, or the folder has
            results of other settings.
        S3Error: The host or the codebook is not usable.
    """
    if plan.folder is not None:
        _check_drawing()
    files = source_files(plan.texts)
    questions = choose_questions(plan.ask, files, plan.questions)
    settings = _settings(plan, len(questions.measured))
    store = Store(plan.folder, settings, plan.fresh)
    try:
        with tempfile.TemporaryDirectory() as room:
            sizes = _Run(plan, files, questions, store, Path(room)).sizes()
    except KeyboardInterrupt:
        where = plan.folder
        kept = f"What is finished is in {where}; the same command goes on." if where else ""
        raise KeyboardInterrupt(kept) from None
    return {
        "settings": settings,
        "machine": machine(),
        "versions": {name: versions()[name] for name in ("s3-retriever", "torch", "transformers")},
        "sizes": sizes,
        "claims": check_claims(sizes),
    }


class _Run:
    """The parts of a run, each measured unless it was before."""

    def __init__(
        self, plan: Plan, files: list[Path], questions: Questions, store: Store, room: Path
    ) -> None:
        self._plan = plan
        self._files = files
        self._questions = questions
        self._store = store
        self._room = room
        self._digest = _digest(files, questions)
        self._tokenizer: OffsetTokenizer | None = None

    def sizes(self) -> dict[str, dict[str, Any]]:
        both = set(self._plan.sizes)
        parts = [
            (size, way)
            for size in sorted(both | set(self._plan.scan_sizes))
            for way in _WAYS
            if size in both or way == "s3"
        ]
        found: dict[str, dict[str, Any]] = {}
        with tqdm(total=len(parts), desc="Inference", unit="process", disable=None) as bar:
            for size, way in parts:
                bar.set_postfix_str(f"{way}, {size:,} tokens")
                found.setdefault(str(size), {})[way] = self._part(size, way)
                bar.update()
        return found

    def _part(self, size: int, way: str) -> dict[str, Any]:
        found = self._store.get(way, str(size), self._digest)
        if found is None:
            found = run_alone(_WAYS[way], self._job(size))
            self._store.put(way, str(size), self._digest, found)
        return found

    def _job(self, size: int) -> Job:
        tokenizer = self._tokenizer = self._tokenizer or self._find_tokenizer()
        path = self._room / f"{size}.txt"
        if not path.exists():
            write_context(self._files, tokenizer, size, path)
        return Job(
            subject=self._subject(),
            path=path,
            questions=self._questions.measured,
            warm_up=self._questions.warm_up[0],
            token_budget=self._plan.token_budget,
            new_tokens=self._plan.new_tokens,
        )

    def _subject(self) -> Subject:
        plan = self._plan
        if plan.host is not None:
            return Subject(plan.host, None, None, plan.codebook, plan.tap)
        assert plan.shape is not None
        shape = shape_named(plan.shape)
        return Subject(plan.shape, shape, self._room / "tokenizer", None, plan.tap)

    def _find_tokenizer(self) -> OffsetTokenizer:
        subject = self._subject()
        if subject.shape is None:
            return Host.load(subject.name, layers=1, device="cpu").tokenizer
        made = make_tokenizer(self._files, subject.shape.vocabulary)
        made.save_pretrained(self._room / "tokenizer")
        return OffsetTokenizer(made)


def _check_drawing() -> None:
    missing = [name for name in _DRAWING if find_spec(name) is None]
    if missing:
        raise InputError(
            f"The pictures need {', '.join(missing)}; install them with: "
            "pip install 's3-retriever[bench]', or leave out --out."
        )


def _settings(plan: Plan, questions: int) -> dict[str, Any]:
    device = find_device()
    return {
        "version": __version__,
        "host": plan.host,
        "shape": plan.shape,
        **({} if plan.shape is None else _sizes_of(plan.shape)),
        "dtype": str(find_dtype("auto", device)).removeprefix("torch."),
        "device": str(device),
        "memory": memory_kind(device),
        "codebook": plan.codebook or "random directions",
        "tap": None if plan.codebook else plan.tap or "keys of the middle layer",
        "token_budget": plan.token_budget,
        "new_tokens": plan.new_tokens,
        "questions": questions,
        "texts": " + ".join(path.name for path in plan.texts) or "the standard library",
        "ask": None if plan.ask is None else plan.ask.name,
    }


def _sizes_of(shape: str) -> dict[str, Any]:
    sizes = asdict(shape_named(shape))
    del sizes["lengths"]
    return sizes


def _digest(files: Sequence[Path], questions: Questions) -> str:
    """Tells texts and questions from others."""
    digest = hashlib.blake2b(repr(questions).encode(), digest_size=16)
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()
