"""The public surface: what `from s3_retriever import ...` gives, and what it loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import s3_retriever
from s3_retriever import Document, S3Index

PUBLIC = {
    "Advanced", "Answer", "AtomCache", "Calibration", "Citation", "Codebook", "CodebookError",
    "Compressor", "Document", "DocumentBoost", "DocumentResult",
    "Explanation", "FeatureAttention", "FeatureCoverage", "Firings",
    "GoldSpan", "HeadsRecipe", "Heat", "Host", "HostError", "IndexStoreError", "InputError",
    "Interleave", "KVCodebook", "LabelledQuestion", "LongContext", "MaxToken", "Recipe",
    "Redundancy", "RelevanceRecipe", "RemoteIndex", "S3Error", "S3Index", "SailsReport",
    "ScannedContext", "SecondHop", "SentenceRecipe", "ServerError", "Span", "Tap", "TapChoice",
    "TapRecipe", "TopKSAE", "Turn", "ZScore", "__version__", "calibrate", "choose_taps",
    "conversation", "export_index", "load_sae", "merge_indexes", "new_index", "question_vectors",
    "read_files", "sails_init", "split_index",
}  # fmt: skip


def loaded_by(code: str, *arguments: object) -> set[str]:
    """The packages that a fresh interpreter has loaded after some code."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return set(printed.splitlines()[-1].split())


def test_public_names_are_these_and_exist():
    assert set(s3_retriever.__all__) == PUBLIC
    assert all(getattr(s3_retriever, name) is not None for name in PUBLIC)


def test_importing_the_package_loads_no_library():
    loaded = loaded_by("import s3_retriever")
    assert loaded.isdisjoint({"numba", "numpy", "pydantic", "torch", "transformers"})


@pytest.mark.parametrize("room", ["index", "search"])
def test_index_and_search_load_no_model_library(room):
    loaded = loaded_by(f"import s3_retriever.{room}")
    assert loaded.isdisjoint({"safetensors", "torch", "transformers"})


def test_an_index_is_opened_and_searched_by_bm25_without_a_model_library(
    tmp_path, tiny_bert, tiny_codebook
):
    path = tmp_path / "boats.s3r"
    with S3Index.create(path, str(tiny_bert), codebook=tiny_codebook, device="cpu") as index:
        index.add([Document("The old captain paints seven boats.", "boats")], progress=False)
    loaded = loaded_by(
        """
import sys
from s3_retriever import S3Index
with S3Index.open(sys.argv[1]) as index:
    spans = index.search("captain", mode="bm25")
assert [span.document_id for span in spans] == ["boats"]
""",
        path,
    )
    assert loaded.isdisjoint({"safetensors", "torch", "transformers"})
