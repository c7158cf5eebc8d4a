"""Question sets with labelled evidence, from files or by public name."""

from s3_retriever_bench.datasets.building import Choice, build_task
from s3_retriever_bench.datasets.files import read_files
from s3_retriever_bench.datasets.hub import PUBLIC, read_public
from s3_retriever_bench.datasets.labelled import QuestionSet
from s3_retriever_bench.datasets.split import Split, split_of

__all__ = [
    "PUBLIC",
    "Choice",
    "QuestionSet",
    "Split",
    "build_task",
    "load_set",
    "split_of",
]


def load_set(source: str) -> QuestionSet:
    """Load a question set.

    Args:
        source: A file (see `read_files`), or one of the names in `PUBLIC`.

    Raises:
        InputError: The file is missing or not of the form, or the public set is out of reach.
    """
    return read_public(source) if source in PUBLIC else read_files(source)
