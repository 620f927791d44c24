"""How far the defaults for rows of one's own get: tries over models, sizes and seeds, each with its verdict.

    python scripts/study_row_defaults.py --models runs/demo/target runs/demo/target:adapter --sizes 4 12 40

A try cuts whole subjects (`--subject` rows each) out of the rows that a model has learned, keeps a sample of the
others, and unlearns as the README shows it in Python: what is not given is chosen by the rules. Rows in neither file
are measured, too: nothing was trained or chosen on them. Finished tries are kept in `--output_dir` and not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import torch
from datasets import Dataset
from peft import LoraConfig

from unlearn_hf.benchmarks.tofu.data import load_tofu
from unlearn_hf.data.encoding import encode_dataset
from unlearn_hf.data.own_files import read_rows
from unlearn_hf.data.templates import resolve_template
from unlearn_hf.evaluation.engine import settings_fingerprint
from unlearn_hf.methods import METHODS
from unlearn_hf.training.retain_level import RetainProbe

QUIET: dict[str, Any] = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
Rows = list[dict[str, Any]]
FORMS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "questions": lambda question, answer: {"question": question, "answer": answer},
    "messages": lambda question, answer: {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    },
    "text": lambda question, answer: {"text": f"{question} {answer}"},
}


def cut(rows: Rows, forget: int, keep: int, subject: int, seed: int) -> tuple[Rows, Rows, Rows]:
    """Rows to forget (of whole subjects, the last one in part), rows to keep, and rows in neither file."""
    draw = random.Random(seed)
    subjects = list(range(0, len(rows), subject))
    draw.shuffle(subjects)
    chosen = [row for first in subjects[: math.ceil(forget / subject)] for row in range(first, first + subject)][
        :forget
    ]
    others = [row for number, row in enumerate(rows) if number not in set(chosen)]
    draw.shuffle(others)
    return [rows[number] for number in chosen], others[:keep], others[keep:]


def one_try(
    model: str, adapter: bool, parts: tuple[Rows, Rows, Rows], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Unlearn with what the rules choose; returns the verdict in numbers."""
    forget, retain = (Dataset.from_list(each) for each in parts[:2])
    start = time.perf_counter()
    method = METHODS[arguments.method]
    options = {**QUIET, **json.loads(arguments.options), "use_cpu": not torch.cuda.is_available()}
    with tempfile.TemporaryDirectory() as folder:
        config = method.config_class.for_rows(model, forget, retain, adapter=adapter, output_dir=folder, **options)
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM") if adapter else None
        trainer = method(model, config, forget, retain, peft_config=lora)
        probe = None
        if parts[2]:
            template = resolve_template(trainer.processing_class, config.template)
            rest = encode_dataset(
                Dataset.from_list(parts[2]), trainer.processing_class, template, config.max_length, "others"
            )
            probe = RetainProbe(rest, arguments.others, seed=0)
        before = probe.probability(trainer) if probe is not None else None
        trainer.train()
        verdict = trainer.verdict()
        after = probe.probability(trainer) if probe is not None else None
    assert verdict.kept_share is not None
    assert trainer.stop_rule is not None
    return {
        "steps": trainer.state.global_step,
        "before": verdict.before["forget_prob"],
        "after": verdict.after["forget_prob"],
        "leaking": len(verdict.leaking_rows),
        "guessed": len(verdict.guessed_rows),
        "kept": verdict.kept_share["mean"],
        "others": None if before is None or after is None else after / before,
        "seconds": time.perf_counter() - start,
        "done": verdict.forgotten == "yes" and verdict.kept == "yes",
        "outcome": trainer.stop_rule.outcome,
        "rows": verdict.leaking_rows + verdict.guessed_rows,
    }


def file_of(model: str, size: int, seed: int, rows: Rows, arguments: argparse.Namespace) -> Path:
    """Where a try is kept: of these rows and options alone."""
    options = [getattr(arguments, name) for name in ("keep", "subject", "others", "method", "options")]
    name = model.strip("/").replace("/", "_").replace(":", "_")
    return Path(arguments.output_dir) / f"{name}_{size}_{seed}_{settings_fingerprint(rows, options)[:8]}.json"


def table(tries: list[dict[str, Any]]) -> str:
    """A line for each try, and how many reached the aim by model."""
    lines = [
        "| model | rows | seed | steps | forget Prob | leak | by chance | kept | others | aim |",
        "|" + " --- |" * 10,
    ]
    for each in tries:
        others = "" if each["others"] is None else f"{each['others']:.3f}"
        lines.append(
            f"| {each['model']} | {each['size']} | {each['seed']} | {each['steps']} | {each['before']:.2f} to "
            f"{each['after']:.3f} | {each['leaking']} | {each['guessed']} | {each['kept']:.3f} | {others} | "
            f"{'yes' if each['done'] else 'no'} |"
        )
    for model, part in pd.DataFrame(tries).groupby("model", sort=False):
        lines.append(f"\n{model}: {part['done'].sum()} of {len(part)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="folders, with `:adapter` for an adapter on top")
    parser.add_argument("--rows", help="JSON lines that the models have learned; by default the bundled mini data")
    parser.add_argument("--form", default="questions", choices=list(FORMS), help="how rows are given")
    parser.add_argument("--sizes", nargs="+", type=int, default=[4, 12, 20, 40], help="rows to forget")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--keep", type=int, default=60, help="rows to keep, five times the rows to forget at least")
    parser.add_argument("--subject", type=int, default=10, help="rows on one subject, which follow one another")
    parser.add_argument("--others", type=int, default=100, help="rows in neither file to measure, at most")
    parser.add_argument("--method", default="npo", choices=list(METHODS))
    parser.add_argument("--options", default="{}", help="JSON of options that are given, such as '{\"bf16\": true}'")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/study_rows"))
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    rows = read_rows(arguments.rows) if arguments.rows else list(load_tofu("forget10", source="mini")["full"])
    rows = [FORMS[arguments.form](row["question"], row["answer"]) for row in rows]
    tries = []
    for name, size, seed in product(arguments.models, arguments.sizes, arguments.seeds):
        file = file_of(name, size, seed, rows, arguments)
        if not file.exists():
            model, _, kind = name.partition(":")
            parts = cut(rows, size, max(arguments.keep, 5 * size), arguments.subject, seed)
            found = {"model": name, "size": size, "seed": seed, **one_try(model, kind == "adapter", parts, arguments)}
            file.write_text(json.dumps(found, indent=2) + "\n")
        tries.append(json.loads(file.read_text()))
        print({key: value for key, value in tries[-1].items() if key != "rows"}, flush=True)
    (arguments.output_dir / "table.md").write_text(table(tries))
    print(table(tries))


if __name__ == "__main__":
    main()
