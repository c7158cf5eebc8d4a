"""Both measurements of the integrations, and what they ran on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from s3_retriever.document import Document
from s3_retriever_bench.frameworks.framework import chosen, framework_versions
from s3_retriever_bench.frameworks.imports import time_imports
from s3_retriever_bench.frameworks.responsiveness import measure_responsiveness
from s3_retriever_bench.machine import machine, versions

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


def run_frameworks(
    names: Sequence[str] | None,
    *,
    host: str,
    codebook: str | None,
    calls: int,
    rounds: int,
    imports: int,
) -> dict[str, Any]:
    """Measure the responsiveness and the import of integrations.

    Args:
        names: Names of frameworks; all whose integration is installed where None or empty.
        host: Name of the host.
        codebook: Its codebook's folder; the shipped one where None.
        calls: Questions that are asked at once.
        rounds: How often they are.
        imports: Fresh processes that import an integration.

    Returns:
        JSON values: `settings`, `claims`, `versions`, `machine`, and of each of the `frameworks`
        what `measure_responsiveness` and `time_imports` say, as `responsiveness` and `import`.

    Raises:
        InputError: A framework is unknown, or an integration is missing or cannot be imported.
        S3Error: The host or the codebook is not usable.
    """
    frameworks = chosen(names)
    questions = [
        f"How many days of leave does department {n % len(_DOCUMENTS)} have?" for n in range(calls)
    ]
    # First, so that an integration that is broken says so at once.
    imported = {name: time_imports(one.module, imports) for name, one in frameworks.items()}
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
        "versions": versions() | framework_versions(),
        "machine": machine(),
        "frameworks": {
            name: {
                "responsiveness": measure_responsiveness(
                    one.make(_DOCUMENTS, host, codebook), questions, rounds
                ),
                "import": {"module": one.module, **imported[name]},
            }
            for name, one in frameworks.items()
        },
    }
