"""Top-k SAEs: the code, the files and the training."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from s3_retriever.errors import CodebookError, InputError
from s3_retriever.sae import SAETrainer, TopKSAE
from s3_retriever.sae.training import report

WIDTH, FEATURES, K = 24, 64, 5


@pytest.fixture
def sae() -> TopKSAE:
    torch.manual_seed(0)
    made = TopKSAE(WIDTH, FEATURES, K)
    with torch.no_grad():
        made.b_enc.normal_(std=0.3)
        made.b_dec.normal_()
    return made.requires_grad_(requires_grad=False)


@pytest.fixture
def x() -> torch.Tensor:
    # More rows than one block of the encoder.
    return torch.randn(5_000, WIDTH, generator=torch.Generator().manual_seed(1)) * 2


def dense_code(sae: TopKSAE, x: torch.Tensor, k: int) -> torch.Tensor:
    """ReLU(topk(...)) as a dense [rows, features] matrix, by sorting."""
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    threshold = pre.sort(dim=1, descending=True).values[:, k - 1 : k]
    return torch.where(pre >= threshold, pre, 0.0).clamp_min(0.0)


@pytest.mark.parametrize("k", [None, 1, 9])
def test_encode_keeps_the_largest_preactivations(sae, x, k):
    values, indices = sae.encode(x, k)
    kept = K if k is None else k
    assert values.shape == indices.shape == (len(x), kept)
    assert (values.dtype, indices.dtype) == (torch.float32, torch.int64)
    dense = torch.zeros(len(x), FEATURES).scatter_add(1, indices.clamp_min(0), values)
    torch.testing.assert_close(dense, dense_code(sae, x, kept), rtol=1e-4, atol=1e-4)
    assert (values.diff(dim=1) <= 0).all()


def test_features_that_do_not_fire_have_index_minus_one(sae, x):
    sae.b_enc -= 6.0
    values, indices = sae.encode(x)
    silent = indices == -1
    assert 0.1 < silent.float().mean() < 0.9
    assert (values[silent] == 0).all()
    assert (values[~silent] > 0).all()
    torch.testing.assert_close(
        sae.decode(values, indices), dense_code(sae, x, K) @ sae.W_dec + sae.b_dec
    )


def test_asking_for_more_than_there_are_gives_all(sae, x):
    values, _ = sae.encode(x[:3], 1_000)
    assert values.shape == (3, FEATURES)


def test_no_rows(sae):
    values, indices = sae.encode(torch.zeros(0, WIDTH), 7)
    assert values.shape == indices.shape == (0, 7)
    assert sae.decode(values, indices).shape == (0, WIDTH)


def test_forward_reconstructs(sae, x):
    expected = dense_code(sae, x, K) @ sae.W_dec + sae.b_dec
    torch.testing.assert_close(sae(x), expected, rtol=1e-4, atol=1e-4)


def test_k_out_of_range():
    with pytest.raises(InputError, match="k must be a whole number of at least 1, not 0"):
        TopKSAE(WIDTH, FEATURES, 0)
    with pytest.raises(CodebookError, match="k must be between 1 and the 64 features, not 65"):
        TopKSAE(WIDTH, FEATURES, FEATURES + 1)


class TestFiles:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_round_trip(self, sae, x, tmp_path, dtype):
        with torch.no_grad():
            sae.b_dec[0] = 1e5  # beyond float16: the mean of a wide residual stream
        sae.save(tmp_path / "deep" / "sae", dtype=dtype)
        loaded = TopKSAE.load(tmp_path / "deep" / "sae")
        assert (loaded.width, loaded.features, loaded.k) == (WIDTH, FEATURES, K)
        assert loaded.layer is None
        for name, weight in sae.state_dict().items():
            got = loaded.state_dict()[name]
            assert got.dtype == torch.float32
            expected = weight.to(dtype).float() if weight.ndim == 2 else weight
            assert torch.equal(got, expected)
        assert not any(weight.requires_grad for weight in loaded.parameters())

    def test_layout_is_that_of_saelens(self, sae, tmp_path):
        sae.save(tmp_path, dtype=torch.float16, hook_name="key.5")
        config = json.loads((tmp_path / "cfg.json").read_text())
        metadata = config.pop("metadata")
        assert config == {
            "architecture": "topk",
            "d_in": WIDTH,
            "d_sae": FEATURES,
            "k": K,
            "dtype": "float16",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "rescale_acts_by_decoder_norm": False,
        }
        assert metadata["hook_name"] == "key.5"
        assert metadata["sae_lens_version"].startswith("6.")
        tensors = load_file(tmp_path / "sae_weights.safetensors")
        assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
            "W_enc": (WIDTH, FEATURES),
            "W_dec": (FEATURES, WIDTH),
            "b_enc": (FEATURES,),
            "b_dec": (WIDTH,),
        }

    @pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
    @pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
    def test_damaged_files(self, sae, tmp_path, name, damage):
        sae.save(tmp_path)
        path = tmp_path / name
        content = path.read_bytes()
        path.unlink()
        if damage != "missing":
            path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
        with pytest.raises(CodebookError, match=name):
            TopKSAE.load(tmp_path)

    @pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec"])
    def test_tensors_of_another_shape_or_absent(self, sae, tmp_path, name):
        sae.save(tmp_path)
        path = tmp_path / "sae_weights.safetensors"
        tensors = load_file(path)
        save_file(tensors | {name: tensors[name][:-1].contiguous()}, path)
        with pytest.raises(CodebookError, match=f"no tensor {name} of shape"):
            TopKSAE.load(tmp_path)
        del tensors[name]
        save_file(tensors, path)
        with pytest.raises(CodebookError, match=f"no tensor {name} of shape"):
            TopKSAE.load(tmp_path)

    @pytest.mark.parametrize(
        "change",
        [
            {"architecture": "jumprelu"},
            {"rescale_acts_by_decoder_norm": True},
            {"apply_b_dec_to_input": False},
            {"normalize_activations": "expected_average_only_in"},
            {"k": 0},
            {"k": FEATURES + 1},
            {"d_in": "24"},
            {"d_sae": None},
        ],
    )
    def test_configurations_that_cannot_be_used(self, sae, tmp_path, change):
        sae.save(tmp_path)
        path = tmp_path / "cfg.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(CodebookError):
            TopKSAE.load(tmp_path)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec"])
    def test_weights_that_are_not_finite_are_refused(self, sae, tmp_path, name, value):
        with torch.no_grad():
            getattr(sae, name).view(-1)[3] = value
        sae.save(tmp_path)
        with pytest.raises(CodebookError, match=f"{name} in .* not finite numbers"):
            TopKSAE.load(tmp_path)

    def test_saving_follows_no_links(self, sae, tmp_path):
        (tmp_path / "precious").write_text("mine")
        for name in ("cfg.json", "sae_weights.safetensors"):
            (tmp_path / name).symlink_to(tmp_path / "precious")
        sae.save(tmp_path)
        assert (tmp_path / "precious").read_text() == "mine"
        assert TopKSAE.load(tmp_path).k == sae.k


def sparse_data(rows: int, seed: int) -> torch.Tensor:
    """Sums of three of 48 known directions, away from the origin, in large units."""
    directions = torch.randn(48, WIDTH, generator=torch.Generator().manual_seed(7))
    directions = functional.normalize(directions, dim=1)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(rows, 48, generator=generator).topk(3, dim=1).indices
    sizes = 1 + torch.rand(rows, 3, generator=generator)
    code = torch.zeros(rows, 48).scatter(1, chosen, sizes)
    return 30 * (code @ directions) + 100


def trainer_for(data: torch.Tensor, total_steps: int = 700, **options) -> SAETrainer:
    torch.manual_seed(0)
    sae = TopKSAE(WIDTH, FEATURES, K)
    return SAETrainer(sae, data, learning_rate=3e-3, total_steps=total_steps, **options)


def run(trainer: SAETrainer, data: torch.Tensor, steps: int, seed: int = 0) -> float:
    generator = torch.Generator().manual_seed(seed)
    error = 1.0
    for _ in range(steps):
        error = trainer.train(data[torch.randint(len(data), (256,), generator=generator)])
    return error


class TestTraining:
    def test_it_explains_the_data_and_revives_dead_latents(self):
        data = sparse_data(8_000, 0)
        trainer = trainer_for(data, total_steps=1_000)
        with torch.no_grad():
            trainer.sae.b_enc[:32] = -100.0  # these can never fire by themselves
        first = run(trainer, data, 1)
        run(trainer, data, 999, seed=1)
        assert trainer.step == 1_000
        fresh = sparse_data(4_000, 1)
        measured = report(trainer.finished(), fresh)
        assert measured.unexplained_variance < 0.1 < first
        _, indices = trainer.finished().encode(fresh)
        assert len(indices[(indices >= 0) & (indices < 32)].unique()) >= 8
        norms = trainer.sae.W_dec.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones(FEATURES), rtol=1e-5, atol=1e-5)

    def test_bfloat16_fits_nearly_as_well(self):
        data = sparse_data(8_000, 0)
        trainer = trainer_for(data, total_steps=300, bfloat16=True)
        run(trainer, data, 300)
        assert report(trainer.finished(), sparse_data(2_000, 1)).unexplained_variance < 0.3

    def test_finished_folds_centre_and_scale_in(self):
        data = sparse_data(4_000, 0)
        trainer = trainer_for(data)
        run(trainer, data, 20)
        assert trainer.scale > 5
        finished = trainer.finished()
        values, indices = finished.encode(data)
        unit_values, unit_indices = trainer.sae.encode((data - trainer.centre) / trainer.scale)
        assert (indices == unit_indices).float().mean() > 0.999
        same = (indices == unit_indices).all(1)
        torch.testing.assert_close(
            values[same], unit_values[same] * trainer.scale, rtol=1e-3, atol=1e-2
        )
        rebuilt = trainer.sae.decode(unit_values, unit_indices) * trainer.scale + trainer.centre
        torch.testing.assert_close(finished(data)[same], rebuilt[same], rtol=1e-3, atol=1e-2)

    def test_state_goes_on_bit_by_bit(self):
        data = sparse_data(4_000, 0)
        trainer = trainer_for(data, total_steps=800)
        run(trainer, data, 240)
        state = trainer.state()
        run(trainer, data, 20, seed=5)  # over the check for dead latents at step 250
        torch.manual_seed(99)
        other = SAETrainer(
            TopKSAE(WIDTH, FEATURES, K), data[:100], learning_rate=3e-3, total_steps=800
        )
        other.restore(state)
        assert other.step == 240
        run(other, data, 20, seed=5)
        for name, tensor in trainer.state().items():
            assert torch.equal(tensor, other.state()[name]), name

    def test_mean_activations_are_those_of_the_tokens_on_which_features_fire(self):
        data = sparse_data(4_000, 0)
        trainer = trainer_for(data, total_steps=300)
        run(trainer, data, 300)
        finished = trainer.finished()
        values, indices = finished.encode(data)
        fires = indices >= 0
        total = torch.zeros(FEATURES).index_add_(0, indices[fires], values[fires])
        counts = torch.bincount(indices[fires], minlength=FEATURES)
        often = counts > 100
        assert often.sum() > 20
        measured = (total / counts)[often] / finished.mean_activations[often]
        torch.testing.assert_close(measured, torch.ones_like(measured), rtol=0.1, atol=0.0)
        added = finished.mean_contributions.norm(dim=1)
        torch.testing.assert_close(added, finished.mean_activations, rtol=1e-4, atol=1e-4)

    def test_a_metric_decides_which_errors_count(self):
        data = sparse_data(4_000, 0)
        axes = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
        weights = torch.cat([torch.full((4,), 6.0), torch.full((WIDTH - 4,), 0.5)])
        metric = axes * weights @ axes.T
        errors = {}
        for name, chosen in (("none", None), ("metric", metric)):
            trainer = trainer_for(data, total_steps=300, metric=chosen)
            run(trainer, data, 300)
            finished = trainer.finished()
            error = (data - finished(data)).detach()
            errors[name] = float((error @ metric).pow(2).sum()), float(error.pow(2).sum())
        assert errors["metric"][0] < 0.8 * errors["none"][0]
        assert errors["metric"][1] > errors["none"][1]
        other = trainer_for(data[:500], total_steps=300)
        other.restore(trainer.state())
        torch.testing.assert_close(other.finished().W_dec, finished.W_dec)

    def test_state_is_a_snapshot(self):
        data = sparse_data(1_000, 0)
        trainer = trainer_for(data)
        run(trainer, data, 2)
        state = trainer.state()
        before = {name: tensor.clone() for name, tensor in state.items()}
        run(trainer, data, 2)
        assert all(torch.equal(state[name], before[name]) for name in state)


def test_report_counts_by_hand():
    sae = TopKSAE(2, 4, 1)
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]))
        sae.W_enc.copy_(sae.W_dec.T)
    # Feature 0 three times, feature 1 once; the small second part stays unexplained.
    sample = torch.tensor([[2.0, 0.5], [2.0, -0.5], [2.0, 0.5], [0.0, 3.0]])
    measured = report(sae, sample)
    variance = float((sample - sample.mean(0)).pow(2).sum())
    assert measured.unexplained_variance == pytest.approx(0.75 / variance)
    assert measured.dead_share == 0.5
    assert measured.active == 1.0
    assert measured.frequency[0] == pytest.approx(0.125)
    assert measured.frequency[3] == 0.75
    assert measured.tokens == 4
