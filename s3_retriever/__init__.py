"""S3: any Hugging Face transformer as its own retriever."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from s3_retriever.document import Document
from s3_retriever.errors import CodebookError, HostError, IndexStoreError, InputError, S3Error
from s3_retriever.recipe import (
    CoverageRecipe,
    DocumentRecipe,
    Recipe,
    SecondHop,
    SentenceRecipe,
    TapRecipe,
)

if TYPE_CHECKING:
    from s3_retriever.answer import Answer, LongContext, ScannedContext
    from s3_retriever.calibration import Calibration, Evidence, LabelledQuestion, calibrate
    from s3_retriever.codebook import Codebook
    from s3_retriever.engine import Compressor, S3Index
    from s3_retriever.host import Host
    from s3_retriever.host.taps import Tap
    from s3_retriever.sae import TopKSAE
    from s3_retriever.search import Explanation, Span

__version__ = version("s3-retriever")

__all__ = [
    "Answer",
    "Calibration",
    "Codebook",
    "CodebookError",
    "Compressor",
    "CoverageRecipe",
    "Document",
    "DocumentRecipe",
    "Evidence",
    "Explanation",
    "Host",
    "HostError",
    "IndexStoreError",
    "InputError",
    "LabelledQuestion",
    "LongContext",
    "Recipe",
    "S3Error",
    "S3Index",
    "ScannedContext",
    "SecondHop",
    "SentenceRecipe",
    "Span",
    "Tap",
    "TapRecipe",
    "TopKSAE",
    "__version__",
    "calibrate",
]

# These import torch and transformers, which takes seconds; they are imported when first used.
_LAZY = {
    "Answer": "s3_retriever.answer",
    "Calibration": "s3_retriever.calibration",
    "Codebook": "s3_retriever.codebook",
    "Compressor": "s3_retriever.engine",
    "Evidence": "s3_retriever.calibration",
    "Explanation": "s3_retriever.search",
    "Host": "s3_retriever.host",
    "LabelledQuestion": "s3_retriever.calibration",
    "LongContext": "s3_retriever.answer",
    "S3Index": "s3_retriever.engine",
    "ScannedContext": "s3_retriever.answer",
    "Span": "s3_retriever.search",
    "Tap": "s3_retriever.host.taps",
    "TopKSAE": "s3_retriever.sae",
    "calibrate": "s3_retriever.calibration",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
