"""A whole run: questions about long contexts, then needles in haystacks, with every method."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from s3_retriever import __version__
from s3_retriever.answer import LongContext
from s3_retriever.codebook import Codebook
from s3_retriever.engine import find_codebook
from s3_retriever.errors import CodebookError, HostError, InputError
from s3_retriever.host import Host
from s3_retriever_bench.corpus import source_files
from s3_retriever_bench.longcontext.answering import Answerer
from s3_retriever_bench.longcontext.claims import check_claims
from s3_retriever_bench.longcontext.data import choose, read_samples
from s3_retriever_bench.longcontext.needles import haystack_text
from s3_retriever_bench.longcontext.parts import Parts, digest_of
from s3_retriever_bench.longcontext.plan import Plan
from s3_retriever_bench.longcontext.reading import Tools
from s3_retriever_bench.longcontext.samples import Sample
from s3_retriever_bench.machine import machine, versions
from s3_retriever_bench.store import Store

_DENSE = ["faiss", "langchain_community", "sentence_transformers"]
_DRAWING = ["matplotlib", "scipy"]
_VERSIONS = ["s3-retriever", "torch", "transformers", "sentence-transformers", "faiss-cpu"]


def run_longcontext(plan: Plan) -> dict[str, Any]:
    """Measure what a plan says.

    Args:
        plan: The plan. Where it has a folder, what is finished is kept there, and a run of the
            same settings goes on, also with more questions, methods or lengths.

    Returns:
        JSON values: `settings`, `machine`, `versions`; `remark`, what was left out and why;
        `questions` (`task`, `group` and `context_tokens` of each); `values` by method
        (`prepare_seconds`, and under `budgets` the columns of `Asked.measure`, a value for each
        question); `needles` by length and method (see `probe`; means over the needles of a
        depth); `claims` (see `check_claims`).

    Raises:
        InputError: Packages are missing, files are not usable, or the folder has results of
            other settings.
        S3Error: The host or the codebook is not usable.
    """
    _check_packages(plan)
    samples = read_samples(plan.data, plan.tasks)
    book = _codebook(plan)
    model = LongContext(plan.host, codebook=book, fallback=None if book else "bm25")
    answerer = _answerer(model.host)
    methods = [name for name in plan.methods if answerer or name != "full"]
    if not methods:
        raise InputError(
            f"Host {plan.host!r} cannot generate, so that method 'full' has nothing to show; "
            "choose another one with --method, or a causal host."
        )
    fitting = [one for one in samples if _fits(one, model.host, plan.max_context_tokens)]
    chosen = choose(fitting, plan.questions, plan.seed)
    settings = _settings(plan, model.host, book)
    files = source_files(plan.haystack)
    lengths = plan.lengths if plan.needle else ()
    texts = {tokens: haystack_text(files, model.host.tokenizer, tokens) for tokens in lengths}
    store = Store(plan.folder, settings, plan.fresh)
    parts = Parts(plan, methods, Tools(model), answerer, store)
    try:
        values = parts.questions(chosen)
        needles = parts.needles(texts)
    except KeyboardInterrupt:
        where = plan.folder
        kept = f"What is finished is in {where}; the same command goes on." if where else ""
        raise KeyboardInterrupt(kept) from None
    figures = {
        "settings": settings,
        "machine": machine(),
        "versions": {name: versions()[name] for name in _VERSIONS},
        "remark": _remark(plan, len(samples) - len(fitting), generates=answerer is not None),
        "questions": {
            "task": [sample.task.name for sample in chosen],
            "group": [digest_of(sample.context) for sample in chosen],
            "context_tokens": values.pop("context_tokens"),
        },
        "values": values,
        "needles": needles,
    }
    return figures | {"claims": check_claims(figures)}


def _check_packages(plan: Plan) -> None:
    wanted = _DENSE * ("dense" in plan.methods) + _DRAWING * (plan.folder is not None)
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise InputError(
            f"The benchmark needs {', '.join(missing)}; install what it compares with and draws "
            "with: pip install 's3-retriever[bench]'"
        )


def _codebook(plan: Plan) -> Codebook | None:
    """The host's codebook; None where there is none and no method needs it."""
    try:
        return find_codebook(plan.host, plan.codebook)
    except CodebookError:
        if plan.codebook is not None or {"s3", "hybrid"} & set(plan.methods):
            raise
        return None


def _answerer(host: Host) -> Answerer | None:
    try:
        _ = host.causal
    except HostError:
        return None
    return Answerer(host)


def _fits(sample: Sample, host: Host, limit: int | None) -> bool:
    return limit is None or host.tokenizer.count(sample.context) <= limit


def _remark(plan: Plan, left_out: int, *, generates: bool) -> str:
    """What the figures leave out, and why."""
    said = []
    if not generates:
        said.append(
            f"Host {plan.host} cannot generate: scores, NLL, KL and the method full are left out."
        )
    if left_out:
        said.append(
            f"{left_out} questions about contexts of more than {plan.max_context_tokens:,} tokens "
            "are left out."
        )
    return " ".join(said)


def _settings(plan: Plan, host: Host, book: Codebook | None) -> dict[str, Any]:
    """Whatever changes the result of a question or a haystack."""
    return {
        "version": __version__,
        "host": plan.host,
        "dtype": str(host.model.dtype).removeprefix("torch."),
        "device": str(host.device),
        "codebook": None if book is None else book.identity,
        "recipe": None if book is None else book.named_recipe("default").model_dump(),
        "budgets": list(plan.budgets),
        "needle_budget": plan.needle_budget,
        "depths": list(plan.depths),
        "seed": plan.seed,
    }
