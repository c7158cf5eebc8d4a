"""What names mean on disk."""

from __future__ import annotations

import pytest

from s3_retriever.paths import lasting


@pytest.mark.parametrize("name", ["model", "model.gguf", "Model.GGUF", "folder.gguf", "./smollm2"])
def test_a_folder_and_a_gguf_file_are_found_from_any_directory(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if path.suffix and not name.startswith("folder"):
        path.write_bytes(b"GGUF")
    else:
        path.mkdir()
    assert lasting(name) == str(path)


@pytest.mark.parametrize(
    "name",
    ["minilm", "smollm2", "notes.txt", "none.gguf", "owner/model", "~nobody/x.gguf", "a\0.gguf"],
)
def test_other_names_stay(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for folder in ("minilm", "smollm2"):
        (tmp_path / folder).mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert lasting(name) == name
