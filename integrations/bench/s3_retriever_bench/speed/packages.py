"""The packages that are compared with."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

from s3_retriever.errors import InputError

_PACKAGES = ["bm25s", "faiss", "langchain_core", "rank_bm25", "sentence_transformers"]
_DRAWING = ["matplotlib", "scipy"]


def check_packages(*, draws: bool) -> None:
    """Find the packages before anything is measured.

    Args:
        draws: Whether pictures are drawn.

    Raises:
        InputError: Some are missing.
    """
    wanted = _PACKAGES + _DRAWING * draws
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise InputError(
            f"The benchmark needs {', '.join(missing)}; install what it compares with: "
            "pip install 's3-retriever[bench]'"
        )


def peer_versions() -> dict[str, str]:
    """Versions of what only this benchmark uses."""
    return {name: version(name) for name in ("bm25s", "numba")}


def faiss_threads() -> int:
    """Threads that FAISS takes."""
    threads: int = import_module("faiss").omp_get_max_threads()
    return threads
