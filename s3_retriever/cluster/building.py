"""`build`: many workers scan documents into one index, as one process would have made it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import ray

from s3_retriever.cluster.blocks import Block, BlockFolder, cut
from s3_retriever.cluster.reading import Source, documents_of, is_dataset
from s3_retriever.cluster.scanning import Job, Scanner
from s3_retriever.cluster.session import start_ray
from s3_retriever.document import Document
from s3_retriever.engine.hosting import host_name
from s3_retriever.engine.origin import Origin
from s3_retriever.engine.s3index import S3Index
from s3_retriever.errors import IndexStoreError, InputError, S3Error, brief
from s3_retriever.index import Store
from s3_retriever.index.backends import check_free
from s3_retriever.index.copying import Part, copy_parts, write_index
from s3_retriever.index.manifest import MANIFEST_NAME
from s3_retriever.paths import lasting
from s3_retriever.progress import Bar, progress_bar
from s3_retriever.recipe import Recipe
from s3_retriever.remote import local_path
from s3_retriever.text import TEXT_ANALYSIS
from s3_retriever.types import check_count, check_flag, check_source, shown

# Some minutes of a CPU: the most that the death of a worker costs.
BLOCK_CHARACTERS = 500_000
# How often a block is begun again after its worker died, as machines that are lent may be taken
# away now and then.
_RETRIES = 25
_TICK_SECONDS = 1.0


def build(
    documents: Source,
    path: str | Path,
    host: str = "minilm",
    *,
    codebook: str | Path | None = None,
    recipe: str | Recipe = "default",
    workers: int | None = None,
    threads: int = 1,
    gpus: float = 0,
    block_characters: int = BLOCK_CHARACTERS,
    progress: bool = True,
    **host_options: Any,
) -> S3Index:
    """Scan documents with many workers into an index, the one that a single process would make.

    Documents are cut into blocks. Each worker is a Ray actor with its own host, scans one block
    after another and writes it to a folder of the index that no reader looks into. When all
    blocks are there, one commit adds their documents to the index, in order. After a crash or an
    interruption, the same call continues: finished blocks are not scanned again.

    Args:
        documents: A Ray dataset with a column `text` (and `id`, `metadata`, `unit`), a path or a
            URL as in `read_documents`, or documents and plain texts from a list or an iterator.
        path: Folder of the index, new or existing, which all machines of the cluster share.
        host: Name of the host, which every worker loads.
        codebook: Name of the host's codebook, as in `S3Index.create`.
        recipe: As in `S3Index.create`.
        workers: Number of workers; as many as the cluster has room for by default.
        threads: CPU threads of a worker.
        gpus: GPUs of a worker; 0.5 lets two share one.
        block_characters: Size of a block; a resumed build needs the same.
        progress: Whether a terminal shows a bar.
        host_options: For `Host.load`, such as `dtype="float32"`.

    Returns:
        The index.

    Raises:
        InputError: A document cannot be used, two have the same id, or the cluster has no room
            for the workers.
        HostError: The host cannot be loaded.
        CodebookError: There is no codebook for it.
        IndexStoreError: Another build is at work on `path`, not all machines see it, a block is
            damaged, or the disk refuses.
    """
    folder = local_path(path).absolute()
    named = host_name(host)
    if not isinstance(named, str):
        raise InputError("Workers load the host themselves; give its name, not a loaded one.")
    job = Job(
        folder,
        "",
        lasting(named),
        None if codebook is None else lasting(check_source(codebook, "codebook")),
        recipe,
        host_options,
        check_count(threads, "threads"),
    )
    characters = check_count(block_characters, "block_characters")
    visible = check_flag(progress, "progress")
    if workers is not None:
        workers = check_count(workers, "workers")
    if isinstance(gpus, bool) or not isinstance(gpus, (int, float)) or not 0 <= gpus < math.inf:
        raise InputError(f"gpus must be a number of at least 0, not {shown(gpus)}.")
    stream = documents_of(documents)
    if not (folder / MANIFEST_NAME).exists():
        check_free(folder)
    start_ray()
    # Ray Data reads in tasks of its own, which would wait for ever if workers had all CPUs.
    workers = _room(workers, job.threads, gpus, reserve=int(is_dataset(documents)))
    blocks = BlockFolder(folder)
    with blocks.reserved(), blocks.witness() as witness:
        with (
            progress_bar(visible, unit="char", unit_scale=True, desc="Scanning") as bar,
            _Pool(job._replace(witness=witness), workers, gpus, blocks, bar) as pool,
        ):
            origin = pool.origin()
            existing = _existing(folder, origin)
            todo = cut(_each_once(stream), characters, origin)
            names = pool.scan(block for block in todo if not _is_committed(block, blocks, existing))
        _commit(folder, origin, existing, blocks, names, visible)
        blocks.remove()
    return S3Index.open(folder, job.host, codebook=job.codebook, **host_options)


def _room(workers: int | None, threads: int, gpus: float, reserve: int) -> int:
    """How many workers to start.

    Raises:
        InputError: The cluster has no room for them.
    """
    cluster: Any = ray
    total = cluster.cluster_resources()
    room = int((total.get("CPU", 0) - reserve) // threads)
    if gpus:
        room = min(room, int(total.get("GPU", 0) / gpus))
    if room < (workers or 1):
        of = f"{threads} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        beside = ", beside a CPU that reads the dataset" if reserve else ""
        raise InputError(
            f"The cluster has room for {room} workers of {of} each{beside}, not for "
            f"{workers or 1}; ask for fewer, or add machines."
        )
    return workers or room


def _existing(folder: Path, origin: Origin) -> Store | None:
    """The index that documents are added to, if there is one.

    Raises:
        IndexStoreError: It was made differently.
    """
    if not (folder / MANIFEST_NAME).exists():
        return None
    store = Store.open(folder)
    different = Origin.read(store).differences(origin)
    if store.manifest.text_analysis != TEXT_ANALYSIS:
        different.append("text analysis")
    if different:
        raise IndexStoreError(
            f"The index at {folder} was made with another {' and another '.join(different)}; "
            "build with the same, or on another path."
        )
    return store


def _each_once(documents: Iterable[Document]) -> Iterator[Document]:
    """Pass documents on.

    Raises:
        InputError: Two have the same id.
    """
    # Some hundred bytes for each document are all that the driver keeps of it.
    seen: set[bytes] = set()
    for document in documents:
        key = blake2b(document.id.encode(), digest_size=16).digest()
        if key in seen:
            raise InputError(
                f"Two documents have the id {document.id!r}; give one of them another id. Blocks "
                "that are finished are kept for the next call."
            )
        seen.add(key)
        yield document


def _is_committed(block: Block, blocks: BlockFolder, existing: Store | None) -> bool:
    """Whether a block is in the index, added by a build that ended before it removed its blocks.

    Raises:
        InputError: The index has a document with the same id as one of the block.
    """
    if existing is None:
        return False
    snapshot = existing.snapshot()
    known = [document.id for document in block.documents if document.id in snapshot]
    if known and (len(known) < len(block.documents) or blocks.finished(block.name) is None):
        raise taken_id(known[0], existing.path)
    return bool(known)


def taken_id(document_id: str, path: Path | None) -> InputError:
    """The error for a document whose id the index has."""
    return InputError(
        f"The index at {path} has a document {document_id!r} already; give another id, or delete "
        "that one first. Blocks that are finished are kept for the next call."
    )


class _Pool:
    """The workers of a build.

    A worker that dies is started again by Ray, and so is the block that it was at.

    Args:
        job: What they do.
        size: How many.
        gpus: GPUs of each.
        blocks: Where they write.
        bar: Shows how far they are.
    """

    def __init__(self, job: Job, size: int, gpus: float, blocks: BlockFolder, bar: Bar) -> None:
        remote: Any = ray.remote(concurrency_groups={"progress": 1})  # type: ignore[call-overload]
        scanner = remote(Scanner).options(
            num_cpus=job.threads, num_gpus=gpus, max_restarts=-1, max_task_retries=_RETRIES
        )
        self._blocks, self._bar = blocks, bar
        self._actors: list[Any] = [scanner.remote(job) for _ in range(size)]
        self._idle: list[Any] = []
        # What each worker is at; no block while it loads the host.
        self._tasks: dict[Any, tuple[Any, Block | None]] = {
            actor.origin.remote(): (actor, None) for actor in self._actors
        }
        self._asked: dict[Any, Any] = {}
        self._scanned: dict[Any, int] = {}
        self._done = 0
        self._origin: Origin | None = None

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def origin(self) -> Origin:
        """How the workers scan documents, as soon as the first of them has its host."""
        while self._origin is None:
            self._wait()
        return self._origin

    def scan(self, blocks: Iterable[Block]) -> list[str]:
        """Scan blocks, as many at a time as there are workers.

        Returns:
            The names of the blocks, all of which are finished.

        Raises:
            KeyboardInterrupt: With a sentence that says what is kept.
        """
        names = []
        try:
            for block in blocks:
                names.append(block.name)
                if self._blocks.finished(block.name) is not None:
                    self._finish(block)
                    continue
                while not self._idle:
                    self._wait()
                actor = self._idle.pop()
                self._tasks[actor.scan.remote(block)] = (actor, block)
            while any(block for _, block in self._tasks.values()):
                self._wait()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Finished blocks are kept; the same call continues.") from None
        return names

    def _wait(self) -> None:
        """Wait for a moment, or until a worker is done with something."""
        ready, _ = ray.wait(list(self._tasks), timeout=_TICK_SECONDS)
        for task in ready:
            actor, block = self._tasks.pop(task)
            result = _result(task, block)
            self._idle.append(actor)
            if block is not None:
                self._blocks.check_visible(block.name)
                self._scanned.pop(actor, None)
                self._finish(block)
            elif self._origin is None:
                self._origin = result
        self._show()

    def _finish(self, block: Block) -> None:
        self._done += block.characters
        self._bar.set_postfix_str(f"{block.number + 1:,} blocks")

    def _show(self) -> None:
        """Ask workers how far they are, and move the bar."""
        ready = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)[0]
        for answer in ready if self._asked else ():
            actor = self._asked.pop(answer)
            with suppress(ray.exceptions.RayError):  # it is being started again
                self._scanned[actor] = ray.get(answer)
        busy = [actor for actor, block in self._tasks.values() if block]
        asked = list(self._asked.values())
        for actor in busy:
            if actor not in asked:
                answer = actor.scanned.options(max_task_retries=0).remote()
                self._asked[answer] = actor
        reached = self._done + sum(self._scanned.get(actor, 0) for actor in busy)
        self._bar.update(max(reached - self._bar.n, 0))


def _result(task: Any, block: Block | None) -> Any:
    """What a worker returns.

    Raises:
        S3Error: What went wrong with it.
    """
    where = "while it loaded the host"
    if block is not None:
        first, last = block.documents[0].id, block.documents[-1].id
        where = f"at the block from document {first!r} to {last!r}"
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, S3Error):
            raise cause from None
        raise S3Error(
            f"A worker failed {where} ({type(cause).__name__}: {brief(cause)}); blocks that are "
            "finished are kept."
        ) from error
    except ray.exceptions.RayError as error:
        raise S3Error(
            f"A worker died {_RETRIES + 1} times {where}, probably for lack of memory "
            f"({type(error).__name__}); use fewer workers or smaller blocks. Blocks that are "
            "finished are kept: the same call continues."
        ) from error


def _commit(
    folder: Path,
    origin: Origin,
    existing: Store | None,
    blocks: BlockFolder,
    names: Sequence[str],
    progress: bool,
) -> None:
    """Copy blocks into the index, in order and all of them or none."""
    if existing is None:
        parts = (Part(segment) for name in names for segment in blocks.intact(name).segments)
        write_index(folder, origin.model_dump(), TEXT_ANALYSIS, parts, progress=progress)
    elif names:
        layout = blocks.intact(names[0]).segments[0].entry.layout
        with existing.append(layout, text_analysis=TEXT_ANALYSIS, progress=progress) as writer:
            copy_parts(writer, _new_parts(existing, blocks, names), progress=progress)


def _new_parts(existing: Store, blocks: BlockFolder, names: Sequence[str]) -> Iterator[Part]:
    """The segments of blocks.

    Raises:
        InputError: Someone else has added a document of theirs meanwhile.
    """
    snapshot = existing.snapshot()
    for name in names:
        for segment in blocks.intact(name).segments:
            for document_id in segment.ids():
                if document_id in snapshot:
                    raise taken_id(document_id, existing.path)
            yield Part(segment)
