"""`s3r bench inference` measures what it says, on a tiny decoder and a few hundred tokens."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from typer.testing import CliRunner

from s3_retriever import Codebook, Host, HostError, InputError
from s3_retriever.cli.app import app
from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever.types import check_count
from s3_retriever_bench.inference import models
from s3_retriever_bench.inference import run as inference
from s3_retriever_bench.inference.models import Shape, make_tokenizer, random_codebook
from s3_retriever_bench.inference.report import (
    inference_claims,
    inference_remark,
    inference_tables,
    show_inference,
)
from s3_retriever_bench.inference.run import (
    Job,
    Plan,
    measure_evidence,
    measure_full,
    run_inference,
    tokens_per_second,
)
from s3_retriever_bench.shared.corpus import text_of
from s3_retriever_bench.shared.costs import TokenClock, peak_bytes, reset_peak, used_bytes
from s3_retriever_bench.shared.processes import how_it_ended, ran_out_of_memory, run_alone
from s3_retriever_bench.shared.report import check

TINY = Shape("llama", 2, 32, 4, 2, 8, 64, 600, (256,))


def no_process(*_):
    """In place of `run_alone`, where nothing is to be measured."""
    raise AssertionError("measured again")


def this_process(work, *arguments):
    """In place of `run_alone`, where processes of their own, slow to start, add nothing."""
    return work(*arguments)


@pytest.fixture(scope="module")
def answerer(tmp_path_factory, tiny_llama):
    """Folder of a decoder as small as the tiny Llama, with LM head and 2,048 positions."""
    from tokenizers.decoders import ByteLevel

    folder = tmp_path_factory.mktemp("answerers") / "llama"
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.backend_tokenizer.decoder = ByteLevel()
    config = LlamaConfig.from_pretrained(tiny_llama)
    config.update({"max_position_embeddings": 2_048, "vocab_size": len(tokenizer)})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory, sentences):
    """About 6,000 tokens in paragraphs."""
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_text("\n\n".join(" ".join(sentences[i : i + 10]) for i in range(0, 750, 10)))
    return path


@pytest.fixture
def measure(answerer, text):
    """Runs `s3r bench inference` on the text."""
    fixed = ["--host", answerer, "--text", text, "--token-budget", 64, "--new-tokens", 3]

    def invoke(*arguments):
        command = ["bench", "inference", *fixed, "--questions", 2, *arguments]
        return CliRunner().invoke(app, [str(argument) for argument in command])

    return invoke


def make_job(tmp_path, text, tokens, host):
    """A job in this process: its questions are about the text."""
    tokenizer = AutoTokenizer.from_pretrained(host)
    path = tmp_path / "context.txt"
    context = text_of([text], tokens, OffsetTokenizer(tokenizer))
    path.write_text(context, encoding="utf-8", newline="")
    questions = ("What does the old captain paint?", "Who forgets the blue ledger?")
    plan = Plan(host=str(host), token_budget=64, new_tokens=4)
    return Job(plan, None, path, questions, "Who mends a broken clock?")


def test_the_command_measures_and_a_second_run_goes_on(tmp_path, measure, monkeypatch):
    out = tmp_path / "new" / "out"
    result = measure("--tokens", 256, "--scan-tokens", 256, "--out", out)
    assert result.exit_code == 0, result.output
    for title in ("Time to first token", "Tokens/s", "Peak memory, MB", "Claims"):
        assert title in result.output
    assert "The codebook's directions are random" in result.output
    kept = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    assert {path.name for path in kept} == {"full--256.json", "s3--256.json"}

    monkeypatch.setattr(inference, "run_alone", this_process)
    result = measure("--tokens", 512, "--tokens", 256, "--scan-tokens", 512, "--out", out)
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    written = json.loads((out / "inference.json").read_text())
    assert {size: list(row) for size, row in written["sizes"].items()} == {
        "256": ["full", "s3"],
        "512": ["full", "s3"],
    }
    check_figures(written)
    page = (out / "inference.md").read_text()
    assert "| S3, further question |" in page and "(inference.svg)" in page
    for name in ("inference.svg", "inference.png"):
        assert 1_000 < (out / name).stat().st_size < 150_000

    monkeypatch.setattr(inference, "run_alone", no_process)
    again = measure("--tokens", 256, "--scan-tokens", 512, "--out", out)
    assert again.exit_code == 0, again.output
    other = measure("--tokens", 256, "--tap", "hidden.1", "--out", out)
    assert other.exit_code == 1 and "(tap changed)" in " ".join(other.output.split())


def check_figures(written):
    assert written["settings"]["codebook"] == "random directions"
    assert written["settings"]["questions"] == 2
    assert written["machine"]["cpus"] and written["versions"]["transformers"]
    assert all(claim["measured"] > 0 and claim["holds"] is not None for claim in written["claims"])
    for size, row in written["sizes"].items():
        full, s3 = row["full"], row["s3"]
        # The question and the prompt around it come on top.
        assert int(size) < full["prompt_tokens"] < int(size) + 100
        assert abs(s3["tokens"] - int(size)) < 8
        assert s3["prompt_tokens"] < 64 + 100
        assert 0 < s3["scan_seconds"] < s3["first_token_seconds"]
        assert s3["further_seconds"] == [s3["further_token_seconds"]]
        assert s3["retrieval_seconds"] > 0
        # Two layers, two heads of eight numbers, keys and values; two of three new tokens are
        # read.
        numbers = 2 * 2 * 2 * 8 * (full["prompt_tokens"] + 2)
        width = {"bfloat16": 2, "float32": 4}[written["settings"]["dtype"]]
        assert full["cache_bytes"] == width * numbers
        for way in (full, s3):
            assert way["first_token_seconds"] > 0 and way["tokens_per_second"] > 0
            assert way["loaded_bytes"] <= way["peak_bytes"] < 4 * 2**30


def test_a_shape_is_measured_with_a_tokenizer_of_its_own(monkeypatch, text):
    monkeypatch.setitem(models.SHAPES, "tiny", TINY)
    monkeypatch.setattr(inference, "run_alone", this_process)
    plan = Plan([], [256], shape="tiny", token_budget=64, new_tokens=2, questions=1, texts=[text])
    assert plan.sizes == (256,)
    figures = run_inference(replace(plan, tap="hidden.0"))
    row = figures["sizes"]["256"]
    assert row["s3"]["further_token_seconds"] is None and row["s3"]["further_seconds"] == []
    assert figures["settings"]["width"] == 32 and figures["settings"]["tap"] == "hidden.0"
    assert [claim["measured"] is None for claim in figures["claims"]] == [
        *(False, True, True, True, False)
    ]
    page = "\n".join(grid.markdown() for grid in inference_tables(figures))
    assert "| S3, further question | - |" in page
    said = inference_remark(figures["settings"])
    assert said.startswith("The weights and the codebook's directions are random")


def test_the_shapes_have_the_parameters_of_their_names():
    for name, millions in {"135m": 134.5, "0.6b": 596.0}.items():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(models.shape_named(name).config())
        assert sum(weight.numel() for weight in model.parameters()) / 1e6 == pytest.approx(
            millions, abs=0.5
        )
    assert Plan().sizes == (4096, 8192, 16_384, 32_768)
    assert Plan(shape="0.6b").sizes == (4096, 8192)


def test_a_host_has_its_own_codebook_if_there_is_one(answerer):
    assert Plan(host="smollm2").codebook == "smollm2"
    assert Plan(host="smollm2", tap="key.3").codebook is None
    assert Plan(host=str(answerer)).codebook is None


def test_the_made_tokenizer_reads_any_text_and_writes_it_back(text, sentences):
    made = make_tokenizer([text], 600)
    assert len(made) <= 600
    tokenizer = OffsetTokenizer(made)
    odd = "Æther 漢字\n\t</s>"
    assert tokenizer.prefix == [models.BOS] and made.eos_token_id == models.EOS
    assert made.decode(tokenizer.ids(odd)) == odd
    assert tokenizer.count(sentences[0]) < len(sentences[0]) / 3
    # Random weights write tokens that it does not know.
    assert made.decode([made.convert_tokens_to_ids("a"), 40_000]) == "a"


def test_contexts_have_the_tokens_that_were_asked_for(text, answerer):
    tokenizer = OffsetTokenizer(AutoTokenizer.from_pretrained(answerer))
    # The second one has more than the text, which repeats.
    for tokens in (300, 20_000):
        context = text_of([text], tokens, tokenizer)
        assert 0 <= tokenizer.count(context) - tokens < 5
    assert context.startswith(text.read_text()[:1_000])


def test_random_codebooks_are_as_a_fit_makes_them(answerer, sentences):
    host = Host.load(str(answerer), device="cpu", dtype="float32")
    for tap in ("key.1", "hidden.0"):
        fitted = Codebook.fit(
            host, sentences, taps=[tap], batch_size=256, buffer_tokens=512, progress=False
        )
        made = random_codebook(host, tap, " ".join(sentences[:20]))
        assert made.recipe == fitted.recipe and made.fingerprint == fitted.fingerprint
        sae, other = made.sae(tap), fitted.sae(tap)
        assert (sae.width, sae.features, sae.k) == (other.width, other.features, other.k)
        assert sae.b_dec.norm() > 0
    again = random_codebook(host, None, " ".join(sentences[:20]))
    first = random_codebook(host, "key.1", " ".join(sentences[:20]))
    assert again.identity == first.identity
    with pytest.raises(InputError, match=r"There is no tap hidden\.2"):
        random_codebook(host, "hidden.2", "a")


def test_all_tokens_are_made_and_timed(tmp_path, text, answerer, monkeypatch):
    job = make_job(tmp_path, text, 700, answerer)
    clocks = []
    monkeypatch.setattr(inference, "TokenClock", lambda: clocks.append(TokenClock()) or clocks[-1])
    result = measure_evidence(job)
    # The first one is that of the warm-up.
    assert [len(clock.ticks) for clock in clocks] == [4, 4, 4]
    assert result["tokens_per_second"] == tokens_per_second(clocks[1:])
    assert abs(result["tokens"] - 700) < 8 and result["prompt_tokens"] < 200


def test_the_rate_is_that_of_the_tokens_after_the_first():
    clocks = [TokenClock(), TokenClock()]
    for clock, ticks in zip(clocks, ([5.0, 6.0, 7.0], [1.0, 3.0]), strict=True):
        clock.put(None)  # the prompt
        clock.ticks += ticks
    assert tokens_per_second(clocks) == 0.75
    assert tokens_per_second(clocks[:1]) == 1.0


def test_a_host_is_not_read_beyond_its_positions(tmp_path, text, tiny_llama, answerer):
    job = make_job(tmp_path, text, 2_040, answerer)
    assert measure_full(job) == {"failed": "beyond the model's 2,048 positions"}
    with pytest.raises(HostError, match="no LM head"):
        measure_full(make_job(tmp_path, text, 20, tiny_llama))


def test_the_peak_is_that_of_this_process():
    device = torch.device("cpu")
    before, used = peak_bytes(device), used_bytes(device)
    assert used is None or 2**20 < used <= before + 2**20
    more = before - (used or 0) + 2**27
    assert torch.ones(more, dtype=torch.uint8).any()
    assert peak_bytes(device) > before + 2**26


def test_the_peak_can_count_from_now_on():
    device = torch.device("cpu")
    del_me = torch.ones(2**28, dtype=torch.uint8)
    assert del_me.any()
    del del_me
    before = peak_bytes(device)
    if not reset_peak(device):
        pytest.skip("this system keeps the peak")
    assert peak_bytes(device) < before - 2**27


def test_how_a_process_ends_is_recorded_or_raised():
    assert run_alone(signal.raise_signal, signal.SIGKILL) == {"failed": "out of memory"}
    assert run_alone(bytearray, 2**62) == {"failed": "out of memory"}
    with pytest.raises(InputError, match="k must be a whole number of at least 1"):
        run_alone(check_count, -1, "k")
    assert how_it_ended(-signal.SIGSEGV) == "ended by SIGSEGV"
    assert how_it_ended(3) == "ended with status 3"


def test_errors_of_memory_are_told_from_others():
    cause = torch.OutOfMemoryError("CUDA out of memory")
    raised = HostError("The device has no memory")
    raised.__cause__ = cause
    assert all(map(ran_out_of_memory, (cause, raised, MemoryError())))
    assert not ran_out_of_memory(HostError("x")) and not ran_out_of_memory(RuntimeError("x"))


def test_a_length_without_memory_does_not_end_the_run(tmp_path, text, monkeypatch):
    def fake(work, job):
        tokens = int(job.path.stem)
        if work is measure_full and tokens > 256:
            return {"failed": "out of memory"}
        return full(1.0) if work is measure_full else s3(0.5, 0.1, tokens=tokens)

    monkeypatch.setitem(models.SHAPES, "tiny", TINY)
    monkeypatch.setattr(inference, "run_alone", fake)
    plan = Plan([512, 256], [900], shape="tiny", texts=[text], folder=tmp_path / "out")
    figures = run_inference(plan)
    assert list(figures["sizes"]) == ["256", "512", "900"]
    show_inference(figures, tmp_path / "out")
    page = (tmp_path / "out" / "inference.md").read_text()
    assert "| full KV | 1.00 | out of memory | - |" in page
    assert "| full KV over S3, first | 2.00 | - | - |" in page
    monkeypatch.setattr(inference, "run_alone", no_process)
    assert run_inference(plan)["sizes"] == figures["sizes"]


def test_an_interrupted_run_says_what_it_keeps(tmp_path, measure, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "run_alone", interrupted)
    result = measure("--tokens", 256, "--out", tmp_path)
    assert result.exit_code == 130
    assert "Finished parts are kept in" in " ".join(result.output.split())


def full(first, *, peak=2_000):
    return {
        "prompt_tokens": 10,
        "first_token_seconds": first,
        "tokens_per_second": 3.0,
        "cache_bytes": 100,
        "loaded_bytes": None,
        "peak_bytes": peak,
    }


def s3(first, further, *, tokens, scan=1.0, peak=1_000):
    return {
        "tokens": tokens,
        "scan_seconds": scan,
        "first_token_seconds": first,
        "further_token_seconds": further,
        "further_seconds": [further],
        "retrieval_seconds": 0.01,
        "tokens_per_second": 5.0,
        "prompt_tokens": 10,
        "loaded_bytes": 500,
        "peak_bytes": peak,
    }


def check_claims(sizes):
    return check(inference_claims(sizes))


def test_claims_are_computed_from_the_figures_they_are_about():
    sizes = {
        "4096": {"full": full(10.0), "s3": s3(5.0, 1.0, tokens=4_000, scan=4.0)},
        "32768": {"full": full(60.0), "s3": s3(10.0, 1.25, tokens=32_000, peak=1_050)},
        "131072": {"s3": s3(90.0, 1.0, tokens=130_000, scan=143.0, peak=1_101)},
    }
    checked = check_claims(sizes)
    assert [(c["claim"], c["measured"], c["holds"]) for c in checked] == [
        ("First token, full KV over S3 first (32,768)", 6.0, True),
        ("First token, full KV over S3 further (32,768)", 48.0, False),
        ("Scan s/token (131,072 over 4,096)", 1.1, True),
        ("Peak memory, S3 (131,072 over 4,096)", 1.101, False),
        ("Peak memory, S3 (131,072) over full KV (32,768)", 0.5505, True),
    ]
    bounds = [(claim["relation"], claim["bound"]) for claim in checked]
    assert bounds == [
        *(("at least", 6), ("at least", 50), ("at most", 1.1), ("at most", 1.1), ("below", 1))
    ]
    # What failed was not measured: the claim is about the largest length that was.
    sizes["32768"]["full"] = {"failed": "out of memory"}
    first, *_, last = check_claims(sizes)
    assert (first["claim"], first["measured"]) == ("First token, full KV over S3 first (4,096)", 2)
    assert last["claim"].endswith("over full KV (4,096)")
    sizes["4096"]["full"] = {"failed": "out of memory"}
    assert [claim["measured"] for claim in check_claims(sizes)] == [None, None, 1.1, 1.101, None]
    assert {claim["holds"] for claim in check_claims({})} == {None}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shape", "9t"], "There is no shape '9t'; choose from 135m, 0.6b"),
        (["--shape", "135m", "--host", "x"], "omit --shape or --host"),
        (["--codebook", "x"], "give it with --host and without --tap"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, said):
    result = CliRunner().invoke(app, ["bench", "inference", *arguments])
    assert result.exit_code == 1
    assert said in " ".join(result.output.split())
