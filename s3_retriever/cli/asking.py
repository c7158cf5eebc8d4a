"""`s3 ask`: files searched at once, with no index left behind."""

from __future__ import annotations

from s3_retriever.cli import options
from s3_retriever.cli.files import find_files
from s3_retriever.cli.intake import Counts, documents
from s3_retriever.cli.loading import create_index
from s3_retriever.cli.searching import give
from s3_retriever.errors import InputError


def ask(
    question: options.Question,
    paths: options.Paths,
    host: options.HostName = None,
    codebook: options.CodebookName = None,
    k: options.Spans = None,
    budget: options.Budget = None,
    mode: options.ModeName = options.Mode.hybrid,
    device: options.Device = "auto",
    dtype: options.DtypeName = options.Dtype.auto,
    as_json: options.AsJson = False,
) -> None:
    """Search files at once, without keeping an index.

    Exit code 3 says that nothing was found.
    """
    files = find_files(paths)
    texts = list(documents(files, Counts()))
    if not texts:
        raise InputError(f"None of the {len(files)} files could be read.")
    with create_index(None, host, codebook, None, device, dtype) as index:
        index.add(texts)
        give(question, index.search(question, k, mode=mode.value, token_budget=budget), as_json)
