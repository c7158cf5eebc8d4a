"""Draw docs/images/explain.svg, the picture in the README: what `s3r explain` prints in a terminal.

Run it again when that output changes: `python docs/examples/hero.py`.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from s3_retriever import Document, S3Index
from s3_retriever.cli.searching import show_explanation

PICTURE = Path(__file__).parent.parent / "images" / "explain.svg"
QUESTION = "I have a fever. What now?"
HANDBOOK = {
    "leave": "Staff have 28 days of paid leave a year. Ask your manager two weeks ahead.",
    "releases": "Every release is tested for two days. The head of quality signs it off.",
    "travel": "Trains are booked by the front office. Flights need the consent of a director.",
    "canteen": "Lunch is served from noon to two. On Fridays there is soup only.",
    "illness": "Call your team before nine when you are unwell. From the fourth day on a doctor's "
    "note is needed.",
}


def main() -> None:
    """Index a small handbook, explain the first span and write the picture."""
    with S3Index.create(host="minilm") as index:
        index.add([Document(text, id=name) for name, text in HANDBOOK.items()], progress=False)
        explanation = index.explain(QUESTION, index.search(QUESTION, k=1)[0])
    # Without a file of its own the console would also print to this terminal.
    console = Console(
        record=True, file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor"
    )
    command = Text(f'$ s3r explain "{QUESTION}" --in handbook.s3r', "bold green")
    console.print(command, "", sep="\n", highlight=False)
    show_explanation(console, 1, explanation)
    svg = console.export_svg(title="s3r explain", theme=DIMMED_MONOKAI, unique_id="explain")
    # Rich's template loads its font from a CDN; the reader's own monospaced font will do.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
