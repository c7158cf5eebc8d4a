"""The integrations with LangChain and LlamaIndex: a free event loop and a quick import."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from s3_retriever import Document, InputError
from s3_retriever_bench.shared.processes import run_script
from s3_retriever_bench.shared.storage import installed_version, machine, versions

# What the integrations claim; recorded beside the figures.
CLAIMS = {"late_ms_at_most": 50, "import_seconds_below": 1.5}
_DOCUMENTS = [
    Document(
        f"Department {n} has {n + 20} days of paid leave. Ask the head of department {n} first. "
        f"Its gate is number {n % 7}. Parcels for it are left with the porter.",
        f"department-{n}",
    )
    for n in range(200)
]
_TICK_SECONDS = 0.005
# Libraries that take seconds to import and that are not needed before there is an index.
_SLOW = ("torch", "transformers")
_IMPORT = """\
import sys, time
before = set(sys.modules)
started = time.perf_counter()
__import__(sys.argv[1])
seconds = time.perf_counter() - started
import json
loaded = [name for name in sys.argv[2:] if name in sys.modules and name not in before]
print()
print(json.dumps({"seconds": seconds, "loaded": loaded}))
"""


@dataclass(frozen=True)
class Retriever:
    """A framework's retriever, asked in its two ways.

    Attributes:
        ask: Answers a question.
        aask: Answers it beside the event loop.
    """

    ask: Callable[[str], Any]
    aask: Callable[[str], Awaitable[Any]]


@dataclass(frozen=True)
class Framework:
    """A framework and its integration.

    Attributes:
        core: Distribution of the framework.
        distribution: Distribution of the integration.
        module: Import name of the integration.
        make: Indexes documents with a host and a codebook, None for the shipped one.
    """

    core: str
    distribution: str
    module: str
    make: Callable[[Sequence[Document], str, str | None], Retriever]

    def is_installed(self) -> bool:
        """Whether the integration is installed."""
        return installed_version(self.distribution) is not None


# The benchmark does not depend on the integrations: it imports those that it measures by name.
def _langchain(documents: Sequence[Document], host: str, codebook: str | None) -> Retriever:
    retriever = import_module("langchain_s3_retriever").S3Retriever.from_texts(
        [document.text for document in documents],
        ids=[document.id for document in documents],
        host=host,
        codebook=codebook,
        progress=False,
    )
    return Retriever(retriever.invoke, retriever.ainvoke)


def _llama_index(documents: Sequence[Document], host: str, codebook: str | None) -> Retriever:
    node = import_module("llama_index.core.schema").TextNode
    retriever = import_module("llama_index.retrievers.s3_attention").S3Retriever.from_defaults(
        nodes=[node(text=document.text, id_=document.id) for document in documents],
        host=host,
        codebook=codebook,
    )
    return Retriever(retriever.retrieve, retriever.aretrieve)


FRAMEWORKS = {
    "langchain": Framework(
        "langchain-core", "langchain-s3-retriever", "langchain_s3_retriever", _langchain
    ),
    "llama-index": Framework(
        "llama-index-core",
        "llama-index-retrievers-s3-attention",
        "llama_index.retrievers.s3_attention",
        _llama_index,
    ),
}


def run_frameworks(
    *, host: str, codebook: str | None, calls: int, rounds: int, imports: int
) -> dict[str, Any]:
    """Measure the responsiveness and the import of the integrations that are installed.

    Takes the options of `s3r bench frameworks`.

    Returns:
        JSON values: `settings`, `claims`, `versions`, `machine`, and for each of the `frameworks`
        the values of `measure_responsiveness` and `time_imports`, as `responsiveness` and
        `import`.

    Raises:
        InputError: No integration is installed, or one cannot be imported.
        S3Error: The host or the codebook is not usable.
    """
    frameworks = installed()
    questions = [
        f"How many days of leave does department {n % len(_DOCUMENTS)} have?" for n in range(calls)
    ]
    # First, to report a broken integration at once.
    imported = {name: time_imports(f.module, imports) for name, f in frameworks.items()}
    distributions = [name for f in FRAMEWORKS.values() for name in (f.core, f.distribution)]
    return {
        "settings": {
            "host": host,
            "codebook": codebook,
            "documents": len(_DOCUMENTS),
            "calls": calls,
            "rounds": rounds,
            "imports": imports,
        },
        "claims": CLAIMS,
        "versions": versions() | versions(*distributions),
        "machine": machine(),
        "frameworks": {
            name: {
                "responsiveness": measure_responsiveness(
                    framework.make(_DOCUMENTS, host, codebook), questions, rounds
                ),
                "import": {"module": framework.module, **imported[name]},
            }
            for name, framework in frameworks.items()
        },
    }


def installed() -> dict[str, Framework]:
    """The frameworks whose integration is installed.

    Raises:
        InputError: None is.
    """
    found = {name: framework for name, framework in FRAMEWORKS.items() if framework.is_installed()}
    if not found:
        distributions = " ".join(framework.distribution for framework in FRAMEWORKS.values())
        raise InputError(
            f"No integration is installed; install one or more with: pip install {distributions}"
        )
    return found


def time_imports(module: str, times: int) -> dict[str, Any]:
    """Import a module in fresh processes, one after the other.

    Args:
        module: Name of the module.
        times: Number of processes.

    Returns:
        JSON values: `best_seconds` and `median_seconds` of the import alone, without the start of
        Python, `seconds` of each process, and `loaded`, the slow libraries (torch, transformers)
        that any of them loaded.

    Raises:
        InputError: The module cannot be imported.
    """
    try:
        processes = [run_script(_IMPORT, module, *_SLOW) for _ in range(times)]
    except RuntimeError as error:
        raise InputError(
            f"{module} cannot be imported ({error}); reinstall the integration and its framework."
        ) from error
    seconds = [process["seconds"] for process in processes]
    return {
        "best_seconds": round(min(seconds), 3),
        "median_seconds": round(statistics.median(seconds), 3),
        "seconds": [round(value, 3) for value in seconds],
        "loaded": sorted({name for process in processes for name in process["loaded"]}),
    }


def measure_responsiveness(
    retriever: Retriever, questions: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Ask all questions at once in one event loop, beside a ticker that records its delays.

    Asks them one by one before, which also reads the index for the first time.

    Args:
        retriever: The retriever.
        questions: The calls of a round.
        rounds: Number of rounds, in the same loop.

    Returns:
        JSON values. `worst_ms` and `p99_ms`: delays over the ticks of all rounds. `seconds`: the
        median of the rounds. `equal`: whether every round returned what calls one by one did.
        `rounds`: the figures of each.
    """
    expected = [retriever.ask(question) for question in questions]
    results = asyncio.run(_all_rounds(retriever, questions, expected, rounds))
    return {
        **_lateness([late for _, _, ticks in results for late in ticks]),
        "seconds": round(statistics.median(seconds for seconds, _, _ in results), 3),
        "equal": all(equal for _, equal, _ in results),
        "rounds": [
            {**_lateness(ticks), "ticks": len(ticks), "seconds": round(seconds, 3), "equal": equal}
            for seconds, equal, ticks in results
        ],
    }


async def _all_rounds(
    retriever: Retriever, questions: Sequence[str], expected: list[Any], rounds: int
) -> list[tuple[float, bool, list[float]]]:
    """Seconds, whether all results were as expected, and delays of the ticks, of each round."""
    results = []
    for _ in range(rounds):
        async with _ticker() as late:
            started = time.perf_counter()
            answers = await asyncio.gather(*(retriever.aask(question) for question in questions))
            seconds = time.perf_counter() - started
        results.append((seconds, list(answers) == expected, late))
    return results


@asynccontextmanager
async def _ticker() -> AsyncIterator[list[float]]:
    """Ticks beside the block, and the milliseconds by which each came late."""
    late: list[float] = []
    done = asyncio.Event()
    task = asyncio.create_task(_tick(late, done))
    await asyncio.sleep(0)  # The ticker is asleep when the block begins.
    try:
        yield late
    finally:
        done.set()
        await task  # The tick under way counts too.


async def _tick(late: list[float], done: asyncio.Event) -> None:
    while not done.is_set():
        started = time.perf_counter()
        await asyncio.sleep(_TICK_SECONDS)
        # A loop may wake a task early, by less than the resolution of its clock.
        late.append(max(0.0, 1_000 * (time.perf_counter() - started - _TICK_SECONDS)))


def _lateness(ticks: Sequence[float]) -> dict[str, float]:
    return {
        "worst_ms": round(max(ticks), 2),
        "p99_ms": round(float(np.percentile(ticks, 99)), 2),
    }
