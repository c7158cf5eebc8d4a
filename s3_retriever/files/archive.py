"""Zip archives of documents, opened within bounds."""

from __future__ import annotations

from io import BytesIO
from zipfile import BadZipFile, ZipFile

from s3_retriever.files.content import UnreadableError

# Of all files in an archive, unpacked. Small files can unpack to any size otherwise.
MAX_UNPACKED_BYTES = 1 << 28


def open_archive(data: bytes) -> ZipFile:
    """Open a zip archive.

    Raises:
        UnreadableError: It is none, is encrypted, or unpacks to too much.
    """
    try:
        archive = ZipFile(BytesIO(data))
    except (BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        # Old Word files and Office files with a password are of this other format.
        if data.startswith(b"\xd0\xcf\x11\xe0"):
            raise UnreadableError(
                "it has a password or is of an old format; save it again without one."
            ) from None
        raise UnreadableError(f"it is damaged ({error}); save it again.") from None
    members = archive.infolist()
    if sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
        raise UnreadableError(
            f"it unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB; split it up."
        )
    if any(member.flag_bits & 1 for member in members):
        raise UnreadableError("it is encrypted; remove its password.")
    return archive
