"""`merge_indexes` and `split_index`: indexes become one, and one several, without a host."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from s3_retriever.engine.origin import Origin
from s3_retriever.errors import IndexStoreError, InputError
from s3_retriever.index import Snapshot, Store
from s3_retriever.index.copying import Part, write_index
from s3_retriever.remote import local_path
from s3_retriever.types import check_count, shown


def merge_indexes(paths: Iterable[str | Path], path: str | Path, *, progress: bool = True) -> Path:
    """Make one index of several by copying; no document is scanned again.

    The new index has the documents of the first, then those of the second, and so on. Searches
    find in it what they would find if all documents had been added to one index. Those it was
    made of stay as they are.

    Args:
        paths: Folders of indexes with the same host, codebook, recipe and text analysis.
        path: Folder of the new index, empty or new.
        progress: Whether bars show how far it is (only in a terminal).

    Returns:
        The folder of the new index.

    Raises:
        InputError: There are no indexes, or two have a document with the same id.
        IndexStoreError: An index is missing, damaged, or made differently, or `path` is in use or
            cannot be written.
    """
    if isinstance(paths, (str, Path)) or not isinstance(paths, Iterable):
        raise InputError(f"The indexes to merge must be a list of paths, not {shown(paths)}.")
    folders = [local_path(each, "path of an index") for each in paths]
    target = local_path(path)
    if not folders:
        raise InputError("There is nothing to merge; name at least one index.")
    stores = [Store.open(folder) for folder in folders]
    check_alike(stores)
    snapshots = [store.snapshot() for store in stores]
    _check_ids(folders, snapshots)
    snapshots = [store.intact(progress=progress) for store in stores]
    parts = [Part(segment) for snapshot in snapshots for segment in snapshot.segments]
    like = stores[0].manifest
    write_index(target, like.origin, like.text_analysis, parts, progress=progress)
    return target


def split_index(
    path: str | Path, into: int | Iterable[str | Path], *, progress: bool = True
) -> list[Path]:
    """Make several indexes of one by copying; no document is scanned again.

    Each gets a run of the documents, in order and of about as many tokens. Merging them gives the
    same index again. The index that is split stays as it is.

    Args:
        path: Folder of the index.
        into: Folders of the new indexes, empty or new; or how many to make beside the index, with
            a number after its name: `handbook-1.s3r`, `handbook-2.s3r`.
        progress: Whether bars show how far it is (only in a terminal).

    Returns:
        The folders of the new indexes.

    Raises:
        InputError: There are fewer documents than new indexes.
        IndexStoreError: The index is missing or damaged, or a folder is in use or cannot be
            written; then none of the new indexes is there.
    """
    source = local_path(path)
    store = Store.open(source)
    targets = _targets(source, into, store.snapshot().n_documents)
    snapshot = store.intact(progress=progress)
    like, made = store.manifest, list[Path]()
    try:
        for target, parts in zip(targets, _runs(snapshot, len(targets)), strict=True):
            write_index(target, like.origin, like.text_analysis, parts, progress=progress)
            made.append(target)
    except BaseException:
        for target in made:
            shutil.rmtree(target.resolve(), ignore_errors=True)
        raise
    return targets


def check_alike(stores: Sequence[Store]) -> None:
    """Refuse indexes that were not made in the same way.

    Raises:
        IndexStoreError: Host, codebook, recipe or text analysis of one differ from the first's.
    """
    origins = [Origin.read(store) for store in stores]
    first, *others = zip(stores, origins, strict=True)
    for store, origin in others:
        different = first[1].differences(origin)
        if store.manifest.text_analysis != first[0].manifest.text_analysis:
            different.append("text analysis")
        if different:
            raise IndexStoreError(
                f"The indexes at {first[0].path} and {store.path} were made with another "
                f"{' and another '.join(different)}; index the documents of one of them again "
                "with what the other was made with."
            )


def _check_ids(folders: Sequence[Path], snapshots: Sequence[Snapshot]) -> None:
    """Refuse a document that two indexes have."""
    owners: dict[str, Path] = {}
    for folder, snapshot in zip(folders, snapshots, strict=True):
        for document_id in snapshot.ids():
            if document_id in owners:
                raise InputError(
                    f"Document {document_id!r} is in {owners[document_id]} and in {folder}; "
                    "delete it from one of them."
                )
            owners[document_id] = folder


def _targets(source: Path, into: int | Iterable[str | Path], documents: int) -> list[Path]:
    """The folders of new indexes, no more than there are documents.

    Raises:
        InputError: They cannot be used, or are too many.
        IndexStoreError: One is in use.
    """
    if isinstance(into, (str, Path)):
        raise InputError(
            f"Say how many indexes to make, or their folders in a list, not {shown(into)}."
        )
    if isinstance(into, Iterable):
        targets = [local_path(each, "path of an index") for each in into]
    else:
        # A name such as `.` has no place for a number.
        named = source if source.name.strip(".") else source.resolve()
        numbers = range(1, min(check_count(into, "number of indexes"), documents + 1) + 1)
        targets = [named.with_name(f"{named.stem}-{n}{named.suffix}") for n in numbers]
    if len(targets) > documents:
        raise InputError(
            f"The index at {source} has {documents} documents, too few for so many indexes; make "
            "fewer."
        )
    if not targets:
        raise InputError("There is nothing to split into; name at least one new index.")
    if len({target.absolute() for target in targets}) < len(targets):
        raise InputError("A folder is named twice; each new index needs its own.")
    for target in targets:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise IndexStoreError(f"{target} is in use; choose empty or new folders.")
    return targets


def _runs(snapshot: Snapshot, n: int) -> list[list[Part]]:
    """The live documents in n runs of about as many tokens, none of them empty."""
    tokens = [segment.documents["n_tokens"].astype(np.int64) for segment in snapshot.segments]
    live = [segment.live_documents() for segment in snapshot.segments]
    sizes = np.concatenate([of[some] for of, some in zip(tokens, live, strict=True)])
    # A document counts as a token more, or those without any would all go to the last run.
    ends = np.cumsum(sizes + 1)
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, n) / n)
    # Each run takes at least one document, and leaves one for each run after it.
    places = np.arange(1, n)
    cuts = np.maximum.accumulate(np.maximum(cuts + 1, places) - places) + places
    cuts = np.minimum(cuts, len(sizes) - n + places)
    bounds = [0, *cuts.tolist(), len(sizes)]
    runs = []
    for first, end in pairwise(bounds):
        parts, before = [], 0
        for segment, ordinals in zip(snapshot.segments, live, strict=True):
            chosen = np.zeros(segment.n_documents, dtype=np.bool_)
            chosen[ordinals[max(first - before, 0) : max(end - before, 0)]] = True
            if chosen.any():
                parts.append(Part(segment, chosen))
            before += len(ordinals)
        runs.append(parts)
    return runs
