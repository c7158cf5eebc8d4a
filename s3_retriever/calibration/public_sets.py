"""Public question sets, loaded by name with the library `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from s3_retriever.calibration.question_sets import (
    Labelled,
    QuestionSet,
    form_of,
    parse_row,
    parse_sources,
    read_files,
)
from s3_retriever.errors import InputError

Row = Mapping[str, Any]
Rows = list[dict[str, Any]]

_QMSUM = "https://raw.githubusercontent.com/Yale-LILY/QMSum/main/data/ALL/jsonl/{}.jsonl"
# The main branches hold a loading script, which `datasets` no longer runs; these revisions hold the
# tables.
_SCIFACT = {"path": "allenai/scifact", "revision": "f2576c50e6c0a751265f541f28113b26f68781f0"}
_FAIRYTALES = {"path": "WorkInTheDark/FairytaleQA", "revision": "refs/convert/parquet"}


def read_public(name: str) -> QuestionSet:
    """Load a public question set.

    Args:
        name: One of `PUBLIC`.

    Raises:
        InputError: `datasets` is not installed, or the set is out of reach.
    """
    rows, sources = PUBLIC[name]()
    form = form_of(rows[0])
    known = parse_sources(sources, form)
    labelled: list[Labelled] = [row for row in (parse_row(r, known) for r in rows) if row.support]
    return QuestionSet(name, form, labelled, tuple(known.values()) if form == "corpus" else ())


def hotpot_row(row: Row) -> dict[str, Any]:
    """A row of HotpotQA, or of 2WikiMultihopQA in HotpotQA's form.

    Drops labels of sentences that their paragraph does not have.
    """
    paragraphs = dict(zip(row["context"]["title"], row["context"]["sentences"], strict=True))
    titles = list(paragraphs)
    facts = zip(row["supporting_facts"]["title"], row["supporting_facts"]["sent_id"], strict=True)
    return {
        "id": row["id"],
        "question": row["question"],
        "answers": [row["answer"]],
        "docs": [{"title": title, "sents": paragraphs[title]} for title in titles],
        "support": [
            [titles.index(title), sentence]
            for title, sentence in facts
            if title in paragraphs and sentence < len(paragraphs[title])
        ],
    }


def musique_row(row: Row) -> dict[str, Any]:
    """A row of MuSiQue, which labels whole paragraphs."""
    return {
        "id": row["id"],
        "question": row["question"],
        "answers": [row["answer"], *row["answer_aliases"]],
        "docs": [{"title": p["title"], "sents": [p["paragraph_text"]]} for p in row["paragraphs"]],
        "support": [[i, -1] for i, p in enumerate(row["paragraphs"]) if p["is_supporting"]],
    }


def fairytale_rows(rows: Iterable[Row]) -> tuple[Rows, Rows]:
    """Questions and stories of FairytaleQA.

    A row has the section that its question is about, or several sections joined. A story is made
    of all sections with questions, in the order of the questions.
    """
    asked: dict[str, list[Row]] = {}
    for row in rows:
        asked.setdefault(row["story_name"], []).append(row)
    questions: Rows = []
    stories: Rows = []
    for name, about in asked.items():
        texts = dict.fromkeys(row["story_section"] for row in about)
        sections = [t for t in texts if not any(t != other and other in t for other in texts)]
        stories.append({"title": name, "sents": sections})
        questions += [_fairytale_row(row, f"{name}-{i}", sections) for i, row in enumerate(about)]
    return questions, stories


def _fairytale_row(row: Row, name: str, sections: list[str]) -> dict[str, Any]:
    answers = [row["answer1"], row["answer2"]]
    return {
        "id": name,
        "question": row["question"],
        "answers": [answer for answer in answers if answer],
        "doc_ids": [row["story_name"]],
        "support": [[0, i] for i, text in enumerate(sections) if text in row["story_section"]],
    }


def qmsum_rows(split: str, meetings: Iterable[Row]) -> tuple[Rows, Rows]:
    """The specific queries of QMSum, whose evidence is ranges of turns, and the transcripts."""
    questions: Rows = []
    transcripts: Rows = []
    for number, meeting in enumerate(meetings):
        title = f"meeting {split}-{number}"
        turns = [f"{turn['speaker']}: {turn['content']}" for turn in meeting["meeting_transcripts"]]
        transcripts.append({"title": title, "sents": turns})
        for place, query in enumerate(meeting["specific_query_list"]):
            ranges = [(int(first), int(last)) for first, last in query["relevant_text_span"]]
            numbers = [i for first, last in ranges for i in range(first, last + 1)]
            questions.append(
                {
                    "id": f"{split}-{number}-{place}",
                    "question": query["query"],
                    "answers": [query["answer"]],
                    "doc_ids": [title],
                    "support": [[0, i] for i in numbers if i < len(turns)],
                }
            )
    return questions, transcripts


def scifact_rows(claims: Iterable[Row]) -> Rows:
    """Claims of SciFact: rows of the same claim, one for each abstract, become a single row."""
    claims_by_id: dict[str, dict[str, Any]] = {}
    for row in claims:
        name = str(row["id"])
        claim = claims_by_id.setdefault(name, {"id": name, "question": row["claim"], "support": []})
        claim["support"] += [[row["evidence_doc_id"], i] for i in row["evidence_sentences"]]
    return list(claims_by_id.values())


def scifact_document(row: Row) -> dict[str, Any]:
    """An abstract of SciFact."""
    return {"doc_id": str(row["doc_id"]), "title": row["title"], "sents": row["abstract"]}


def _hotpotqa() -> tuple[Rows, Rows]:
    rows = _load(path="hotpotqa/hotpot_qa", name="distractor", split="validation")
    return [hotpot_row(row) for row in rows], []


def _2wikimultihopqa() -> tuple[Rows, Rows]:
    rows = _load(path="framolfese/2WikiMultihopQA", split="validation")
    return [hotpot_row(row) for row in rows], []


def _musique() -> tuple[Rows, Rows]:
    rows = _load(path="dgslibisey/MuSiQue", split="validation")
    return [musique_row(row) for row in rows], []


def _fairytaleqa() -> tuple[Rows, Rows]:
    return fairytale_rows(_load(**_FAIRYTALES, split="validation"))


def _qmsum() -> tuple[Rows, Rows]:
    questions: Rows = []
    transcripts: Rows = []
    for split in ("test", "val"):
        meetings = _load(path="json", data_files=_QMSUM.format(split), split="train")
        split_questions, split_transcripts = qmsum_rows(split, meetings)
        questions += split_questions
        transcripts += split_transcripts
    return questions, transcripts


def _scifact() -> tuple[Rows, Rows]:
    claims = [
        row
        for split in ("train", "validation")
        for row in _load(**_SCIFACT, name="claims", split=split)
    ]
    corpus = _load(**_SCIFACT, name="corpus", split="train")
    return scifact_rows(claims), [scifact_document(row) for row in corpus]


PUBLIC: Mapping[str, Callable[[], tuple[Rows, Rows]]] = {
    "hotpotqa": _hotpotqa,
    "2wikimultihopqa": _2wikimultihopqa,
    "musique": _musique,
    "fairytaleqa": _fairytaleqa,
    "qmsum": _qmsum,
    "scifact": _scifact,
}


def _load(**options: Any) -> Iterable[Row]:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            "Public question sets need the library datasets; install it with: pip install datasets"
        ) from error
    try:
        rows: Iterable[Row] = datasets.load_dataset(**options)
    # `datasets` passes on the errors of several HTTP libraries, which have no common base.
    except Exception as error:
        raise InputError(
            f"The public data set {options.get('data_files', options['path'])} is out of reach; "
            f"check the connection, or pass a file to --data instead ({error})."
        ) from error
    return rows


def load_set(source: str) -> QuestionSet:
    """Load a question set.

    Args:
        source: A file, as `read_files` takes it, or a name in `PUBLIC`.

    Raises:
        InputError: The file cannot be read or has another form, or the public set is out of reach.
    """
    return read_public(source) if source in PUBLIC else read_files(source)
