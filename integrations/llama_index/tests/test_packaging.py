"""What is installed, and what importing it costs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import llama_index.retrievers.s3_attention as package

INTEGRATION = Path(__file__).parents[1]
CORE = INTEGRATION.parents[1]

_IMPORT = """
import sys
import llama_index.retrievers.s3_attention as package
heavy = {"torch", "transformers"} & sys.modules.keys()
assert not heavy, heavy
print(package.__file__)
"""
_RETRIEVE = """
import s3_retriever
from llama_index.core.schema import TextNode
from llama_index.retrievers.s3_attention import S3Retriever
print(s3_retriever.__file__)
nodes = [TextNode(text=text) for text in ("Lunch is at noon.", "Doors close at six.")]
retriever = S3Retriever.from_defaults(nodes=nodes, similarity_top_k=1)
print(retriever.retrieve("When do I eat?")[0].text)
"""


def run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=CORE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_public_names():
    assert sorted(package.__all__) == ["S3NodePostprocessor", "S3Retriever"]


def test_importing_loads_no_model_library():
    run(sys.executable, "-c", _IMPORT)


@pytest.mark.slow
@pytest.mark.skipif("S3_SLOW_TESTS" not in os.environ, reason="S3_SLOW_TESTS is not set")
def test_wheels_install_in_a_clean_environment(tmp_path):
    for source in (CORE, INTEGRATION):
        run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", source)
    wheels = sorted((tmp_path / "dist").glob("*.whl"))
    assert [wheel.name.split("-")[0] for wheel in wheels] == [
        "llama_index_retrievers_s3_attention",
        "s3_retriever",
    ]
    clean = tmp_path / "clean"
    venv.create(clean, with_pip=True)
    python = clean / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", *wheels)
    # The other dependencies are large; they are those of the running environment. Of its own
    # copies of the two distributions only the wheels' come first on the path.
    site = next((clean / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    assert Path(run(python, "-c", _IMPORT).strip()).is_relative_to(site)
    found = run(python, "-c", _RETRIEVE).splitlines()
    assert Path(found[0]).is_relative_to(site)
    assert found[1] == "Lunch is at noon."
