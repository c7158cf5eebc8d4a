"""The public surface: what `from s3_retriever import ...` gives."""

from __future__ import annotations

import subprocess
import sys

import s3_retriever

PUBLIC = {
    "Answer", "Calibration", "Codebook", "CodebookError", "Compressor", "CoverageRecipe",
    "Document", "DocumentRecipe", "Evidence", "Explanation", "Host", "HostError", "IndexStoreError",
    "InputError", "LabelledQuestion", "LongContext", "Recipe", "S3Error", "S3Index",
    "ScannedContext", "SecondHop", "SentenceRecipe", "Span", "Tap", "TapRecipe", "TopKSAE",
    "__version__", "calibrate",
}  # fmt: skip


def test_public_names_are_these_and_exist():
    assert set(s3_retriever.__all__) == PUBLIC
    assert all(getattr(s3_retriever, name) is not None for name in PUBLIC)


def test_importing_loads_no_model_library():
    code = "import sys, s3_retriever; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
