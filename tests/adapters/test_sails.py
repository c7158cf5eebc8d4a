"""`sails_init`: the start leaves the model as it is, lies where the features are, and trains."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PeftModel
from torch.nn import functional

from s3_retriever import TopKSAE, sails_init
from s3_retriever.errors import InputError

# PEFT asks newer releases of transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


@pytest.fixture
def start(make, sae, wanted, unwanted, tokenizer):
    """A model with an adapter that `sails_init` started, and the report."""

    def run(model=None, **options):
        model = make() if model is None else model
        settings = {
            "tokenizer": tokenizer,
            "tokens": "all",
            "features": 12,
            "progress": False,
            **options,
        }
        sides = settings.pop("sides", (wanted, unwanted))
        return model, sails_init(model, settings.pop("sae", sae), *sides, **settings)

    return run


@pytest.fixture
def ids(tokenizer, sentences):
    return torch.tensor([tokenizer(text)["input_ids"][:10] for text in sentences[:6]])


def lora(model, layer, name):
    inside = {"q_proj": "self_attn", "o_proj": "self_attn"}.get(name, "mlp")
    module = model.get_submodule(f"base_model.model.model.layers.{layer}.{inside}.{name}")
    return module.lora_A["default"].weight, module.lora_B["default"].weight


def train(model, ids, steps=8):
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()


def test_outputs_are_unchanged_at_step_0_and_the_model_still_trains(start, make, ids):
    model = make(lora_dropout=0.1)
    model.train()
    with torch.no_grad(), model.disable_adapter():
        model.train(False)
        before = model(input_ids=ids).logits
        model.train()
    _, report = start(model)
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(weight.grad is None for weight in model.parameters())
    model.train(False)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, before)
    train(model, ids)
    with torch.no_grad():
        assert not torch.allclose(model(input_ids=ids).logits, before)
    assert report.unexplained < 0.5


def test_the_basis_is_orthonormal_and_spans_most_of_the_features_directions(start, sae):
    _, report = start(variance=0.8)
    basis = report.basis
    torch.testing.assert_close(basis @ basis.T, torch.eye(report.rank), rtol=0, atol=1e-5)
    rows = functional.normalize(sae.W_dec[[f.index for f in report.features]], dim=1)
    torch.testing.assert_close(rows, report.directions)
    kept = float((rows @ basis.T).square().sum() / len(rows))
    assert kept == pytest.approx(report.variance, abs=1e-5)
    fewer = float((rows @ basis[:-1].T).square().sum() / len(rows))
    assert fewer < 0.8 <= kept


def test_features_are_those_whose_mean_activations_differ_most(
    start, sae, base, tokenizer, wanted, unwanted
):
    _, report = start()
    means = []
    for side in (wanted, unwanted):
        rows = []
        for text in side:
            encoded = torch.tensor([tokenizer(text)["input_ids"]])
            with torch.no_grad():
                states = base.model(encoded, output_hidden_states=True).hidden_states[1][0, 1:]
            rows.append(sae.activations(states).mean(0))
        means.append(torch.stack(rows).mean(0))
    difference = means[0] - means[1]
    expected = difference.abs().topk(12).indices
    assert [feature.index for feature in report.features] == expected.tolist()
    for feature in report.features:
        assert feature.difference == pytest.approx(float(difference[feature.index]), abs=1e-4)
    assert report.examples == (40, 40)
    # The two sides differ in who acts, and in nothing else.
    baker = max(report.features, key=lambda feature: feature.difference)
    assert {firing.side for firing in baker.firings} == {"wanted"}
    assert "baker" in "".join(f.before + f.token + f.after for f in baker.firings)


def test_directions_go_into_a_of_readers_after_the_layer_and_b_of_writers(start):
    model, report = start(rank=3)
    fresh, _ = lora(model, 0, "q_proj")
    assert not torch.allclose(fresh[:3], report.basis)
    down, up = lora(model, 1, "q_proj")
    torch.testing.assert_close(down[:3], report.basis)
    assert not up.any()
    for layer in (0, 1):
        down, up = lora(model, layer, "down_proj")
        torch.testing.assert_close(up[:, :3], report.basis.T)
        assert not down.any()
    sides = {
        name.removeprefix("base_model.model.model.layers."): s for name, s in report.modules.items()
    }
    assert sides == {
        "0.self_attn.o_proj": "output",
        "0.mlp.down_proj": "output",
        "1.self_attn.q_proj": "input",
        "1.self_attn.v_proj": "input",
        "1.self_attn.o_proj": "output",
        "1.mlp.up_proj": "input",
        "1.mlp.down_proj": "output",
    }
    assert {name.rpartition(".")[2] for name in report.others} == {"q_proj", "v_proj", "up_proj"}


def test_ranks_above_the_basis_start_at_random_in_its_complement(start, make):
    model, report = start(make(r=8), rank=3)
    down, _ = lora(model, 1, "up_proj")
    _, up = lora(model, 1, "o_proj")
    for rest in (down[3:].detach(), up.T[3:].detach()):
        assert float((rest @ report.basis.T).abs().max()) < 1e-5
        assert float(rest.norm(dim=1).min()) > 0.1
    assert torch.linalg.matrix_rank(down) == 8


def test_an_adapter_of_a_lower_rank_takes_the_first_directions(start, make):
    model, report = start(make(r=2), variance=1.0)
    assert report.rank > 2
    down, _ = lora(model, 1, "q_proj")
    torch.testing.assert_close(down, report.basis[:2])


def test_peft_alone_saves_and_loads(start, base, ids, tmp_path):
    model, _ = start()
    train(model, ids)
    model.train(False)
    with torch.no_grad():
        trained = model(input_ids=ids).logits
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(model.unload(), tmp_path)
    loaded.train(False)
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, trained)


@pytest.mark.parametrize("tokens", ["last", "first_answer", "all"])
def test_tokens_that_matter(start, tokens):
    """Sides that differ in the answer alone differ after the prompt only."""
    prompt = "The old captain counts seven boats"
    sides = [
        [(f"{prompt} {when}", answer) for when in ("on Friday", "before dawn")]
        for answer in ("A baker mends warm bread.", "The night nurse signs every release.")
    ]
    if tokens == "last":
        with pytest.raises(InputError, match="No feature differs"):
            start(tokens=tokens, sides=sides)
        return
    _, report = start(tokens=tokens, sides=sides)
    assert report.tokens == tokens
    assert report.features[0].difference != 0


def test_a_chat_template_is_put_around_and_is_not_part_of_the_text(start, tokenizer):
    own = copy.deepcopy(tokenizer)
    own.chat_template = (
        "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant: {% endif %}"
    )
    chat = [[{"role": "user", "content": "A baker paints seven boats </s>"}]]
    other = [[{"role": "user", "content": "The night nurse counts warm bread"}]]
    model, report = start(tokenizer=own, sides=(chat, other))
    shown = "".join(f.token for feature in report.features for f in feature.firings)
    assert "assistant" not in shown
    _, plain = start(model, tokenizer=own, chat=False, sides=(["A baker"], ["The night nurse"]))
    assert plain.features


def test_bfloat16_models_start_too(start, make, ids):
    model = make().to(torch.bfloat16)
    with torch.no_grad(), model.disable_adapter():
        before = model(input_ids=ids).logits
    start(model)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, before)


class TestBadInput:
    def test_sae_of_another_width(self, start):
        other = TopKSAE(16, 32, 4)
        with pytest.raises(InputError, match="width 16, and the model's have 32"):
            start(sae=other, layer=0)

    def test_sae_of_another_layer_than_it_says(self, start):
        with pytest.raises(InputError, match="output of layer 0, not of layer 1"):
            start(layer=1)

    @pytest.mark.parametrize(
        ("layer", "message"),
        [(None, "does not say which layer"), (7, "the model has layers 0 to 1")],
    )
    def test_sae_of_a_layer_that_is_not_there(self, start, sae, layer, message):
        with pytest.raises(InputError, match=message):
            start(sae=TopKSAE.of(sae.state_dict(), sae.k), layer=layer)

    def test_sae_of_another_model(self, start, sae):
        torch.manual_seed(3)
        weights = {name: torch.randn_like(w) for name, w in sae.state_dict().items()}
        with pytest.raises(InputError, match="belongs to another model or layer"):
            start(sae=TopKSAE.of(weights, sae.k), layer=0)

    def test_texts_on_one_side_only(self, start, wanted):
        with pytest.raises(InputError, match="no unwanted examples"):
            start(sides=(wanted, []))

    def test_no_difference(self, start, wanted):
        with pytest.raises(InputError, match="No feature differs"):
            start(sides=(wanted, list(reversed(wanted))))

    def test_rank_above_the_basis(self, start):
        with pytest.raises(InputError, match=r"rank must be at most 4 \(the adapter has rank 4"):
            start(rank=5)

    def test_rank_above_what_the_features_span(self, start, make):
        with pytest.raises(InputError, match="rank must be at most 32, as many directions"):
            start(make(r=64), rank=40, features=64)

    def test_adapter_already_trained(self, start, make, ids):
        model = make()
        train(model, ids, steps=2)
        with pytest.raises(InputError, match="is trained already"):
            start(model)
        assert all("lora" in n for n, w in model.named_parameters() if w.requires_grad)

    def test_adapter_with_another_initialisation(self, start, make):
        with pytest.raises(InputError, match="init_lora_weights=True"):
            start(make(init_lora_weights="pissa"))

    def test_modules_that_are_not_linear(self, start, base, make):
        base.model.layers[1].mlp.extra = torch.nn.Conv1d(4, 4, 1)
        model = make(target_modules=["q_proj", "extra"])
        with pytest.raises(InputError, match=r"mlp\.extra, which is not a linear module"):
            start(model)

    def test_adapter_without_a_module_that_serves(self, start, make):
        model = make(target_modules=["q_proj"], layers_to_transform=[0])
        with pytest.raises(InputError, match="No module of adapter 'default' reads"):
            start(model)

    def test_other_models_and_adapters(self, start, base, make):
        with pytest.raises(InputError, match="needs a PeftModel, not LlamaForCausalLM"):
            start(base)
        with pytest.raises(InputError, match="no LoRA adapter 'other'"):
            start(adapter="other")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"tokens": "middle"}, "tokens must be last, first_answer or all"),
            ({"variance": 0}, "variance must be above 0"),
            ({"features": 0}, "features must be a whole number"),
            ({"tokens": "first_answer"}, "give pairs of prompt and answer"),
            ({"sides": (["a"], [("a", "b", "c")])}, "must be a text, a pair"),
            ({"sides": (["a"], [""])}, "is empty"),
        ],
    )
    def test_arguments(self, start, options, message):
        with pytest.raises(InputError, match=message):
            start(**options)
