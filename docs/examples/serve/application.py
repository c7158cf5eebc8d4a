"""An application in a container of its own: it turns a question into a prompt with evidence."""

# ruff: noqa: T201 - an example prints.

from __future__ import annotations

import os
import sys

from s3_retriever import RemoteIndex, S3Error


def prompt_for(index: RemoteIndex, question: str) -> str:
    """A prompt for any language model, with numbered evidence to cite."""
    spans = index.search(question, token_budget=400, order="document")
    evidence = "\n".join(f"[{number}] {span.text}" for number, span in enumerate(spans, 1))
    return f"Answer from the evidence and cite it by number.\n\n{evidence}\n\nQuestion: {question}"


def main() -> None:
    """Print the prompt for the question on the command line."""
    try:
        with RemoteIndex(os.environ["S3R_SERVER"], token=os.environ.get("S3R_TOKEN")) as index:
            print(prompt_for(index, " ".join(sys.argv[1:])))
    except S3Error as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
