"""Errors that a user can mend. Each carries one sentence: what was wrong and what to do."""


class S3Error(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(S3Error, ValueError):
    """An argument, a document or a question that cannot be used as it is."""


class HostError(S3Error):
    """A host model that cannot be found, loaded or tapped."""


class CodebookError(S3Error):
    """A codebook that is missing, damaged or made for another host."""


class IndexStoreError(S3Error):
    """An index on disk that is missing, damaged, locked, or of another host, codebook or schema."""
