"""S3: any Hugging Face transformer as its own retriever."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s3_retriever.adapters import SailsReport, sails_init
    from s3_retriever.answer import Answer, Citation, LongContext, ScannedContext
    from s3_retriever.calibration import (
        Calibration,
        GoldSpan,
        LabelledQuestion,
        TapChoice,
        calibrate,
        choose_taps,
    )
    from s3_retriever.codebook import Codebook
    from s3_retriever.document import Document
    from s3_retriever.engine import (
        Compressor,
        S3Index,
        export_index,
        merge_indexes,
        new_index,
        question_vectors,
        split_index,
    )
    from s3_retriever.errors import (
        CodebookError,
        HostError,
        IndexStoreError,
        InputError,
        S3Error,
        ServerError,
    )
    from s3_retriever.files import read_files
    from s3_retriever.host import Host
    from s3_retriever.host.taps import Tap
    from s3_retriever.kv import AtomCache, KVCodebook
    from s3_retriever.recipe import (
        Advanced,
        DocumentBoost,
        FeatureAttention,
        FeatureCoverage,
        HeadsRecipe,
        Interleave,
        MaxToken,
        Recipe,
        Redundancy,
        RelevanceRecipe,
        SecondHop,
        SentenceRecipe,
        TapRecipe,
        ZScore,
    )
    from s3_retriever.sae import TopKSAE, load_sae
    from s3_retriever.search import DocumentResult, Explanation, Firings, Heat, Span
    from s3_retriever.server.client import RemoteIndex
    from s3_retriever.turns import Turn, conversation

    __version__: str

# The module of each public name. All are imported when first used: torch and transformers take
# seconds, and most programs need few of these names.
_MODULES = {
    "Advanced": "recipe",
    "Answer": "answer",
    "AtomCache": "kv",
    "Calibration": "calibration",
    "Citation": "answer",
    "Codebook": "codebook",
    "CodebookError": "errors",
    "Compressor": "engine",
    "Document": "document",
    "DocumentBoost": "recipe",
    "DocumentResult": "search",
    "Explanation": "search",
    "FeatureAttention": "recipe",
    "FeatureCoverage": "recipe",
    "HeadsRecipe": "recipe",
    "Firings": "search",
    "GoldSpan": "calibration",
    "Heat": "search",
    "Host": "host",
    "HostError": "errors",
    "IndexStoreError": "errors",
    "InputError": "errors",
    "KVCodebook": "kv",
    "Interleave": "recipe",
    "LabelledQuestion": "calibration",
    "LongContext": "answer",
    "MaxToken": "recipe",
    "Recipe": "recipe",
    "Redundancy": "recipe",
    "RelevanceRecipe": "recipe",
    "RemoteIndex": "server.client",
    "S3Error": "errors",
    "S3Index": "engine",
    "SailsReport": "adapters",
    "ScannedContext": "answer",
    "SecondHop": "recipe",
    "SentenceRecipe": "recipe",
    "ServerError": "errors",
    "Span": "search",
    "Tap": "host.taps",
    "TapChoice": "calibration",
    "TapRecipe": "recipe",
    "TopKSAE": "sae",
    "Turn": "turns",
    "ZScore": "recipe",
    "calibrate": "calibration",
    "choose_taps": "calibration",
    "conversation": "turns",
    "export_index": "engine",
    "load_sae": "sae",
    "merge_indexes": "engine",
    "new_index": "engine",
    "question_vectors": "engine",
    "read_files": "files",
    "sails_init": "adapters",
    "split_index": "engine",
}

__all__ = [
    "Advanced",
    "Answer",
    "AtomCache",
    "Calibration",
    "Citation",
    "Codebook",
    "CodebookError",
    "Compressor",
    "Document",
    "DocumentBoost",
    "DocumentResult",
    "Explanation",
    "FeatureAttention",
    "FeatureCoverage",
    "Firings",
    "GoldSpan",
    "HeadsRecipe",
    "Heat",
    "Host",
    "HostError",
    "IndexStoreError",
    "InputError",
    "Interleave",
    "KVCodebook",
    "LabelledQuestion",
    "LongContext",
    "MaxToken",
    "Recipe",
    "Redundancy",
    "RelevanceRecipe",
    "RemoteIndex",
    "S3Error",
    "S3Index",
    "SailsReport",
    "ScannedContext",
    "SecondHop",
    "SentenceRecipe",
    "ServerError",
    "Span",
    "Tap",
    "TapChoice",
    "TapRecipe",
    "TopKSAE",
    "Turn",
    "ZScore",
    "__version__",
    "calibrate",
    "choose_taps",
    "conversation",
    "export_index",
    "load_sae",
    "merge_indexes",
    "new_index",
    "question_vectors",
    "read_files",
    "sails_init",
    "split_index",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("s3-retriever")
    elif name in _MODULES:
        value = getattr(import_module(f"s3_retriever.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
