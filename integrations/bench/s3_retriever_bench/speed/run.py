"""A whole run: indexing, then each size, with what is finished kept."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from s3_retriever import __version__
from s3_retriever.codebook import Codebook
from s3_retriever.engine import find_codebook
from s3_retriever.host import Host
from s3_retriever_bench.corpus import source_files
from s3_retriever_bench.machine import machine, versions
from s3_retriever_bench.speed.claims import check_claims
from s3_retriever_bench.speed.indexing import time_indexing
from s3_retriever_bench.speed.packages import check_packages, faiss_threads, peer_versions
from s3_retriever_bench.speed.plan import Plan
from s3_retriever_bench.speed.questions import Questions, choose_questions
from s3_retriever_bench.speed.sizes import Sizes
from s3_retriever_bench.speed.timing import TimedEncoder
from s3_retriever_bench.store import Store


def run_speed(plan: Plan) -> dict[str, Any]:
    """Measure what a plan says.

    Args:
        plan: The plan. Where it has a folder, what is finished is kept there, and a run of the
            same settings goes on.

    Returns:
        JSON values: `settings`, `machine`, `versions`, `indexing` (see `time_indexing`), `sizes`
        (by the tokens asked for, see `Sizes.measure`) and `claims` (see `check_claims`).

    Raises:
        InputError: Packages are missing, texts or questions are not usable, or the folder has
            results of other settings.
        S3Error: The host or the codebook is not usable.
    """
    check_packages(draws=plan.folder is not None)
    files = source_files(plan.texts)
    questions = choose_questions(plan.ask, files, plan.questions)
    codebook = find_codebook(plan.host, plan.codebook)
    host = Host.load(plan.host, layers=codebook.depth)
    settings = _settings(plan, host, codebook, questions)
    store = Store(plan.folder, settings, plan.fresh)
    run = _Run(plan, host, codebook, files, questions, store)
    try:
        indexing, sizes = run.indexing(), run.sizes()
    except KeyboardInterrupt:
        where = plan.folder
        kept = f"What is finished is in {where}; the same command goes on." if where else ""
        raise KeyboardInterrupt(kept) from None
    return {
        "settings": settings,
        "machine": machine() | {"faiss_threads": faiss_threads()},
        "versions": versions() | peer_versions(),
        "indexing": indexing,
        "sizes": sizes,
        "claims": check_claims({"indexing": indexing, "sizes": sizes}),
    }


class _Run:
    """The parts of a run, each measured unless it was before."""

    def __init__(
        self,
        plan: Plan,
        host: Host,
        codebook: Codebook,
        files: list[Path],
        questions: Questions,
        store: Store,
    ) -> None:
        self._plan = plan
        self._host = host
        self._codebook = codebook
        self._files = files
        self._questions = questions
        self._store = store
        self._digest = _digest(files, questions)

    def indexing(self) -> dict[str, Any]:
        found = self._store.get("indexing", "add", self._digest)
        if found is None:
            found = time_indexing(
                self._host,
                self._codebook,
                self._files,
                tokens=self._plan.scan_tokens,
                rounds=self._plan.rounds,
            )
            self._store.put("indexing", "add", self._digest, found)
        return found

    def sizes(self) -> dict[str, dict[str, Any]]:
        wanted = sorted(set(self._plan.sizes))
        known = {size: self._store.get("search", str(size), self._digest) for size in wanted}
        missing = [size for size, found in known.items() if found is None]
        if missing:
            with tempfile.TemporaryDirectory() as folder:
                self._measure(Path(folder), wanted[: wanted.index(missing[-1]) + 1], known)
        return {str(size): found for size, found in known.items() if found is not None}

    def _measure(
        self, folder: Path, sizes: list[int], known: dict[int, dict[str, Any] | None]
    ) -> None:
        """Grow through all sizes, also known ones, and measure those that are not known."""
        recipe = self._codebook.named_recipe("default")
        grown = Sizes(
            folder / "index",
            TimedEncoder(self._host, self._codebook),
            recipe,
            self._files,
            slow_peers=self._plan.slow_peers,
        )
        for size in sizes:
            grown.grow(size)
            if known[size] is None:
                found = grown.measure(self._questions)
                self._store.put("search", str(size), self._digest, found)
                known[size] = found


def _settings(plan: Plan, host: Host, codebook: Codebook, questions: Questions) -> dict[str, Any]:
    return {
        "version": __version__,
        "host": plan.host,
        "dtype": str(host.model.dtype).removeprefix("torch."),
        "device": str(host.device),
        "codebook": codebook.identity,
        "recipe": codebook.named_recipe("default").model_dump(),
        "texts": " + ".join(path.name for path in plan.texts) or "the standard library",
        "ask": None if plan.ask is None else plan.ask.name,
        "questions": len(questions.measured),
        "scan_tokens": plan.scan_tokens,
        "rounds": plan.rounds,
        "slow_peers": plan.slow_peers,
    }


def _digest(files: list[Path], questions: Questions) -> str:
    """Tells texts and questions from others."""
    digest = hashlib.blake2b(repr(questions).encode(), digest_size=16)
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()
