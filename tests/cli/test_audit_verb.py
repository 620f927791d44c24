"""`unlearn-hf audit`: one file, goes on after a kill, baselines, signatures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.audits import FEW, audit, hashes, results
from tests.cli.own_rows import TRAINING
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.audit.membership import Membership
from unlearn_hf.audit.relearning import Relearning
from unlearn_hf.cli.main import BAD_INPUT, INTERRUPTED, main
from unlearn_hf.evaluation.results import read_result_samples


def test_every_attack_and_nothing_but_one_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: hashes(Path(name)) for name in ("run", "retain", "model")}
    assert audit("--attacks", "all", "--reference", "retain", "--k", "1", "3") == 0
    after = {name: hashes(Path(name)) for name in before}
    assert after["run"].pop("audit.json")
    assert after == before
    printed = capsys.readouterr().out
    assert printed.index("temporary disk") < printed.index("  run, memorisation")  # told before it starts
    assert "target: model (--target names another)" in printed
    assert "Evidence, not proof" in printed
    content = json.loads((run / "audit.json").read_text())
    assert set(content["attacks"]) == {
        *("memorisation", "quantisation", "relearning", "relearning_lora"),
        *("sampling", "rewording", "membership", "neighbours"),
    }
    found = results(run)
    assert {"rouge_leak@1", "rouge_leak@3", "key_words_leak@3"} <= {name for _, _, name in found}
    assert found["membership", "all", "reference_auc"]["retain"]["value"] == 0.5  # against itself
    for entry in (found["relearning", each, "probability"] for each in ("forget", "part", "benign")):
        assert {"R_one_sided", "R_two_sided", "came_back"} <= entry.keys()
        assert entry["after"]["low"] <= entry["after"]["value"] <= entry["after"]["high"]
    assert found["relearning", "part", "probability"]["n"] == 7
    assert 0 <= content["robustness"]["probability"]["robustness"]["value"] <= 1
    for role, by in content["samples"].items():
        assert ("relearning" in by) == (role != "target")  # the target is not changed
        for variants in by.values():
            for each in variants.values():
                assert all(len(values) == len(each["rows"]) for values in each["values"].values())


def test_a_retain_only_model_that_relearns_alike_is_the_control(run: Path) -> None:
    """A reference with the run's behaviour, in other weights: nothing more comes back than for it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("run")
    model.model.embed_tokens.weight.data[399] += 1  # a token that no row has
    model.save_pretrained("twin")
    words = ["--attacks", "relearning,quantisation", "--relearning_steps", "3", "--relearning_rate", "1e-2"]
    assert audit(*words, "--reference", "twin") == 0
    found = results(run)
    for variant in ("forget", "part", "benign"):
        entry = found["relearning", variant, "probability"]
        assert entry["after"]["value"] == pytest.approx(entry["retain"]["value"], rel=1e-6)
        assert entry["R_two_sided"]["value"] == pytest.approx(1, abs=1e-4)
    assert found["relearning", "forget", "rouge_l_recall"]["rise"]["value"] > 0.1  # it had something to bring back


def test_without_baselines(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit("--attacks", "quantisation", "--target", "none", "--card") == 0
    printed = capsys.readouterr().out
    assert "reference: no baseline" in printed
    assert "No baseline: a retain-only model (--reference)" in printed
    content = json.loads((run / "audit.json").read_text())
    assert content["models"] == {"run": "run", "retain": "no baseline", "target": "no baseline"}
    assert {"Q", "rise"} <= content["results"][-1].keys()
    assert "came_back" not in content["results"][-1]
    card = (run / "README.md").read_text()
    assert card.count("## Audit\n") == 1
    assert "| no baseline |" in card
    assert "## Training" in card
    assert main(["report", "run", "--output_dir", "report"]) == 0
    page = Path("report/report.html").read_text()
    assert 'id="audits"' in page
    assert "Evidence, not proof" in page
    assert audit("--attacks", "quantisation", "--target", "none", "--card", "--overwrite") == 0
    assert Path("run.backup-1/audit.json").is_file()
    assert (run / "README.md").read_text() == card
    (run / "audit.json").write_text('{"results": 7}')
    assert main(["report", "run", "--output_dir", "report", "--overwrite"]) == 0
    assert "audit.json: it cannot be read" in capsys.readouterr().err


def test_batches_do_not_change_what_is_found(run: Path) -> None:
    words = ["run", *FEW[:-2], "--attacks", "sampling,rewording,membership", "--target", "none", "--overwrite"]
    found = []
    for size in ("1", "7"):
        assert main(["audit", *words, "--evaluation_batch_size", size]) == 0
        found.append(json.loads((run / "audit.json").read_text())["samples"]["run"])
    for attack, variants in found[0].items():
        for variant, one in variants.items():
            for measure, values in one["values"].items():
                assert found[1][attack][variant]["values"][measure] == pytest.approx(values, rel=1e-5), measure


@pytest.mark.parametrize(("benchmark", "tokens"), [("lume", 3), ("muse", 32)])
def test_questions_that_are_continued_as_they_are(
    benchmark: str, tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    build_model().save_pretrained("model")
    build_tokenizer().save_pretrained("model")
    few = ["--max_evaluation_rows", "2", *(["--max_new_tokens", "3"] if benchmark == "lume" else [])]
    words = ["--model_name_or_path", "model", "--benchmark", benchmark, "--source", "mini", *few, *TRAINING]
    assert main(["unlearn", "--method", "npo", *words, "--verdict", "false", "--output_dir", "run"]) == 0
    assert main(["audit", "run", "--attacks", "quantisation,rewording", "--target", "none"]) == 0
    content = json.loads(Path("run/audit.json").read_text())
    assert content["settings"]["template"] == "completion"
    assert content["settings"]["generation"]["max_new_tokens"] == tokens
    asked = read_result_samples(Path("run/evaluation.json"))
    assert asked is not None
    rows = asked[asked["split"].str.match("forget_task._qa|knowmem_forget")]
    found = content["samples"]["run"]["memorisation"]["all"]
    assert len(found["rows"]) == len(rows) > 0
    if benchmark == "lume":  # of KnowMem's answers the evaluation takes the first line alone
        assert found["values"]["rouge_l_recall"] == rows["rouge_l_recall"].tolist()


def test_what_was_killed_goes_on_and_is_equal(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--attacks", "relearning,quantisation,sampling", "--reference", "retain"]
    assert audit(*words) == 0
    unbroken = (run / "audit.json").read_bytes()
    (run / "audit.json").unlink()
    before = hashes(run)
    calls = {"count": 0}

    def killed(whole: Callable[..., Any]) -> Callable[..., Any]:
        def findings(self: Any, *arguments: Any) -> Any:
            calls["count"] += 1
            if calls["count"] == 3:
                raise KeyboardInterrupt
            return whole(self, *arguments)

        return findings

    with monkeypatch.context() as patch:
        patch.setattr(Relearning, "findings", killed(Relearning.findings))
        assert audit(*words) == INTERRUPTED
    assert "the same command goes on" in capsys.readouterr().err
    assert not (run / "audit.json").exists()
    assert audit(*words) == 0
    printed = capsys.readouterr().out
    assert "  run, relearning, benign" in printed
    assert "  run, relearning, forget" not in printed
    assert (run / "audit.json").read_bytes() == unbroken
    (run / "audit.json").unlink()
    assert hashes(run) == before


def test_what_other_code_or_another_retain_only_model_left_is_not_taken(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    def measures_again() -> bool:
        capsys.readouterr()
        assert audit("--attacks", "membership", "--reference", "retain") == INTERRUPTED
        return "  run, memorisation" in capsys.readouterr().out

    monkeypatch.setattr(Membership, "findings", killed)
    assert measures_again()
    assert not measures_again()
    with monkeypatch.context() as patch:
        patch.setattr("unlearn_hf.cli.audit.code_digest", lambda: "other")
        assert measures_again()
    config = Path("retain/config.json")
    config.write_text(config.read_text() + "\n")
    assert measures_again()


ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_equal_one(run: Path) -> None:
    words = ["--attacks", "all", "--reference", "retain", *FEW]
    assert main(["audit", "run", *words]) == 0
    one = results(run)
    (run / "audit.json").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--config_file",
         str(ROOT / "configs/accelerate/ddp.yaml"), "-m", "unlearn_hf", "audit", "run", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Evidence, not proof") == 1
    two = results(run)
    assert one.keys() == two.keys()
    for place, entry in one.items():
        for name, number in entry.items():
            if isinstance(number, dict):
                assert number == pytest.approx(two[place][name], abs=1e-6), (place, name)


def test_a_signature_covers_result_weights_and_data(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed: signatures are NOT tested")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    Path("key.pem").write_bytes(key)
    assert main(["audit", "--verify", "run"]) == BAD_INPUT
    assert "audit.json' is not there" in capsys.readouterr().err
    assert audit("--attacks", "memorisation", "--max_evaluation_rows", "5", "--sign", "key.pem") == 0
    before = hashes(Path())
    for words in (["--verify", "run"], ["run", "--verify"]):
        assert main(["audit", *words]) == 0
        assert "verified: result, weights and data" in capsys.readouterr().out
    assert hashes(Path()) == before

    def tampered(path: Path, change: Callable[[bytes], bytes], message: str) -> None:
        whole = path.read_bytes()
        path.write_bytes(change(whole))
        assert main(["audit", "run", "--verify"]) == BAD_INPUT
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error
        path.write_bytes(whole)

    tampered(run / "audit.json", lambda text: text.replace(b"Evidence", b"Proof"), "changed since it was signed")
    tampered(run / "model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "was signed: the model")
    tampered(Path("forget.jsonl"), lambda text: text.replace(b"Ada", b"Eva", 1), "was signed: the data")
    tampered(run / "audit.json.sig", lambda text: text.replace(b'"data"', b'"date"'), "is damaged")
    tampered(run / "audit.json.sig", lambda text: text[:40], "audit.json.sig")
    assert main(["audit", "run", "--verify"]) == 0


def test_a_target_that_is_gone_is_no_baseline(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("model")
    assert audit("--attacks", "memorisation") == 0
    assert "target: no baseline (target: 'model' is neither a folder nor" in capsys.readouterr().out


def test_another_model_without_a_record_can_be_the_reference(run: Path) -> None:
    build_model(seed=5).save_pretrained("plain")
    build_tokenizer().save_pretrained("plain")
    assert audit("--attacks", "memorisation", "--reference", "plain") == 0
    assert json.loads((run / "audit.json").read_text())["models"]["retain"] == "plain"


def test_the_registered_retain_model_is_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--forget_file", "forget.jsonl", "--retain_file", "retain.jsonl"]
    common = [*data, *TRAINING, "--max_steps", "3", "--max_new_tokens", "4"]
    assert main(["finetune", "--model_name_or_path", "model", *common, "--output_dir", "runs/target"]) == 0
    retrain = ["--target", "runs/target", "--output_dir", "runs/gold", "--learning_rate", "1e-2", "--use_cpu"]
    assert main(["retrain", *retrain]) == 0
    words = ["--method", "npo", "--model_name_or_path", "runs/target", "--learning_rate", "1e-2"]
    assert main(["unlearn", *words, *common, "--output_dir", "runs/x", "--retain_results", "none"]) == 0
    capsys.readouterr()
    assert main(["audit", "runs/x", *FEW, "--attacks", "memorisation"]) == 0
    printed = capsys.readouterr().out
    assert "reference: runs/gold (--reference names another)" in printed
    assert "target: runs/target (--target names another)" in printed


def test_an_adapter_in_bfloat16(run: Path) -> None:
    data = ["--forget_file", "forget.jsonl", "--retain_file", "retain.jsonl", "--model_name_or_path", "model"]
    lora = ["--use_lora", "--lora_r", "4", "--learning_rate", "1e-2", "--max_new_tokens", "4"]
    assert main(["unlearn", "--method", "npo", *data, *lora, *TRAINING, "--output_dir", "adapter_run"]) == 0
    before = hashes(Path("adapter_run"))
    words = ["--attacks", "quantisation,relearning,relearning_lora,neighbours", "--model_dtype", "bfloat16"]
    assert main(["audit", "adapter_run", *FEW, *words]) == 0
    found = results(Path("adapter_run"))
    assert found["quantisation", "8bit", "probability"]["after"]["value"] == pytest.approx(
        found["memorisation", "all", "probability"]["after"]["value"], rel=0.2
    )
    after = hashes(Path("adapter_run"))
    assert after.pop("audit.json")
    assert after == before
