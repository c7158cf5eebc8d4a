"""What is installed, and what importing it costs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import langchain_s3_retriever

INTEGRATION = Path(__file__).parents[1]
CORE = INTEGRATION.parents[1]

_IMPORT = """
import sys
import langchain_s3_retriever
heavy = {"torch", "transformers"} & sys.modules.keys()
assert not heavy, heavy
print(langchain_s3_retriever.__file__)
"""


def assert_light(python: str | Path, folder: Path) -> str:
    """Importing loads no model library; says where the package lies."""
    command = [python, "-c", _IMPORT]
    printed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return printed.stdout.strip()


def test_the_public_names():
    assert sorted(langchain_s3_retriever.__all__) == [
        "S3Compressor",
        "S3Retriever",
        "S3VectorStore",
        "__version__",
        "create_evidence_tool",
    ]
    assert all(hasattr(langchain_s3_retriever, name) for name in langchain_s3_retriever.__all__)


def test_importing_is_light(tmp_path):
    assert_light(sys.executable, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif("S3_SLOW_TESTS" not in os.environ, reason="S3_SLOW_TESTS is not set")
def test_wheels_install_in_a_clean_environment(tmp_path):
    for source in (CORE, INTEGRATION):
        _run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", source)
    wheels = sorted((tmp_path / "dist").glob("*.whl"))
    assert [wheel.name.split("-")[0] for wheel in wheels] == [
        "langchain_s3_retriever",
        "s3_retriever",
    ]
    clean = tmp_path / "clean"
    venv.create(clean, with_pip=True)
    python = clean / "bin" / "python"
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", *wheels)
    # The other dependencies are large; they are those of the running environment. Of its own
    # copies of the two distributions only the wheels' come first on the path.
    site = next((clean / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    place = assert_light(python, tmp_path)
    assert Path(place).is_relative_to(site)
    found = _run(
        python,
        "-c",
        "import s3_retriever, langchain_s3_retriever as l\n"
        "print(s3_retriever.__file__)\n"
        "r = l.S3Retriever.from_texts(['Lunch is at noon.', 'Doors close at six.'], k=1)\n"
        "print(r.invoke('When do I eat?')[0].page_content)",
    ).splitlines()
    assert Path(found[0]).is_relative_to(site)
    assert found[1] == "Lunch is at noon."


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=CORE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
