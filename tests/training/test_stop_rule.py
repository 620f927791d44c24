"""Runs that end when they are done, and go back to the best trade-off when they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import debug_launcher
from transformers import TrainerCallback

from tests.small_runs import build_trainer, largest_difference, parameters
from unlearn_hf.training.checkpoints import checkpoints
from unlearn_hf.training.stop_looks import read_looks
from unlearn_hf.training.unlearning import UnlearningTrainer
from unlearn_hf.training.weights_path import WeightsPath

NEVER = "forget_prob < 0"
# So large that the second look is worse than the first.
TOO_FAR = {"learning_rate": 0.6, "forget_weight": 3.0, "max_steps": 8, "stop_when": NEVER}


class Weights(TrainerCallback):
    """Keeps the parameters after every step."""

    def __init__(self) -> None:
        self.after: dict[int, dict[str, torch.Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.after[state.global_step] = parameters(kwargs["model"])


def looks(trainer: UnlearningTrainer) -> list[dict[str, float]]:
    return [line for line in trainer.state.log_history if "stop_forget_prob" in line]


def test_it_stops_at_the_first_look_that_holds(tmp_path: Path) -> None:
    run = build_trainer("graddiff", tmp_path, max_steps=9, stop_when="step >= 4", stop_interval=2)
    run.train()
    assert run.state.global_step == 4
    assert [line["step"] for line in looks(run)] == [2, 4]
    assert run.stop_rule is not None
    assert run.stop_rule.held
    assert str(run.stop_rule.outcome).startswith("step 4: forget_prob")
    assert list(read_looks(tmp_path)) == ["2", "4"]  # what others can follow


def test_measured_are_mean_probabilities_of_the_rows(tmp_path: Path) -> None:
    run = build_trainer("graddiff", tmp_path, max_steps=2, stop_when=NEVER, stop_interval=2, held_back_rows=6)
    run.train()
    assert run.stop_rule is not None
    held = run.run_verdict.held_back
    assert len(held) == 6
    for name, rows in (("forget_prob", run.train_dataset.forget), ("retain_prob", held)):
        found = []
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            with torch.no_grad():
                found.append(float((-run.model.eval()(input_ids=ids, labels=labels).loss).exp()))
        assert looks(run)[-1][f"stop_{name}"] == pytest.approx(sum(found) / len(found), rel=1e-4)


def test_the_best_trade_off_is_put_back(tmp_path: Path) -> None:
    seen = Weights()
    run = build_trainer("graddiff", tmp_path, callbacks=[seen], stop_interval=2, **TOO_FAR)
    run.train()
    rule = run.stop_rule
    assert rule is not None

    def score(line: dict[str, float]) -> float:
        forgotten = 1 - line["stop_forget_prob"] / rule.initial["forget_prob"]
        return forgotten - 2 * max(0.0, 1 - line["stop_retain_prob"] / rule.initial["retain_prob"])

    best = int(max(looks(run), key=score)["step"])
    assert best < 8, "the run must get worse for this test to tell anything"
    assert largest_difference(parameters(run.model), seen.after[best]) == 0
    assert not rule.held
    assert f"the weights after step {best} are kept" in str(rule.outcome)


ON_PATH = {"stop_on_path": True, "stop_when": "forget_prob < 0.9 * initial"}
# Enough is forgotten, so that the path is searched, and yet it never holds: no point keeps the very same probability.
SAME = "retain_prob >= initial and retain_prob <= initial"
SEARCHED = {"stop_on_path": True, "stop_when": f"forget_prob < 0.9 * initial and {SAME}"}


def test_the_nearest_point_at_which_enough_is_forgotten(tmp_path: Path) -> None:
    seen = Weights()
    options: dict[str, Any] = {**TOO_FAR, **ON_PATH, "callbacks": [seen], "stop_interval": 2}
    run = build_trainer("graddiff", tmp_path, **options)
    before = parameters(run.model)
    run.train()
    rule = run.stop_rule
    assert rule is not None
    step = run.state.global_step
    share = float(str(rule.outcome).split("(")[1].split(" %")[0]) / 100
    assert 0 < share < 1
    probe = rule.probes["forget_prob"]
    assert probe.probability(run) < 0.9 * rule.initial["forget_prob"]
    whole = build_trainer("graddiff", tmp_path / "whole", **options | {"stop_when": NEVER, "callbacks": [seen]})
    whole.train()  # the same steps without a stop: where the line ends
    moved = parameters(run.model)
    found = {
        name: ((moved[name] - before[name]).norm() / (seen.after[step][name] - before[name]).norm()).item()
        for name in before
        if (seen.after[step][name] - before[name]).norm() > 0
    }
    assert list(found.values()) == pytest.approx([share] * len(found), abs=0.01)
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            parameter.copy_(before[name] + (share - 0.04) * (seen.after[step][name] - before[name]))
    assert probe.probability(run) > 0.9 * rule.initial["forget_prob"]


def test_the_end_of_a_run_is_looked_at_though_more_steps_are_asked_for(tmp_path: Path) -> None:
    patient = f"{ON_PATH['stop_when']} and step >= 99"
    run = build_trainer("graddiff", tmp_path, **{**TOO_FAR, **ON_PATH, "stop_when": patient, "stop_interval": 8})
    run.train()
    assert run.stop_rule is not None
    assert f"step 8: {patient} never held; the weights after step 8 (" in str(run.stop_rule.outcome)


def test_a_search_leaves_training_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: dict[str, Weights] = {}
    shares: list[float] = []
    nearest = WeightsPath.nearest
    monkeypatch.setattr(WeightsPath, "nearest", lambda *given: shares.append(nearest(*given)) or shares[-1])
    for name, more in (("without", {}), ("with", SEARCHED)):
        runs[name] = Weights()
        options = {**TOO_FAR, **more, "stop_interval": 2}
        build_trainer("graddiff", tmp_path / name, callbacks=[runs[name]], **options).train()
    # The callback looks before the rule does, so that the last step shows what was trained.
    assert largest_difference(runs["without"].after[7], runs["with"].after[7]) == 0
    assert min(shares) < 1


def test_a_run_begun_without_the_path_cannot_be_resumed_with_it(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "stop_when": NEVER}
    build_trainer("graddiff", tmp_path, max_steps=2, **saving).train()
    resumed = build_trainer("graddiff", tmp_path, max_steps=4, stop_on_path=True, **saving)
    with pytest.raises(ValueError, match="stop_on_path: True needs the weights before unlearning"):
        resumed.train(resume_from_checkpoint=True)


def test_trained_again_the_line_begins_before_unlearning(tmp_path: Path) -> None:
    run = build_trainer("graddiff", tmp_path, **{**TOO_FAR, **ON_PATH, "max_steps": 2})
    before = list(parameters(run.model).values())
    for _ in range(2):
        run.train()
        begins = run.stop_rule.state_dict()["before"]  # type: ignore[union-attr]
        for kept, first in zip(begins, before, strict=True):
            assert torch.equal(kept, first)


def test_a_path_needs_a_condition(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop_on_path: it needs a condition"):
        build_trainer("graddiff", tmp_path, stop_on_path=True)


@pytest.mark.parametrize("more", [{}, SEARCHED], ids=["now", "path"])
@pytest.mark.parametrize("interval", [2, 3])
def test_a_resumed_run_is_the_same(interval: int, more: dict[str, Any], tmp_path: Path) -> None:
    options = {
        **TOO_FAR,
        **more,
        "stop_interval": interval,
        "save_strategy": "steps",
        "save_steps": 4,
        "save_total_limit": None,
    }
    run = build_trainer("graddiff", tmp_path / "whole", **options)
    run.train()
    resumed = build_trainer("graddiff", tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(checkpoints(tmp_path / "whole")[0]))
    assert run.stop_rule is not None
    assert resumed.stop_rule is not None
    assert largest_difference(parameters(run.model), parameters(resumed.model)) == 0
    assert resumed.stop_rule.outcome == run.stop_rule.outcome
    assert resumed.stop_rule.initial == run.stop_rule.initial


def test_a_run_begun_without_it_cannot_be_resumed_with_it(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    build_trainer("graddiff", tmp_path, **saving).train()
    resumed = build_trainer("graddiff", tmp_path, stop_when=NEVER, **(saving | {"max_steps": 4}))
    with pytest.raises(ValueError, match="was begun without a stop condition"):
        resumed.train(resume_from_checkpoint=True)


ON_RANKS: dict[str, Any] = {
    **TOO_FAR,
    **ON_PATH,
    "max_steps": 4,
    "stop_interval": 2,
    "verdict": True,
    "verdict_samples": 2,
    "held_back_rows": 5,
}


def _on_two_ranks(folder: str) -> None:
    run = build_trainer(
        "graddiff",
        Path(folder),
        per_device_train_batch_size=2,
        **ON_RANKS,
        ddp_backend="gloo",
    )
    run.train()
    verdict = run.verdict()
    torch.save(
        {"step": run.state.global_step, "looks": looks(run), "after": verdict.after, "before": verdict.before},
        Path(folder) / f"found-{run.args.process_index}.pt",
    )


def test_two_ranks_agree_with_one(tmp_path: Path) -> None:
    one = build_trainer(
        "graddiff",
        tmp_path / "one",
        **ON_RANKS,
    )
    one.train()
    expected = one.verdict()
    assert one.stop_rule is not None
    assert "% of the way" in str(one.stop_rule.outcome)
    debug_launcher(_on_two_ranks, args=(str(tmp_path),), num_processes=2)
    first, second = (torch.load(tmp_path / f"found-{rank}.pt") for rank in (0, 1))
    assert first["step"] == second["step"] == one.state.global_step
    assert first["before"] == second["before"] == pytest.approx(expected.before, rel=1e-5)
    assert first["after"] == second["after"]
    for name in ("forget_prob", "retain_prob"):
        assert first["after"][name] == pytest.approx(expected.after[name], rel=1e-4)
        assert first["looks"][-1][f"stop_{name}"] == pytest.approx(looks(one)[-1][f"stop_{name}"], rel=1e-4)
    assert (tmp_path / "verdict.json").is_file()
