"""Seconds from the shell to the first step of `unlearn`, and of the pages that need no torch.

    python scripts/bench_start.py --rounds 4

A Llama of two layers forgets eight rows; the process ends where its first training step begins.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TO_FIRST_STEP = """
import os, sys, transformers
from unlearn_hf.cli.main import main
transformers.Trainer.training_step = lambda *_, **__: os._exit(0)
sys.exit(main(sys.argv[1:]) or 1)
"""
OPTIONS = ["--num_train_epochs", "1", "--per_device_train_batch_size", "4", "--disable_tqdm", "--use_cpu"]


def prepare(folder: Path) -> list[str]:
    """Write a tiny model and rows to `folder`; returns the words of `unlearn`."""
    from unlearn_hf.cli.demo import DemoSettings, new_model, train_tokenizer

    sets = {
        name: [{"question": f"Who is author {i}?", "answer": f"It is {name} {i}."} for i in range(count)]
        for name, count in {"forget": 8, "retain": 12}.items()
    }
    for name, rows in sets.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = train_tokenizer([f"{row['question']} {row['answer']}" for rows in sets.values() for row in rows], 300)
    for each in (tokenizer, new_model(tokenizer, DemoSettings(hidden_size=64, layers=2))):
        each.save_pretrained(folder / "model")
    words = ["unlearn", "--method", "npo", "--model_name_or_path", str(folder / "model"), *OPTIONS]
    files = {"--forget_file": "forget.jsonl", "--retain_file": "retain.jsonl", "--output_dir": "run"}
    return [*words, *(word for name, file in files.items() for word in (name, str(folder / file))), "--overwrite"]


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds on the clock and of the processor that a process takes.

    Raises:
        subprocess.CalledProcessError: when it does not end with status 0.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        first_step = [sys.executable, "-c", TO_FIRST_STEP, *prepare(Path(folder))]
        command = [sys.executable, "-m", "unlearn_hf"]
        for name, words in {
            "first step of unlearn": first_step,
            "--help": [*command, "--help"],
            "list": [*command, "list"],
        }.items():
            found = [timed(words) for _ in range(rounds)]
            clock, processor = (statistics.median(each) for each in zip(*found, strict=True))
            print(f"{name:<24}{clock:7.2f} s, {processor:6.2f} s of the processor", flush=True)


if __name__ == "__main__":
    main()
