"""The report of an adapter's start: on disk, as HTML, in the command, and after training."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from s3_retriever import SailsReport, sails_init
from s3_retriever.adapters import Feature, Firing
from s3_retriever.cli.app import app
from s3_retriever.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


@pytest.fixture
def started(make, sae, wanted, unwanted, tokenizer):
    model = make()
    report = sails_init(
        model, sae, wanted, unwanted, tokenizer=tokenizer, tokens="all", progress=False
    )
    return model, report


def inspect(*arguments):
    result = CliRunner().invoke(app, ["adapt", "inspect", *map(str, arguments)])
    return result.exit_code, result.output


def set_update(model, name, inner, side):
    """Give a module the update `ones x inner`, in its input or output space."""
    module = model.get_submodule(name)
    down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
    with torch.no_grad():
        down.zero_()
        up.zero_()
        if side == "input":
            down[0], up[:, 0] = inner, 1.0
        else:
            down[0], up[:, 0] = 1.0, inner


def test_shares_of_updates_in_the_basis_and_along_features(started):
    model, report = started
    assert report.updates(get_peft_model_state_dict(model)) == []
    names = {side: name for name, side in report.modules.items()}
    outside = torch.linalg.svd(report.basis)[2][report.rank]
    for side, name in names.items():
        set_update(model, name, 0.6 * report.basis[0] + 0.8 * outside, side)
    updates = report.updates(get_peft_model_state_dict(model))
    assert {update.side for update in updates} == {"input", "output"}
    for update in updates:
        assert update.share == pytest.approx(0.36, abs=1e-4)
        assert update.chance == report.rank / 32
        along = report.directions @ (0.6 * report.basis[0] + 0.8 * outside)
        assert update.features == pytest.approx(along.square().tolist(), abs=1e-4)


def test_a_report_is_saved_and_loaded(started, tmp_path):
    _, report = started
    report.save(tmp_path)
    loaded = SailsReport.load(tmp_path)
    assert loaded.to_dict() == report.to_dict()
    assert torch.equal(loaded.basis, report.basis)
    assert torch.equal(loaded.directions, report.directions)


def test_the_command_shows_features_and_updates(started, tmp_path):
    model, report = started
    model.save_pretrained(tmp_path)
    code, output = inspect(tmp_path)
    assert (code, "no sails.json" in " ".join(output.split())) == (1, True)
    report.save(tmp_path)
    code, output = inspect(tmp_path)
    assert code == 0
    assert str(report.features[0].index) in output
    assert "not trained yet" in output
    name, side = next(iter(report.modules.items()))
    set_update(model, name, report.basis[0], side)
    model.save_pretrained(tmp_path)
    code, output = inspect(tmp_path, "--html", tmp_path / "page.html")
    assert "100.0%" in output
    assert "100.0%" in (tmp_path / "page.html").read_text()
    code, output = inspect(tmp_path, "--json")
    values = json.loads(output)
    assert values["updates"][0]["name"] == name
    assert values["updates"][0]["share"] == pytest.approx(1)
    assert values["rank"] == report.rank


def test_texts_of_examples_act_on_no_page_and_no_terminal(started, tmp_path):
    _, report = started
    firing = Firing("wanted", "<script>alert(1)</script>", "\x1b[31m<b>", "\u202eafter", 1.0)
    report = replace(
        report, features=(Feature(7, 1.0, 0.0, (firing,)),), directions=report.basis[:1]
    )
    assert "<script>" not in report.html()
    assert "\x1b" not in report.html()
    report.save(tmp_path)
    name = next(iter(report.modules))
    save_file(
        {f"{name}.lora_{part}.weight": torch.zeros(4, 4) for part in "AB"},
        tmp_path / "adapter_model.safetensors",
    )
    _, output = inspect(tmp_path)
    assert "\x1b" not in output


def test_another_adapter_and_damaged_files_are_refused(started, tmp_path):
    model, report = started
    report.save(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        report.updates(tmp_path)
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name: weight[..., :3].contiguous() for name, weight in weights.items()}, path)
    with pytest.raises(InputError, match="not that of this adapter"):
        report.updates(tmp_path)
    good = (tmp_path / "sails.json").read_text()
    for damage in (
        good[:40],
        "[]",
        good.replace('"rank": ', '"rank": 1'),
        good.replace('"input"', '"sideways"'),
        good.replace('"features"', '"nothing"'),
        good.replace('"rank": ', '"rank": 1e999, "was": '),
    ):
        (tmp_path / "sails.json").write_text(damage)
        with pytest.raises(InputError, match="is damaged"):
            SailsReport.load(tmp_path)


def test_what_is_not_tensors_and_what_is_not_finite_is_refused(started):
    model, report = started
    weights = get_peft_model_state_dict(model)
    with pytest.raises(InputError, match="not that of this adapter"):
        report.updates(dict.fromkeys(weights, 3))
    with pytest.raises(InputError, match="not a finite number; train"):
        report.updates({name: weight + torch.nan for name, weight in weights.items()})


def test_a_report_is_written_to_folders_only(started, tmp_path):
    _, report = started
    (tmp_path / "file").write_text("a file")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="cannot be written"):
            report.save(folder)
