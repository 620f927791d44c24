"""Seconds per optimizer step and peak memory of every method, relative to plain fine-tuning on the same tokens.

All runs happen in one process, in turn, round after round; medians over the steps of all rounds are printed, and
written as JSON with `--output_file`. Plain fine-tuning takes as many rows per step as a method takes of both sets.

    python scripts/bench_step.py
    python scripts/bench_step.py --model_name_or_path DIR --tofu_folder DIR --rounds 3
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from unlearn_hf.config import FinetuningConfig
from unlearn_hf.data.encoding import encode_dataset
from unlearn_hf.data.templates import resolve_template
from unlearn_hf.finetuning import FinetuningTrainer
from unlearn_hf.loading import load_model, load_tokenizer
from unlearn_hf.methods import METHODS

VARIANTS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "fine-tuning": (None, {}),
    "graddiff": ("graddiff", {}),
    "npo": ("npo", {}),
    "npo+kl": ("npo", {"retain_loss": "kl"}),
    "ngdiff": ("ngdiff", {}),
    "eupmu": ("eupmu", {}),
    "eupmu fast": ("eupmu", {"reevaluate": False}),
    "eupmu level": ("eupmu", {"constraint": "level"}),
    "eupmu level fast": ("eupmu", {"constraint": "level", "reevaluate": False}),
    "surgery": ("gradient_surgery", {}),
}


class StepTimer(TrainerCallback):
    """Wall-clock seconds of each optimizer step but the first of a run."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._start = self._now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock; the first step warms up."""
        if state.global_step > 1:
            self.seconds.append(self._now() - self._start)


def reset_peak() -> None:
    """Give free memory back and start a new peak."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def memory(field: str) -> float:
    """Resident memory in MiB: `VmHWM` is the peak since the last reset, `VmRSS` what is held now (CPU)."""
    if torch.cuda.is_available():
        held = torch.cuda.max_memory_allocated() if field == "VmHWM" else torch.cuda.memory_allocated()
        return held / 2**20
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"{field} is not in /proc/self/status")


def random_rows(count: int, vocabulary: int, seed: int) -> Dataset:
    """Rows of the lengths of TOFU: a prompt of 12 to 45 tokens, an answer of 15 to 80."""
    generator = random.Random(seed)
    ids, labels = [], []
    for _ in range(count):
        prompt, answer = generator.randint(12, 45), generator.randint(15, 80)
        row = [generator.randrange(3, vocabulary) for _ in range(prompt + answer)]
        ids.append(row)
        labels.append([-100] * prompt + row[prompt:])
    return Dataset.from_dict({"input_ids": ids, "labels": labels})


class RowsOnly:
    """Stands in for a tokenizer where rows are encoded already."""

    pad_token_id = 0
    eos_token_id = 0
    chat_template = None

    def save_pretrained(self, folder: str) -> None:
        """There is nothing to save."""


def load(arguments: argparse.Namespace) -> tuple[Any, Any, dict[str, torch.Tensor], Dataset, Dataset]:
    """Model, tokenizer, initial weights, forget rows, retain rows."""
    rows = (arguments.steps + 1) * arguments.batch_size
    model: Any
    tokenizer: Any
    if arguments.model_name_or_path:
        model, tokenizer = load_model(arguments.model_name_or_path), load_tokenizer(arguments.model_name_or_path)
    else:
        config = LlamaConfig(
            vocab_size=arguments.vocabulary,
            hidden_size=arguments.hidden_size,
            intermediate_size=arguments.hidden_size * 8 // 3,
            num_hidden_layers=arguments.layers,
            num_attention_heads=arguments.hidden_size // 64,
            num_key_value_heads=arguments.hidden_size // 64,
            tie_word_embeddings=True,
        )
        torch.manual_seed(0)
        model, tokenizer = LlamaForCausalLM(config), RowsOnly()
    if arguments.tofu_folder:
        template = resolve_template(tokenizer)
        forget, retain = (
            encode_dataset(Dataset.from_json(str(Path(arguments.tofu_folder) / name)), tokenizer, template)
            for name in ("forget10.json", "retain90.json")
        )
        forget, retain = forget.select(range(rows)), retain.select(range(rows))
    else:
        vocabulary = model.config.vocab_size
        forget, retain = random_rows(rows, vocabulary, 1), random_rows(rows, vocabulary, 2)
    initial = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return model, tokenizer, initial, forget, retain


def main() -> None:
    """Run every variant in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", help="a model folder; a random Llama by default")
    parser.add_argument("--tofu_folder", help="folder of the TOFU files; random rows of the same lengths by default")
    parser.add_argument("--batch_size", type=int, default=8, help="rows of each set per step")
    parser.add_argument("--steps", type=int, default=6, help="timed steps per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=16000)
    parser.add_argument("--hidden_size", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--output_file", help="write all numbers as JSON")
    arguments = parser.parse_args()
    model, tokenizer, initial, forget, retain = load(arguments)
    seconds: dict[str, list[float]] = {name: [] for name in arguments.variants}
    peaks: dict[str, list[float]] = {name: [] for name in arguments.variants}
    both = Dataset.from_dict(
        {
            name: [row for pair in zip(forget[name], retain[name], strict=True) for row in pair]
            for name in ("input_ids", "labels")
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for variant in arguments.variants:
                method, options = VARIANTS[variant]
                with torch.no_grad():
                    for name, parameter in model.named_parameters():
                        parameter.copy_(initial[name])
                        parameter.grad = None
                common: dict[str, Any] = {
                    "output_dir": folder,
                    "max_steps": arguments.steps + 1,
                    "save_strategy": "no",
                    "disable_tqdm": True,
                    "logging_strategy": "no",
                    "reference_cache": str(Path(folder) / "reference"),
                }
                timer = StepTimer()
                reset_peak()
                held = memory("VmRSS")
                trainer: Any
                if method is None:
                    common.pop("reference_cache")
                    config = FinetuningConfig(per_device_train_batch_size=2 * arguments.batch_size, **common)
                    trainer = FinetuningTrainer(model, config, both, processing_class=tokenizer, callbacks=[timer])
                else:
                    trainer_class = METHODS[method]
                    config = trainer_class.config_class(
                        per_device_train_batch_size=arguments.batch_size, **common, **options
                    )
                    trainer = trainer_class(
                        model, config, forget, retain, processing_class=tokenizer, callbacks=[timer]
                    )
                trainer.train()
                peaks[variant].append(memory("VmHWM") - held)
                seconds[variant] += timer.seconds
                del trainer
    base = arguments.variants[0]
    base_seconds, base_peak = statistics.median(seconds[base]), statistics.median(peaks[base])
    print(f"\n{'method':<20}{'s/step':>9}{'ratio':>8}{'spread':>16}{'peak MiB':>11}{'ratio':>8}")
    table = []
    for name in arguments.variants:
        quartiles = statistics.quantiles(seconds[name], n=4)
        middle, peak = statistics.median(seconds[name]), statistics.median(peaks[name])
        spread = f"{quartiles[0]:.3f}..{quartiles[2]:.3f}"
        print(
            f"{name:<20}{middle:>9.3f}{middle / base_seconds:>8.2f}{spread:>16}{peak:>11.0f}{peak / base_peak:>8.2f}"
        )
        table.append({"variant": name, "seconds": seconds[name], "peak_mib": peaks[name], "median_seconds": middle})
    if arguments.output_file:
        Path(arguments.output_file).write_text(json.dumps({"arguments": vars(arguments), "results": table}, indent=1))


if __name__ == "__main__":
    main()
