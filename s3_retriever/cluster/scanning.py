"""`Scanner`: the worker of a build, which scans blocks with a host of its own."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ray

from s3_retriever.cluster.blocks import Block, BlockFolder, digest
from s3_retriever.engine.hosting import find_codebook, shared_host
from s3_retriever.engine.origin import Origin
from s3_retriever.errors import IndexStoreError
from s3_retriever.recipe import Recipe
from s3_retriever.text import TEXT_ANALYSIS

if TYPE_CHECKING:
    from s3_retriever.encoder import Encoder


class Job(NamedTuple):
    """What the workers of a build have in common.

    Attributes:
        path: Folder of the index.
        witness: A file that the driver made there.
        host: Name of the host.
        codebook: Name of the codebook; None for the host's own.
        recipe: How documents are indexed.
        options: For `Host.load`.
        threads: Threads of a worker.
    """

    path: Path
    witness: str
    host: str
    codebook: str | None
    recipe: str | Recipe
    options: dict[str, Any]
    threads: int


class Scanner:
    """Scans blocks; the host is loaded once, when it is first needed.

    Args:
        job: What to do.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._folder = BlockFolder(job.path)
        self._encoder: Encoder | None = None
        self._scanned = 0

    def origin(self) -> Origin:
        """How this worker scans documents.

        Raises:
            S3Error: Host or codebook cannot be loaded, or the folder is not the driver's.
        """
        encoder, recipe = self._loaded()
        return Origin.of(encoder, recipe, self._job.codebook)

    def scan(self, block: Block) -> None:
        """Scan a block and write it to the folder, unless it is there.

        Raises:
            S3Error: A document cannot be used, or the block cannot be written.
        """
        encoder, recipe = self._loaded()
        origin = self.origin()
        if digest(block.documents, origin) != block.name:
            raise IndexStoreError(
                f"The machine {platform.node()} has another host, codebook or version of the text "
                "analysis than the first worker; install the same on all machines."
            )
        self._scanned = 0
        if self._folder.finished(block.name) is not None:
            return
        with (
            self._folder.draft(block.name, origin) as store,
            store.append(encoder.layout(recipe), text_analysis=TEXT_ANALYSIS) as writer,
        ):
            before = 0
            for chunk in encoder.documents(block.documents, recipe):
                writer.add(chunk)
                reached = int(chunk.starts[-1]) if len(chunk.starts) else 0
                self._scanned = before + reached
                if chunk.last:
                    before += len(chunk.document.text)

    @ray.method(concurrency_group="progress")
    def scanned(self) -> int:
        """How many characters of the block at hand are scanned; called while it is."""
        return self._scanned

    def _loaded(self) -> tuple[Encoder, Recipe]:
        import torch

        from s3_retriever.encoder import Encoder

        job = self._job
        self._folder.check_shared(job.witness, platform.node())
        if self._encoder is None:
            torch.set_num_threads(job.threads)
            codebook = find_codebook(job.host, job.codebook)
            host = shared_host(job.host, codebook, job.options)
            self._encoder = Encoder(host, codebook)
        return self._encoder, self._encoder.named_recipe(job.recipe)
