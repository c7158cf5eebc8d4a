"""Writers killed at any moment: the index stays whole, and all that was committed stays in it.

`S3_FAULT_KILLS` is the number of writers that are killed, 100 where it is not set. Where a disk is
so slow that they would take more than `S3_FAULT_SECONDS`, 120 where it is not set, fewer are.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers.writers import IDS, LAYOUT, made_up, read_documents

from s3_retriever.index import DiskBackend, Store
from s3_retriever.index.lock import hold

KILLS = int(os.environ.get("S3_FAULT_KILLS", "100"))
SECONDS = float(os.environ.get("S3_FAULT_SECONDS", "120"))
# Entries in its ledger that a writer lives to see, two for each change; then the moment counts.
MOST_ENTRIES = 3
# Seconds after which a writer that nobody has killed says where it is and ends.
PATIENCE = 60

State = dict[str, int]


# The writer, which is killed


def write_on(path: Path, ledger: int, state: State, seed: int) -> None:
    """Change the index until killed; the ledger has each change before and after it is made."""
    rng = random.Random(seed)
    store = Store(DiskBackend(path, durable=rng.random() < 0.25))
    while True:
        kind = rng.choices(["add", "replace", "delete", "compact"], [6, 3, 3, 1])[0]
        after, change = _planned(store, kind, state, rng)
        _note(ledger, ["begun", kind, after])
        change()
        _note(ledger, ["done", kind, after])
        state = after


def _planned(store, kind, state, rng):
    """A change at random: the state after it, and what makes it."""
    absent = [name for name in IDS if name not in state]
    if kind == "compact":
        return state, store.compact
    if kind == "delete" or (kind == "add" and not absent):
        gone = rng.sample(sorted(state), min(len(state), rng.choice([1, 2, 20])))
        left = {name: version for name, version in state.items() if name not in gone}
        return left, lambda: store.delete(gone)
    pool = absent if kind == "add" else IDS
    names = rng.sample(pool, min(len(pool), rng.choice([1, 1, 3])))
    new = {name: rng.randrange(10**6) for name in names}

    def add():
        with store.append(LAYOUT, replace=kind == "replace") as writer:
            for name, version in new.items():
                writer.add(made_up(name, version)[1])

    return {**state, **new}, add


def _note(ledger: int, entry: list) -> None:
    os.write(ledger, json.dumps(entry).encode() + b"\n")


# The one who kills and looks


def kill_writers(path: Path, kills: int, seconds: float) -> None:
    """Start a writer, kill it, look at the index; once and again, while there is time."""
    until = time.monotonic() + seconds
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(int(seconds) + 2 * PATIENCE)
    Store.create(path, {"host": "none"})
    seen: Counter[str] = Counter()
    state: State = {}
    rng = random.Random(0)
    pace = 0.05
    for number in range(kills):
        if time.monotonic() > until:
            break
        ledger = path.with_name(f"ledger-{number}")
        entries = rng.randrange(MOST_ENTRIES + 1)
        took = _live_and_die(path, ledger, state, number, entries, rng.uniform(0, pace))
        # Whatever else the machine does, moments are spread over all of a change.
        pace = 0.9 * pace + 0.1 * took / max(1, entries / 2)
        seen.update({what for what, found in _left_behind(path).items() if found})
        state = _check(path, ledger, state, seen)
        seen["killed"] += 1
    sys.stdout.write(json.dumps(seen))


def _live_and_die(
    path: Path, ledger: Path, state: State, seed: int, entries: int, moment: float
) -> float:
    """Start a writer and kill it after some entries and a moment; how long the entries took."""
    file = os.open(ledger, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    start = time.perf_counter()
    writer = os.fork()
    if writer == 0:
        try:
            signal.alarm(PATIENCE)
            write_on(path, file, state, seed)
        finally:
            os._exit(1)  # it never ends on its own
    while ledger.read_bytes().count(b"\n") < entries:
        assert os.waitpid(writer, os.WNOHANG) == (0, 0), "the writer failed"
        time.sleep(0.001)
    took = time.perf_counter() - start
    time.sleep(moment)
    os.kill(writer, signal.SIGKILL)
    _, status = os.waitpid(writer, 0)
    os.close(file)
    assert os.WIFSIGNALED(status), "the writer failed"
    return took


def _left_behind(path: Path) -> dict[str, bool]:
    named = json.loads((path / "manifest.json").read_text())["segments"]
    folders = {folder.name for folder in path.glob("segment-*")}
    return {
        "draft": (path / "draft").exists(),
        "segment": bool(folders - {segment["name"] for segment in named}),
        "manifest": (path / "manifest.json.tmp").exists(),
    }


def _check(path: Path, ledger: Path, before: State, seen: Counter[str]) -> State:
    """The index has the state of the last change done, or of the one begun after it."""
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    allowed = [before]
    for what, kind, state in entries:
        allowed = [state] if what == "done" else [*allowed, state]
        seen[f"{what} {kind}"] += 1
    store = Store.open(path)
    found = dict(read_documents(store))
    assert found in allowed, (found, allowed)
    seen["interrupted"] += len(allowed) > 1
    # Killed after the commit: while segments were merged, or files removed.
    seen["committed all the same"] += len(allowed) > 1 and allowed[0] != found
    store.verify()
    with hold(path):
        return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_writers_leave_a_whole_index(tmp_path):
    # A process of its own, in which there is no thread that a fork would lose.
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "import index.test_faults_kill as faults;"
        "assert 'torch' not in sys.modules;"
        "faults.kill_writers(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))"
    )
    arguments = [str(Path(__file__).parents[1]), str(tmp_path / "x.s3r"), str(KILLS), str(SECONDS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    seen = Counter(json.loads(done.stdout))
    assert seen["interrupted"] > seen["killed"] / 4
    if seen["killed"] < KILLS:
        pytest.skip(f"a slow disk: the index was whole {seen['killed']} of {KILLS} times")
    # The moments were many: writers died in the midst of a change, and at all of its stages.
    for what in ("add", "replace", "delete", "compact"):
        assert seen[f"done {what}"] > 0
    assert seen["draft"] > 0
    assert seen["committed all the same"] > 0
