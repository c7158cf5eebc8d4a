"""Object storage and other file systems that fsspec reaches by URL, such as `s3://bucket/path`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s3_retriever.errors import IndexStoreError, InputError, S3Error, brief
from s3_retriever.types import check_path, shown

# Also chained ones, such as `simplecache::s3://bucket`. A drive of Windows is a single letter.
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]+://")

# What a path makes of a URL.
_URL_AS_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\]")


def is_url(place: object) -> bool:
    """Whether a place is a URL rather than a path."""
    return isinstance(place, str) and _URL.match(place) is not None


def local_path(value: Any, name: str = "path") -> Path:
    """Check that a value is a path on this machine.

    Raises:
        InputError: It is a URL, or no path.
    """
    if is_url(value) or (isinstance(value, Path) and _URL_AS_PATH.match(str(value))):
        raise InputError(
            f"The {name} {shown(str(value))} is a URL, from which an index can only be read, by "
            "S3Index.open and commands that change nothing; name a folder here."
        )
    return check_path(value, name)


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there.

    Raises:
        S3Error: fsspec, or its driver for such URLs, is missing.
        IndexStoreError: The URL cannot be used.
    """
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise S3Error(
            f"{url} needs the library fsspec; install it with: pip install 's3-retriever[remote]'"
        ) from error
    scheme, colon, rest = url.partition("://")
    try:
        system, path = url_to_fs(scheme.lower() + colon + rest)
    except ImportError as error:
        raise S3Error(
            f"fsspec has no driver for {scheme}:// ({brief(error)}); install it, e.g. s3fs for "
            "s3://, gcsfs for gs:// or adlfs for abfs://."
        ) from error
    except Exception as error:
        raise _unreachable(url, error) from error
    return system, path.rstrip("/")


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn the errors of drivers, each of which has its own, into one sentence.

    Raises:
        IndexStoreError: Something is missing, forbidden or broken there.
    """
    try:
        yield
    except S3Error:
        raise
    except Exception as error:
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> IndexStoreError:
    what = "it is not there" if isinstance(error, FileNotFoundError) else brief(error)
    return IndexStoreError(
        f"{url} cannot be read ({what}); check the address, the bucket and your credentials."
    )
