"""Comparing the files of an index with the checksums in its manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from s3_retriever.errors import IndexStoreError
from s3_retriever.index.files import checksum, damaged
from s3_retriever.index.manifest import FileEntry, SegmentEntry
from s3_retriever.index.tables import BLOCKS_FILE, DOCUMENTS_FILE, SENTENCES_FILE
from s3_retriever.paths import regular_size
from s3_retriever.progress import progress_bar

SEGMENT_FOLDERS = "segment-*"
_TABLES = (DOCUMENTS_FILE, SENTENCES_FILE, BLOCKS_FILE)


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying an intact index.

    Attributes:
        files: Number of files; on disk that includes the manifest.
        bytes: Their size without the manifest.
        strangers: Files and folders that do not belong to the index, in or beside the folders of
            segments: paths relative to the folder of the index.
    """

    files: int
    bytes: int
    strangers: tuple[str, ...]


def find_damage(
    path: Path, segments: Sequence[SegmentEntry], *, progress: bool = False
) -> dict[Path, str]:
    """Read every file of segments and compare it with its checksum.

    Args:
        path: Folder of the index.
        segments: Their entries in the manifest.
        progress: Whether a bar shows how far it is (only in a terminal).

    Returns:
        What is wrong with each file that is missing or damaged.
    """
    problems: dict[Path, str] = {}
    with progress_bar(
        progress, total=_size(segments), unit="B", unit_scale=True, desc="Verifying"
    ) as bar:
        for file, entry in named_files(path, segments).items():
            if problem := _problem(file, entry, bar.update):
                problems[file] = problem
    return problems


def refuse_damage(path: Path, problems: Mapping[Path, str]) -> None:
    """Raise one error that names all damaged files, if there are any.

    Raises:
        IndexStoreError: A file is damaged.
    """
    if len(problems) == 1:
        raise damaged(*next(iter(problems.items())))
    if problems:
        listed = "; ".join(
            f"{file.relative_to(path).as_posix()}: {problem}" for file, problem in problems.items()
        )
        raise IndexStoreError(
            f"{len(problems)} files of the index at {path} are damaged ({listed}); restore the "
            "index from a copy or build it again."
        )


def intact(path: Path, segments: Sequence[SegmentEntry]) -> Verification:
    """The verification of undamaged segments."""
    return Verification(
        files=1 + len(named_files(path, segments)),
        bytes=_size(segments),
        strangers=_strangers(path, segments),
    )


def named_files(path: Path, segments: Sequence[SegmentEntry]) -> dict[Path, FileEntry]:
    """All files of segments."""
    return {
        path / segment.name / name: entry
        for segment in segments
        for name, entry in segment.files.items()
    }


def check_files(folder: Path, entry: SegmentEntry, known: SegmentEntry | None) -> None:
    """Check the sizes of a segment's files and the checksums of its tables.

    Every search reads the tables whole, and comparing them costs little. Other files are read in
    small parts, which have checksums of their own or are checked as they are read.

    Args:
        folder: The segment's folder.
        entry: Its entry in the manifest.
        known: An entry whose files have been checked already.

    Raises:
        IndexStoreError: A file is missing or damaged.
    """
    checked = known.files if known else {}
    tables = {*_TABLES, entry.tombstones} - {None}
    for name in sorted(filter(None, tables - entry.files.keys())):
        raise damaged(folder / name, "the manifest does not name it")
    for name, file in entry.files.items():
        if checked.get(name) != file and (
            problem := _problem(folder / name, file, compare=name in tables)
        ):
            raise damaged(folder / name, problem)


def _problem(
    path: Path,
    file: FileEntry,
    advance: Callable[[int], object] | None = None,
    *,
    compare: bool = True,
) -> str | None:
    """What is wrong with a file's size and, with `compare`, its content; None if nothing is."""
    try:
        size = regular_size(path)
        if size != file.bytes:
            return f"it has {size} bytes, not {file.bytes}"
        if compare and checksum(path, advance) != file.sha256:
            return "its content does not match its checksum"
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:
        return f"reading it failed: {error.strerror or error}"
    return None


def _size(segments: Sequence[SegmentEntry]) -> int:
    return sum(file.bytes for segment in segments for file in segment.files.values())


def _strangers(path: Path, segments: Sequence[SegmentEntry]) -> tuple[str, ...]:
    names = {segment.name for segment in segments}
    strangers = [folder for folder in path.glob(SEGMENT_FOLDERS) if folder.name not in names]
    for segment in segments:
        # A segment that was merged away meanwhile has no strangers.
        with suppress(FileNotFoundError):
            items = (path / segment.name).glob("*")
            strangers += [item for item in items if item.name not in segment.files]
    return tuple(sorted(item.relative_to(path).as_posix() for item in strangers))
