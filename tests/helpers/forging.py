"""Indexes as someone else may hand them over: changed, with checksums that fit."""

from __future__ import annotations

import hashlib
import json
import zlib

import numpy as np

SEGMENT = "segment-000001"


def seal(manifest):
    """A manifest as the file has it, whatever it says."""
    rest = json.dumps(manifest).encode()[1:]
    checksum = hashlib.sha256(rest).hexdigest().encode()
    return b'{\n "sha256": "%s",\n%s' % (checksum, rest)


def edit(path, change):
    """Change the manifest; its checksum fits all the same."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["sha256"]
    change(manifest)
    file.write_bytes(seal(manifest))


def describe(path, name):
    """Tell the manifest of a file that was changed."""
    content = (path / SEGMENT / name).read_bytes()
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(path, lambda m: m["segments"][0]["files"].update({name: entry}))


def replace_row(path, line):
    """Put another line of JSON in the place of the first document's."""
    documents, rows = path / SEGMENT / "documents.npy", path / SEGMENT / "documents.jsonl"
    table, content = np.load(documents), rows.read_bytes()
    line += b"\n"
    longer = len(line) - int(table["row_bytes"][0])
    rows.write_bytes(line + content[int(table["row_bytes"][0]) :])
    table["row_start"][1:] = table["row_start"][1:].astype(np.int64) + longer
    table["row_bytes"][0], table["row_crc32"][0] = len(line), zlib.crc32(line)
    np.save(documents, table)
    describe(path, documents.name)
    describe(path, rows.name)
