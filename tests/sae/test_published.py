"""SAEs of others, on files written in their layouts, against what their own code computes."""

from __future__ import annotations

import json
import os
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from s3_retriever import Codebook, Host, S3Index, load_sae
from s3_retriever.errors import CodebookError, InputError
from s3_retriever.host.taps import Tap

WIDTH, FEATURES, K = 12, 40, 5


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return {
        "W_enc": torch.randn(WIDTH, FEATURES),
        "W_dec": torch.randn(FEATURES, WIDTH) * (0.5 + torch.rand(FEATURES, 1)),
        "b_enc": torch.randn(FEATURES) * 0.3,
        "b_dec": torch.randn(WIDTH),
    }


@pytest.fixture
def x():
    return torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(1)) * 2


def top(pre, k=K):
    """ReLU of the k largest, dense."""
    values, indices = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, indices, values.relu())


def write_sae_lens(folder, weights, architecture, **config):
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "architecture": architecture,
        "d_in": WIDTH,
        "d_sae": FEATURES,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.12.1", "hook_name": "blocks.3.hook_resid_post"},
        **config,
    }
    (folder / "cfg.json").write_text(json.dumps(settings))
    save_file({n: w.contiguous() for n, w in weights.items()}, folder / "sae_weights.safetensors")
    return folder


def write_sparsify(folder, weights, **config):
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": FEATURES,
        "k": K,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": WIDTH,
        **config,
    }
    (folder / "cfg.json").write_text(json.dumps(settings))
    tensors = {
        "encoder.weight": weights["W_enc"].T.contiguous(),
        "encoder.bias": weights["b_enc"],
        "W_dec": weights["W_dec"],
        "b_dec": weights["b_dec"],
    }
    save_file(tensors, folder / "sae.safetensors")
    return folder


def write_gemma_scope(folder, weights, **changes):
    path = folder / "layer_7" / "width_16k" / "average_l0_71"
    path.mkdir(parents=True, exist_ok=True)
    arrays = {**weights, "threshold": torch.full((FEATURES,), 0.8), **changes}
    np.savez(path / "params.npz", **{name: array.numpy() for name, array in arrays.items()})
    return path


def write_qwen_scope(folder, weights, dtype=torch.float32):
    folder = folder / f"SAE-Res-Tiny-Base-W40-L0_{K}"
    folder.mkdir(parents=True, exist_ok=True)
    # The files hold transposed matrices; views keep their strides when they are saved.
    stored = {n: (w.T if w.ndim == 2 else w).to(dtype) for n, w in weights.items()}
    torch.save(stored, folder / "layer4.sae.pt")
    return folder / "layer4.sae.pt"


def centred(weights, x):
    return (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]


def check(sae, x, expected, weights, norms=1.0):
    """Activations as expected, and the same reconstruction."""
    torch.testing.assert_close(sae.activations(x), expected, rtol=1e-4, atol=1e-4)
    rebuilt = (expected / norms) @ weights["W_dec"] + weights["b_dec"]
    torch.testing.assert_close(
        sae.activations(x) @ sae.W_dec + sae.b_dec, rebuilt, rtol=1e-4, atol=1e-4
    )
    values, indices = sae.encode(x)
    dense = torch.zeros_like(expected).scatter_add(1, indices.clamp_min(0), values)
    torch.testing.assert_close(dense, top(expected, sae.k), rtol=1e-4, atol=1e-4)
    assert not any(weight.requires_grad for weight in sae.parameters())


class TestSaeLens:
    def test_standard(self, weights, x, tmp_path):
        sae = load_sae(write_sae_lens(tmp_path, weights, "standard"))
        assert (sae.activation, sae.layer, sae.k) == ("relu", 3, FEATURES)
        check(sae, x, centred(weights, x).relu(), weights)

    def test_top_k(self, weights, x, tmp_path):
        sae = load_sae(write_sae_lens(tmp_path, weights, "topk", k=K))
        assert (sae.activation, sae.k) == ("topk", K)
        check(sae, x, top(centred(weights, x)), weights)

    def test_top_k_in_units_of_the_decoder_norms(self, weights, x, tmp_path):
        folder = write_sae_lens(tmp_path, weights, "topk", k=K, rescale_acts_by_decoder_norm=True)
        norms = weights["W_dec"].norm(dim=1)
        check(load_sae(folder), x, top(centred(weights, x) * norms), weights, norms)

    def test_jumprelu_without_centring(self, weights, x, tmp_path):
        threshold = torch.randn(FEATURES)
        folder = write_sae_lens(
            tmp_path, weights | {"threshold": threshold}, "jumprelu", apply_b_dec_to_input=False
        )
        pre = x @ weights["W_enc"] + weights["b_enc"]
        check(load_sae(folder), x, pre.relu() * (pre > threshold.relu()), weights)

    def test_batch_top_k_of_a_training_run(self, weights, x, tmp_path):
        threshold = torch.tensor(1.5, dtype=torch.float64)
        folder = write_sae_lens(
            tmp_path,
            weights | {"topk_threshold": threshold},
            "batchtopk",
            k=7.5,
            rescale_acts_by_decoder_norm=True,
        )
        norms = weights["W_dec"].norm(dim=1)
        pre = centred(weights, x) * norms
        check(load_sae(folder, k=9), x, pre * (pre > 1.5), weights, norms)

    @pytest.mark.parametrize(
        ("hook", "layer"),
        [
            ("blocks.3.hook_resid_pre", 2),
            ("hidden.12", 12),
            ("blocks.0.hook_resid_pre", None),
            ("blocks.3.attn.hook_z", None),
            (None, None),
        ],
    )
    def test_the_layer_is_that_of_the_hook(self, weights, tmp_path, hook, layer):
        write_sae_lens(tmp_path, weights, "standard", metadata={"hook_name": hook})
        assert load_sae(tmp_path).layer == layer
        assert load_sae(tmp_path, layer=5).layer == 5

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"architecture": "gated"}, "architecture 'gated'"),
            ({"architecture": None}, "architecture None"),
            ({"normalize_activations": "layer_norm"}, "normalize_activations 'layer_norm'"),
            ({"reshape_activations": "hook_z"}, "reshape_activations 'hook_z'"),
            ({"d_in": 0}, "d_in 0"),
            ({"d_sae": "40"}, "d_sae '40'"),
            ({"d_sae": 1 << 40}, "d_sae 1099511627776"),
            ({"d_in": WIDTH + 1}, "no tensor W_enc of shape"),
            ({"k": None}, "k None"),
        ],
    )
    def test_others_are_refused(self, weights, tmp_path, config, message):
        write_sae_lens(tmp_path, weights, **{"architecture": "topk", "k": K, **config})
        with pytest.raises(CodebookError, match=message):
            load_sae(tmp_path)


class TestSparsify:
    def test_it_computes_the_same(self, weights, x, tmp_path):
        sae = load_sae(write_sparsify(tmp_path / "layers.6", weights))
        assert (sae.activation, sae.k, sae.layer) == ("topk", K, 6)
        check(sae, x, top(centred(weights, x)), weights)

    def test_latents_of_an_expansion_factor_and_a_part_of_a_layer(self, weights, tmp_path):
        with pytest.raises(CodebookError, match=r"no tensor encoder\.weight of shape"):
            load_sae(write_sparsify(tmp_path / "layers.6.mlp", weights, num_latents=0))
        write_sparsify(tmp_path / "layers.6.mlp", weights)
        assert load_sae(tmp_path / "layers.6.mlp").layer is None

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"activation": "groupmax"}, "activation 'groupmax'"),
            ({"transcode": True}, "a transcoder"),
            ({"skip_connection": True}, "a transcoder"),
            ({"k": -1}, "k -1"),
            ({"num_latents": 1 << 50}, "num_latents"),
        ],
    )
    def test_others_are_refused(self, weights, tmp_path, config, message):
        with pytest.raises(CodebookError, match=message):
            load_sae(write_sparsify(tmp_path, weights, **config))


class TestGemmaScope:
    def test_it_computes_the_same(self, weights, x, tmp_path):
        folder = write_gemma_scope(tmp_path, weights)
        pre = x @ weights["W_enc"] + weights["b_enc"]
        for path in (folder, folder / "params.npz"):
            sae = load_sae(path)
            assert (sae.activation, sae.layer) == ("jumprelu", 7)
            check(sae, x, pre.relu() * (pre > 0.8), weights)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"b_dec": torch.zeros(WIDTH - 1)}, "b_dec of shape"),
            ({"threshold": torch.zeros(FEATURES, 1)}, "threshold of shape"),
            ({"W_enc": torch.zeros(3)}, "W_enc of shape"),
            ({"W_dec": torch.zeros(FEATURES, WIDTH, dtype=torch.int64)}, "torch.int64"),
            ({"b_enc": torch.full((FEATURES,), float("nan"))}, "not finite"),
        ],
    )
    def test_sizes_and_values_are_checked(self, weights, tmp_path, changes, message):
        with pytest.raises(CodebookError, match=message):
            load_sae(write_gemma_scope(tmp_path, weights, **changes))

    def test_pickled_arrays_and_damaged_files_are_refused(self, weights, tmp_path):
        path = write_gemma_scope(tmp_path, weights) / "params.npz"
        content = path.read_bytes()
        np.savez(path, W_enc=np.array([{"a": 1}], dtype=object))
        with pytest.raises(CodebookError, match="cannot be read"):
            load_sae(path)
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(CodebookError, match="cannot be read"):
            load_sae(path)


class Payload:
    """Runs a command wherever it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch ran",)

    def test_damaged_packed_files(self, weights, tmp_path):
        path = write_gemma_scope(tmp_path, weights) / "params.npz"
        arrays = {name: weight.numpy() for name, weight in weights.items()}
        np.savez_compressed(path, threshold=np.ones(FEATURES, np.float32), **arrays)
        good = path.read_bytes()
        refused = 0
        for place in range(0, len(good), len(good) // 40):
            path.write_bytes(good[:place] + bytes([good[place] ^ 0x5A]) + good[place + 1 :])
            try:
                load_sae(path)
            except CodebookError:
                refused += 1
        assert refused > 20


class TestQwenScope:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_it_computes_the_same(self, weights, x, tmp_path, dtype):
        rounded = {name: weight.to(dtype).float() for name, weight in weights.items()}
        sae = load_sae(write_qwen_scope(tmp_path, weights, dtype))
        assert (sae.activation, sae.k, sae.layer) == ("topk", K, 4)
        check(sae, x, top(x @ rounded["W_enc"] + rounded["b_enc"]), rounded)

    def test_parameters_and_ordered_dictionaries(self, weights, tmp_path):
        path = write_qwen_scope(tmp_path, weights)
        module = torch.nn.ParameterDict({n: w.T if w.ndim == 2 else w for n, w in weights.items()})
        torch.save(module.state_dict(), path)
        assert torch.equal(load_sae(path).W_enc, weights["W_enc"])
        torch.save({n: torch.nn.Parameter(w) for n, w in module.items()}, path)
        assert torch.equal(load_sae(path).W_enc, weights["W_enc"])

    def test_k_of_the_caller(self, weights, tmp_path):
        path = write_qwen_scope(tmp_path, weights)
        assert load_sae(path, k=3).k == 3
        plain = tmp_path / "layer4.sae.pt"
        path.rename(plain)
        with pytest.raises(InputError, match="pass k="):
            load_sae(plain)

    @pytest.mark.parametrize(
        "content",
        [
            {"W_enc": Payload()},
            Payload(),
            [torch.zeros(2)],
            {"W_enc": torch.zeros(2, dtype=torch.int32)},
            {"W_enc": {"deep": torch.zeros(2)}},
            {"W_enc": torch.zeros(3, 3)},
        ],
        ids=["call", "call at the top", "list", "integers", "nested", "without the rest"],
    )
    def test_nothing_is_run_and_others_are_refused(self, content, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        path = tmp_path / "L0_5" / "layer0.sae.pt"
        path.parent.mkdir()
        torch.save(content, path)
        with pytest.raises(CodebookError):
            load_sae(path)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
    def test_damaged_files(self, weights, tmp_path, kept):
        path = write_qwen_scope(tmp_path, weights)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(CodebookError, match="cannot be read"):
            load_sae(path)

    def test_strides_beyond_the_memory_are_refused(self, weights, tmp_path):
        path = write_qwen_scope(tmp_path, weights)
        shortened = path.with_name("short.pt")
        with zipfile.ZipFile(path) as whole, zipfile.ZipFile(shortened, "w") as cut:
            for name in whole.namelist():
                content = whole.read(name)
                cut.writestr(name, content[:8] if "/data/" in name else content)
        with pytest.raises(CodebookError, match="cannot be read"):
            load_sae(shortened)

    @pytest.mark.parametrize(
        "end",
        [
            b"}h<Ns.",
            b"h<\x93.",
            b"(X\x07\0\0\0storagectorch\nFloatStorage\nh<NNtQ.",
        ],
        ids=["key", "name", "memory"],
    )
    def test_tuples_of_tuples_take_no_time(self, tmp_path, end):
        """Sixty tuples, each of twice the one before: hashing or printing the last never ends."""
        pairs = (b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
        path = tmp_path / "L0_5" / "layer0.sae.pt"
        path.parent.mkdir()
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("sae/data.pkl", b"\x80\x02})q\x00" + b"".join(pairs) + end)
        with pytest.raises(CodebookError, match="cannot be read"):
            load_sae(path)

    def test_no_long_file_is_unpacked_for_the_byte_order(self, weights, tmp_path):
        path = write_qwen_scope(tmp_path, weights)
        packed = path.with_name("packed.pt")
        with zipfile.ZipFile(path) as whole, zipfile.ZipFile(packed, "w") as file:
            for name in whole.namelist():
                if name.endswith("/byteorder"):
                    file.writestr(name, bytes(1 << 20), zipfile.ZIP_DEFLATED)
                else:
                    file.writestr(name, whole.read(name))
        with pytest.raises(CodebookError, match="big-endian"):
            load_sae(packed)

    def test_old_files_of_torch_are_refused(self, weights, tmp_path):
        path = write_qwen_scope(tmp_path, weights)
        torch.save(weights, path, _use_new_zipfile_serialization=False)
        with pytest.raises(CodebookError, match="convert it to safetensors"):
            load_sae(path)


def test_no_known_layout(tmp_path):
    with pytest.raises(CodebookError, match="holds no SAE of a known layout"):
        load_sae(tmp_path)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu"])
def test_it_serves_hidden_taps_and_is_saved_in_a_codebook(tiny_llama, tmp_path, architecture):
    host = Host.load(str(tiny_llama), device="cpu", dtype="float32")
    torch.manual_seed(0)
    width = host.model.config.hidden_size
    tensors = {
        "W_enc": torch.randn(width, 64),
        "W_dec": torch.randn(64, width),
        "b_enc": torch.zeros(64),
        "b_dec": torch.zeros(width),
        "threshold": torch.full((64,), 0.01),
    }
    folder = write_sae_lens(tmp_path / "sae", tensors, architecture, d_in=width, d_sae=64)
    sae = load_sae(folder, k=8)
    codebook = Codebook.of_saes(host, {"hidden.1": sae})
    codebook.save(tmp_path / "codebook", dtype=torch.float32)
    loaded = Codebook.load(tmp_path / "codebook")
    assert loaded.identity == codebook.identity
    got = loaded.saes[Tap("hidden", 1)]
    assert (got.activation, got.k, got.threshold is None) == (
        sae.activation, 8, architecture == "standard",
    )  # fmt: skip
    with S3Index.create(None, host, codebook=loaded) as index:
        index.add(["The old captain paints seven boats.", "A baker mends bread."], progress=False)
        spans = index.search("The old captain paints boats.", mode="s3", k=1)
    assert "captain" in spans[0].text
