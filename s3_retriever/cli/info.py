"""`s3 info`: sizes and settings of an index, read without its host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from s3_retriever.cli import options
from s3_retriever.cli.console import results, show_table, write_json

if TYPE_CHECKING:
    from s3_retriever.index import Store


def info(index: options.IndexPath, as_json: options.AsJson = False) -> None:
    """Show sizes and settings of an index. Does not load the host."""
    from s3_retriever.index import Store

    found = facts(Store.open(index))
    if as_json:
        write_json(found)
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in found.items():
        table.add_row(name.replace("_", " "), _shown(value))
    show_table(results(), table)


def facts(store: Store) -> dict[str, Any]:
    """Sizes and settings, as JSON values."""
    manifest, snapshot = store.manifest, store.snapshot()
    size = sum(file.bytes for segment in manifest.segments for file in segment.files.values())
    return {
        "path": str(store.path),
        "host": manifest.codebook.get("host"),
        "codebook": manifest.codebook.get("codebook"),
        "documents": snapshot.n_documents,
        "sentences": snapshot.n_sentences,
        "tokens": snapshot.n_tokens,
        "bytes": size,
        "bytes_per_token": round(size / snapshot.n_tokens, 1) if snapshot.n_tokens else None,
        "segments": len(manifest.segments),
        "generation": manifest.generation,
        "schema": manifest.schema_version,
        "recipe": manifest.codebook.get("recipe"),
    }


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_inline(item)}" for name, item in value.items())
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def _inline(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(
        f"{name} ({_inline(item)})" if isinstance(item, dict) else f"{name} {item}"
        for name, item in value.items()
    )
