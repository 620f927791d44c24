"""Run folders made by hand, no model needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.evaluation.results import write_results

ROWS = 12
NASTY = "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"


def sample_table(loss: float, rows: int = ROWS, answer: str = "It is Oslo.") -> pd.DataFrame:
    """Forget rows with mean loss `loss`, and rows of the other sets that stay as they are."""
    generator = np.random.default_rng(0)
    parts = []
    for split in ("forget", "retain", "real_authors", "world_facts"):
        losses = (loss if split == "forget" else 0.1) + generator.uniform(0, 0.05, rows)
        parts.append(
            pd.DataFrame(
                {
                    "split": split,
                    "index": range(rows),
                    "answer_mean_nll": losses,
                    "answer_tokens": 4,
                    "paraphrase_mean_nll": losses + 0.5 if split in ("forget", "retain") else np.nan,
                    "perturbed_mean_nll": [list(1.5 + generator.uniform(0, 1, 3)) for _ in range(rows)],
                    "rouge_l_recall": generator.uniform(0.5, 1, rows),
                    "prompt": [f"Where does author {index} of {split} live?" for index in range(rows)],
                    "generation": answer,
                    "reference_text": "In Oslo.",
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run folder; `record=None` leaves out `run.json`, as for a target that was only evaluated."""

    def make(name: str, loss: float = 3.0, record: dict[str, Any] | None = None, **options: Any) -> Path:
        folder = tmp_path / name
        table = sample_table(loss, **options)
        write_results(folder, aggregate_tofu(table, fingerprint="data"), table, benchmark="tofu", fingerprint="data")
        if record is not None:
            content = {
                "verb": "unlearn",
                "status": "finished",
                "seconds": {"training": 61.0, "evaluation": 2.5},
                "versions": {"unlearn_hf": "0"},
                **record,
            }
            (folder / "run.json").write_text(json.dumps(content))
            history = [
                {"step": step, "forget_loss": float(step), "retain_loss": 0.1, "dual_variable": 1.0, "epoch": step}
                for step in range(1, 6)
            ]
            (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
        return folder

    return make
