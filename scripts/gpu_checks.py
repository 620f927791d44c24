"""What can only be seen on a GPU, in parts that resume; `gpu_checks.sh` starts it.

Each part is a process of its own that is ended after `--limit` seconds and leaves `PART.json` in `--output_dir`; parts
with a result are not run again, and one that was ended goes on with the rows it has. On the CPU all parts run on tiny
shapes, and those that need a GPU say so.

Share of peak: the arithmetic of plain fine-tuning on the same tokens (6 operations a parameter and token, 4 with an
adapter), over the time of a step and what the data sheet of the card names for bf16 (else a large product reaches).
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_runs import METHODS, VARIANTS, random_rows
from gpu_parts import SHAPES, Part

from unlearn_hf.likelihood.answers import answer_likelihood

ROOT = Path(__file__).parents[1]
OPTIONS: dict[str, dict[str, Any]] = {
    "bf16": {"bf16": True},
    "fp16": {"fp16": True},
    "liger": {"use_liger_kernel": True},
    "compiled": {"torch_compile": True},
    "buffer_on_cpu": {"gradient_buffer_device": "cpu"},
}
STEPS = tuple(f"steps_{size}_{kind}" for size in SHAPES for kind in ("lora", "full"))
TESTS = ("likelihood", "objectives", "gradients", "methods", "training", "evaluation")
PARTS = (*(f"tests_{name}" for name in TESTS), *OPTIONS, "attention", *STEPS, "tofu")
COLUMNS = ("part", "case", "seconds", "ratio", "peak MiB", "share of peak", "note")


def missing(name: str, arguments: argparse.Namespace) -> str | None:
    """Why a part cannot be run here."""
    if name == "tofu":
        return None if arguments.model_name_or_path else "--model_name_or_path names no model"
    if name == "liger" and importlib.util.find_spec("liger_kernel") is None:
        return "liger-kernel is not installed"
    if arguments.device == "cpu" and name in ("fp16", "liger"):
        return "needs a GPU"
    return None


def tests(part: Part) -> None:
    """The tests of a folder with the GPU in sight; on the CPU a few of them."""
    folder = part.name.removeprefix("tests_")
    chosen = f"tests/{folder}" if not part.on_cpu else "tests/likelihood/test_partial_results.py"
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "" if part.on_cpu else os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", chosen]
    start = time.perf_counter()
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    failed = [line for line in ran.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    summary = ran.stdout.strip().splitlines()[-1] if ran.stdout.strip() else ran.stderr.strip()[-200:]
    part.add(chosen, seconds=time.perf_counter() - start, note="; ".join([summary, *failed]))


def option(part: Part) -> None:
    """An option of training beside the same run without it: time, memory, and how far updates agree."""
    options = dict(OPTIONS[part.name])
    if part.on_cpu and part.name == "compiled":
        options["torch_compile_backend"] = "eager"
    for variant in ("npo", "ngdiff"):
        if part.has(variant):
            continue
        updates, rows = [], []
        for chosen in ({}, options):
            measure, model = part.rates(SHAPES["1b"], torch.float32, chosen, None)
            before = [each.detach().clone() for each in model.parameters()]
            rows.append(measure(variant))
            pairs = zip(model.parameters(), before, strict=True)
            updates.append([(each.detach() - was).flatten().cpu() for each, was in pairs])
            del measure, model, before
            gc.collect()
        if "seconds" in rows[0] and "seconds" in rows[1]:
            rows[1]["ratio"] = rows[1]["seconds"] / rows[0]["seconds"]
            inner = [sum(float(a @ b) for a, b in zip(one, other, strict=True)) for one, other in
                     ((updates[0], updates[1]), (updates[0], updates[0]), (updates[1], updates[1]))]  # fmt: skip
            rows[1]["note"] = f"cosine of the updates {inner[0] / (inner[1] * inner[2]) ** 0.5:.3f}"
        part.add(f"{variant} without", **rows[0])
        part.add(variant, **rows[1])


def attention(part: Part) -> None:
    """Packed rows under every kind of attention: forward and backward pass, against padded rows in float32."""
    rows = random_rows(4 if part.on_cpu else 32, 300, 1)
    longest = max(map(len, rows["input_ids"]))
    batch = {
        name: torch.tensor(
            [each + [fill] * (longest - len(each)) for each in rows[name]], device=part.arguments.device
        )
        for name, fill in (("input_ids", 0), ("labels", -100))
    }
    lengths = torch.tensor([len(each) for each in rows["input_ids"]], device=part.arguments.device)
    batch["attention_mask"] = (torch.arange(longest, device=lengths.device) < lengths[:, None]).long()
    expected = answer_likelihood(part.model(SHAPES["1b"]), batch).nll.detach()
    for name in ("sdpa", "eager", "flex_attention", "flash_attention_2"):
        if part.has(name):
            continue
        if name == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
            part.add(name, note="skipped: flash-attn is not installed")
        elif part.on_cpu and name in ("flex_attention", "flash_attention_2"):
            part.add(name, note="skipped: its gradients need a GPU")
        else:
            for packed in (False, True):
                model = part.model(SHAPES["1b"], torch.float32 if part.on_cpu else torch.bfloat16)
                model.set_attn_implementation(name)
                case, seconds = f"{name}, {'packed' if packed else 'padded'}", []
                if part.has(case):
                    continue
                for _ in range(3):
                    start = time.perf_counter()
                    found = answer_likelihood(model, batch, packed=packed).nll
                    found.sum().backward()
                    error = float(((found.detach() - expected).abs() / expected).max())
                    seconds.append(time.perf_counter() - start)
                note = f"largest relative difference from padded rows in float32: {error:.1e}"
                part.add(case, seconds=min(seconds), note=note)


def steps(part: Part) -> None:
    """Time and memory of every method against fine-tuning on the same tokens, in bf16."""
    _, size, kind = part.name.split("_")
    lora_r = 16 if kind == "lora" else None
    dtype = torch.bfloat16 if lora_r is not None else torch.float32
    measure, _ = part.rates(SHAPES[size], dtype, {"bf16": True}, lora_r)
    names = ["fine-tuning", *METHODS]
    for name in names:
        VARIANTS.setdefault(name, (name, {}))
        if part.has(name):
            continue
        if name in ("task_vector", "whp"):  # have no step of two sets
            part.add(name, note="skipped: it fine-tunes on the forget rows alone")
            continue
        row = measure(name)
        base = next((each.get("seconds") for each in part.rows if each["case"] == names[0]), None)
        part.add(name, **row, **({"ratio": row["seconds"] / base} if base and "seconds" in row else {}))


def tofu(part: Part) -> None:
    """The whole way on TOFU, by `tofu_smollm2.sh`, which keeps what is finished."""
    arguments = part.arguments
    runs = Path(arguments.output_dir).absolute() / "tofu"
    environment = os.environ | {
        "MODEL": arguments.model_name_or_path,
        "TOFU": arguments.tofu_folder,
        "RUNS": str(runs),
    }
    environment |= {"SPLIT": "forget10", "VARIANTS": "full", "RETAIN_ROWS": "3600", "EVALUATION_ROWS": "400"}
    if part.on_cpu:
        environment |= {"RETAIN_ROWS": "4", "EVALUATION_ROWS": "2", "EPOCHS": "1", "UNLEARNING_EPOCHS": "1"}
        environment |= {"UNLEARNING_METHODS": "npo", "ACCELERATE_USE_CPU": "true"}
    subprocess.run(["bash", str(ROOT / "scripts" / "tofu_smollm2.sh")], env=environment, check=True)
    for run in sorted(path.parent for path in runs.glob("*/run.json")):
        record = json.loads((run / "run.json").read_text())
        found = {
            name: record.get("metrics", {}).get(name) for name in ("forget_prob", "forget_quality", "model_utility")
        }
        note = ", ".join(f"{name} {value:.3g}" for name, value in found.items() if value is not None)
        verdict = record.get("verdict") or {}
        part.add(run.name, seconds=sum(record.get("seconds", {}).values()),
                 note="; ".join([note, *(f"{name}: {value}" for name, value in verdict.items())]))  # fmt: skip


def runner(name: str) -> Callable[[Part], None]:
    """What runs a part."""
    for prefix, function in (("tests_", tests), ("steps_", steps)):
        if name.startswith(prefix):
            return function
    return {"attention": attention, "tofu": tofu}.get(name, option)


def table(rows: list[dict[str, Any]]) -> str:
    """All rows as Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    for row in rows:
        values = (row.get(name, "") for name in COLUMNS)
        lines.append(tuple(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Run what is missing, each part in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--output_dir", default="runs/gpu_checks")
    parser.add_argument("--model_name_or_path", help="SmolLM2, for the part on TOFU")
    parser.add_argument("--tofu_folder", default="hub", help="folder of the TOFU files, `hub` or `mini`")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--limit", type=int, default=540, help="seconds of a part")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: there is no GPU; --device cpu runs every part on tiny shapes.")
    if arguments.only:
        part = Part(arguments.only, arguments)
        reason = missing(part.name, arguments)
        if reason is not None:
            part.rows = [{"part": part.name, "case": "", "note": f"skipped: {reason}"}]
        else:
            runner(part.name)(part)
        part.write(True)
        return 0
    rows, unfinished = [], []
    for name in arguments.parts:
        part = Part(name, arguments)
        if not (part.file.exists() and json.loads(part.file.read_text())["done"]):
            try:
                command = [sys.executable, *sys.argv, "--only", name]
                ended = str(subprocess.run(command, timeout=arguments.limit, check=False).returncode)
            except subprocess.TimeoutExpired:
                ended = f"{arguments.limit} seconds were over"
            if ended != "0":
                unfinished.append(f"{name} ({ended})")
        rows += Part(name, arguments).rows
    text = table(rows)
    Path(arguments.output_dir).mkdir(parents=True, exist_ok=True)
    (Path(arguments.output_dir) / "table.md").write_text(text + "\n")
    print(text)
    if unfinished:
        print(f"not finished: {', '.join(unfinished)}; the same command goes on with them.")
    return 1 if unfinished else 0


if __name__ == "__main__":
    sys.exit(main())
