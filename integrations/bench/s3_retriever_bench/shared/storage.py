"""Runs on disk: finished parts, from which an interrupted run resumes, and the machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm.auto import tqdm

from s3_retriever import InputError, __version__

if TYPE_CHECKING:
    from s3_retriever import Codebook, Host

_SETTINGS = "settings.json"
_PARTS = "parts"
_PACKAGES = (
    "s3-retriever",
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "langchain-community",
    "llama-index-core",
    "rank-bm25",
    "sentencex",
    "numpy",
)


class Part(NamedTuple):
    """A part of a run, named by what is measured and the method.

    Attributes:
        name: What is measured.
        method: How.
        digest: A hash of the questions and documents it is measured on.
        measure: Measures it: JSON values.
    """

    name: str
    method: str
    digest: str
    measure: Callable[[], dict[str, Any]]


class Store:
    """The finished parts of a run, one JSON file for each set and method.

    Args:
        folder: Where to keep them; None keeps nothing.
        settings: Everything that changes results, as JSON values; the package's version is added.
        fresh: Whether to remove what is there first.

    Raises:
        InputError: The folder holds results of other settings.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any], fresh: bool) -> None:
        self._folder = folder
        self.settings = {"version": __version__, **settings}
        if folder is None:
            return
        if fresh:
            shutil.rmtree(folder / _PARTS, ignore_errors=True)
            (folder / _SETTINGS).unlink(missing_ok=True)
        (folder / _PARTS).mkdir(parents=True, exist_ok=True)
        self._check(folder / _SETTINGS, self.settings)

    def get(self, name: str, method: str, digest: str) -> dict[str, Any] | None:
        """A finished part; None if it has not been measured yet.

        Raises:
            InputError: It belongs to other questions or documents, or the file is damaged.
        """
        if self._folder is None or not self._path(name, method).is_file():
            return None
        part = _read(self._path(name, method))
        if part.pop("task", None) != digest:
            raise InputError(
                f"{self._path(name, method)} belongs to other questions or documents; pass "
                "--fresh to measure again, or another folder to --out."
            )
        return part

    def put(self, name: str, method: str, digest: str, part: Mapping[str, Any]) -> None:
        """Keep a part; `digest` identifies the questions and documents it was measured on."""
        if self._folder is not None:
            _write(self._path(name, method), {"task": digest, **part})

    def measured(
        self, name: str, method: str, digest: str, measure: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """The finished part, measured and kept now if there is none yet."""
        part = self.get(name, method, digest)
        if part is None:
            part = measure()
            self.put(name, method, digest, part)
        return part

    def measured_all(
        self, parts: Iterable[Part], total: int, what: str, unit: str
    ) -> Iterator[tuple[Part, dict[str, Any]]]:
        """The parts with their values, each as by `measured`, with a progress bar."""
        with tqdm(total=total, desc=what, unit=unit, disable=None if total else True) as bar:
            for part in parts:
                bar.set_postfix_str(f"{part.name}, {part.method}")
                yield part, self.measured(*part)
                bar.update()

    def figures(self, *packages: str, **parts: Any) -> dict[str, Any]:
        """JSON values of a run: `settings`, `machine`, `versions` of packages, and the parts."""
        frame = {"settings": self.settings, "machine": machine(), "versions": versions(*packages)}
        return frame | parts

    @contextmanager
    def resumable(self) -> Iterator[None]:
        """Make an interrupt inside the block say where the finished parts are."""
        try:
            yield
        except KeyboardInterrupt:
            kept = (
                f"Finished parts are kept in {self._folder}; the same command continues from there."
            )
            raise KeyboardInterrupt(kept if self._folder else "") from None

    def _path(self, name: str, method: str) -> Path:
        assert self._folder is not None
        return self._folder / _PARTS / f"{name}--{method}.json"

    def _check(self, path: Path, settings: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(settings))
        if not path.is_file():
            _write(path, wanted)
            return
        kept = _read(path)
        changed = [key for key in {**wanted, **kept} if wanted.get(key) != kept.get(key)]
        if changed:
            raise InputError(
                f"{path.parent} has results with other settings ({', '.join(changed)} changed); "
                "pass --fresh to measure again, or another folder to --out."
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is damaged ({error}); remove it, or pass --fresh to measure again."
        ) from error
    return value


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file atomically: it is complete or absent."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(path)


def host_settings(host: Host) -> dict[str, str]:
    """What a host computes with, for settings."""
    return {"dtype": str(host.model.dtype).removeprefix("torch."), "device": str(host.device)}


def codebook_settings(codebook: Codebook | None) -> dict[str, Any]:
    """Which codebook and recipe, for settings."""
    return {
        "codebook": codebook and codebook.identity,
        "recipe": codebook and codebook.named_recipe("default").model_dump(),
    }


def check_names(chosen: Iterable[str], known: Iterable[str], kind: str) -> None:
    """Refuse names that there are not.

    Raises:
        InputError: A name is unknown.
    """
    listed = list(known)
    for name in chosen:
        if name not in listed:
            raise InputError(f"There is no {kind} {name!r}; choose from {', '.join(listed)}.")


def text_digest(text: str) -> str:
    """A short hash that identifies a text."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def files_digest(files: Sequence[Path], questions: object) -> str:
    """A hash that identifies the content of files and the questions asked about them."""
    digest = hashlib.blake2b(repr(questions).encode(), digest_size=16)
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def machine() -> dict[str, Any]:
    """Processor, accelerator and system, as JSON values."""
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def versions(*names: str) -> dict[str, str]:
    """Versions of distributions; of all that take part in `quality` if none is named."""
    return {name: installed_version(name) or "not installed" for name in names or _PACKAGES}


def installed_version(distribution: str) -> str | None:
    """Version of a distribution; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
