"""Errors that a user can mend. Each carries one sentence: what was wrong and what to do."""

# Characters of other libraries' messages that are kept.
_LONGEST = 200


class S3Error(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        message: One sentence. What acts on a terminal, such as control characters in the name of
            a file or in an id, is escaped.
    """

    def __init__(self, message: object) -> None:
        super().__init__(
            "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(message))
        )


def brief(problem: object) -> str:
    """What another library says was wrong, as a part of a sentence: on one line and not long."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class InputError(S3Error, ValueError):
    """An argument, a document or a question that cannot be used as it is."""


class HostError(S3Error):
    """A host model that cannot be found, loaded or tapped."""


class CodebookError(S3Error):
    """A codebook that is missing, damaged or made for another host."""


class IndexStoreError(S3Error):
    """An index on disk that is missing, damaged, locked, or of another host, codebook or schema."""


class ServerError(S3Error):
    """A server that cannot be reached, is busy, or refuses a request."""


class IndexLockedError(IndexStoreError):
    """An index that another writer is changing; it can be changed when that one is done."""
