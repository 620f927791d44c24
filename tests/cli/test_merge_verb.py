"""`unlearn-hf merge`, and adapters on a base in 4 bit."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.small_runs import build_trainer
from tests.tiny_models import build_model
from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.models.loading import load_model
from unlearn_hf.training import machine_checks

SHORT = ["--max_new_tokens", "4", "--max_evaluation_rows", "4"]
LORA = ["--use_lora", "--lora_r", "4", "--learning_rate", "1e-2", "--stop_when", "none"]
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: 4 bit is NOT tested"
)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(12)[None]).logits


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1)])
def test_a_merged_model_computes_what_the_adapter_did(
    dtype: str, tolerance: float, unlearn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, merged = tmp_path / "run", tmp_path / "run_merged"
    assert unlearn(*LORA, *SHORT) == 0
    assert main(["merge", "--model_name_or_path", str(run), "--merged_dtype", dtype, *SHORT]) == 0
    printed = capsys.readouterr().out
    assert "largest difference: " in printed
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype="auto")
    assert plain.dtype == getattr(torch, dtype)
    adapter = logits(load_model(str(run)))
    assert (logits(plain.float()) - adapter).abs().max() < tolerance
    assert (adapter - logits(load_model("model"))).abs().max() > 0.1  # the adapter had done something
    found = json.loads((merged / "merge.json").read_text())
    assert found["adapter"]["forget_prob"] == pytest.approx(found["merged"]["forget_prob"], abs=tolerance)
    assert (merged / "evaluation.json").is_file()
    capsys.readouterr()
    assert main(["merge", "--model_name_or_path", str(run)]) == BAD_INPUT
    assert "run_merged' is there already; name a new folder" in capsys.readouterr().err
    assert (
        main(["evaluate", "--model_name_or_path", str(merged), "--output_dir", str(tmp_path / "again"), *SHORT]) == 0
    )


def test_an_adapter_and_a_base_that_do_not_belong_together(
    unlearn: Callable[..., int],
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert unlearn(*LORA, *SHORT) == 0
    build_model(seed=3).save_pretrained(tmp_path / "other")
    build_model().save_pretrained(tmp_path / "moved")
    words = ["merge", "--model_name_or_path", str(run), "--output_dir", str(out)]

    def refused(*more: str) -> str:
        capsys.readouterr()
        assert main([*words, *more]) == BAD_INPUT
        assert not out.exists()
        return capsys.readouterr().err

    assert "is not the model that the adapter" in refused("--base_model", str(tmp_path / "other"))
    assert "is an adapter itself" in refused("--base_model", str(run))
    assert "base_model: './absent' is not there" in refused("--base_model", "./absent")
    assert "is no folder of an adapter" in refused("--model_name_or_path", "model")
    assert "merged_dtype: 'int8' is not known" in refused("--merged_dtype", "int8")
    monkeypatch.chdir(run)  # an adapter, which nobody has named
    assert main(["merge", "--output_dir", str(out)]) == BAD_INPUT
    assert "is no folder of an adapter" in capsys.readouterr().err
    monkeypatch.chdir(workplace)
    (run / "run.json").unlink()  # then shapes alone tell
    wide = build_model()
    wide.model.layers[0].self_attn.q_proj = torch.nn.Linear(48, 32, bias=False)
    wide.save_pretrained(tmp_path / "wide")
    assert "of shape [32, 48], which the adapter's" in refused("--base_model", str(tmp_path / "wide"))
    capsys.readouterr()
    with pytest.warns(UserWarning, match="^base_model: nothing records which weights the adapter"):
        assert main([*words, "--base_model", str(tmp_path / "moved")]) == 0  # the same files elsewhere
    assert "not evaluated: no run.json says on what" in capsys.readouterr().out


def test_a_merge_that_fails_midway_leaves_nothing(
    unlearn: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert unlearn(*LORA, *SHORT) == 0

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("unlearn_hf.models.merging.load_tokenizer", full)
    before = sorted(tmp_path.iterdir())
    assert main(["merge", "--model_name_or_path", str(run), "--output_dir", str(out), *SHORT]) == BAD_INPUT
    assert sorted(tmp_path.iterdir()) == before


@needs_bitsandbytes
@pytest.mark.parametrize("method", ["npo", "eupmu", "ngdiff", "gradient_surgery"])
def test_four_bit_base_under_an_adapter(
    method: str, unlearn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained, resumed from disk by `evaluate` in 4 bit, and merged into the unquantised base."""
    from bitsandbytes.nn import Linear4bit

    run = tmp_path / "run"
    assert unlearn(*LORA, *SHORT, "--load_in_4bit", method=method) == 0
    quantised = load_model(str(run), load_in_4bit=True)
    assert any(isinstance(module, Linear4bit) for module in quantised.modules())
    adapter = logits(quantised)
    assert (adapter - logits(load_model("model", load_in_4bit=True))).abs().max() > 0.1
    if method != "npo":
        return
    again = tmp_path / "again"
    assert main(["evaluate", "--model_name_or_path", str(run), "--output_dir", str(again), *SHORT]) == 0
    values = [json.loads((folder / "evaluation.json").read_text())["metrics"] for folder in (run, again)]
    first, second = ({each["name"]: each["value"] for each in metrics} for metrics in values)
    assert first == pytest.approx(second, rel=1e-4)
    assert main(["merge", "--model_name_or_path", str(run), *SHORT]) == 0
    merged = load_model(str(tmp_path / "run_merged"))
    assert not any(isinstance(module, Linear4bit) for module in merged.modules())
    assert (logits(merged) - logits(load_model(str(run)))).abs().max() < 1e-5  # on the unquantised base
    assert (logits(merged) - adapter).abs().max() > 1e-3  # which is not the quantised one


@needs_bitsandbytes
def test_gradients_through_a_four_bit_base_survive_an_evaluation(workplace: Path) -> None:
    """A pass without gradients (a reference, an evaluation) must leave the layers below a quantised one trainable."""
    from peft import LoraConfig, get_peft_model

    wide = build_model(hidden_size=64)
    wide.save_pretrained(workplace / "wide_model")
    model = get_peft_model(
        load_model(str(workplace / "wide_model"), load_in_4bit=True),
        LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
    )

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        tokens = torch.arange(12)[None]
        model.train()(input_ids=tokens, labels=tokens).loss.backward()
        return [each.grad.clone() for each in model.parameters() if each.grad is not None]

    before = gradients()
    logits(model)
    after = gradients()
    assert len(before) == len(after) > 0
    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_four_bit_is_refused_where_it_cannot_be(
    unlearn: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        unlearn("--load_in_4bit") == BAD_INPUT
        if importlib.util.find_spec("bitsandbytes")
        else unlearn("--load_in_4bit", "--use_lora") == BAD_INPUT
    )
    told = capsys.readouterr().err
    assert "load_in_4bit: True needs " in told
    monkeypatch.setattr(machine_checks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"load_in_4bit: True needs bitsandbytes, which is not installed; install"):
        build_trainer("npo", tmp_path, load_in_4bit=True)


@needs_bitsandbytes
def test_four_bit_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="load_in_4bit: True loads a model by name, and this LlamaForCausalLM"):
        build_trainer("npo", tmp_path, load_in_4bit=True)
