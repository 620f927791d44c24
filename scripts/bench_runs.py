"""What the benchmarks have in common: variants, models, rows, clocks, memory."""

from __future__ import annotations

import argparse
import ctypes
import gc
import random
import time
from pathlib import Path
from typing import Any

import torch
from bench_plain import LAYER, OBJECTIVES, PLAIN
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, SchedulerType, TrainerCallback, TrainingArguments

from unlearn_hf.data.alternatives import alternative_rows
from unlearn_hf.data.collator import UnlearningCollator
from unlearn_hf.data.encoding import encode_dataset
from unlearn_hf.data.forget_retain_pairs import PairedDataset
from unlearn_hf.data.templates import resolve_template
from unlearn_hf.methods import METHODS
from unlearn_hf.models.loading import load_model, load_tokenizer
from unlearn_hf.training.finetuning import FinetuningTrainer
from unlearn_hf.training.finetuning_config import FinetuningConfig

# Name: method (`plain ...` is the usual way of writing it), options.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain graddiff": ("plain graddiff", {}),
    "plain npo": ("plain npo", {}),
    "plain ngdiff": ("plain ngdiff", {}),
    "fine-tuning": ("fine-tuning", {}),
    "graddiff": ("graddiff", {}),
    "graddiff padded": ("graddiff", {"packing": "false"}),
    "graddiff selective": ("graddiff", {"selective_checkpointing": True}),
    "npo": ("npo", {}),
    "npo padded": ("npo", {"packing": "false"}),
    "npo selective": ("npo", {"selective_checkpointing": True}),
    "npo+kl": ("npo", {"retain_loss": "kl"}),
    "ngdiff": ("ngdiff", {}),
    "ngdiff padded": ("ngdiff", {"packing": "false"}),
    "eupmu": ("eupmu", {}),
    "eupmu fast": ("eupmu", {"reevaluate": False}),
    "eupmu level": ("eupmu", {"constraint": "level"}),
    "eupmu level fast": ("eupmu", {"constraint": "level", "reevaluate": False}),
    "surgery": ("gradient_surgery", {}),
    "gru": ("gru", {}),
}
for _name in OBJECTIVES:
    _options = {"forget_loss": _name, **({"retain_loss": "hidden", "layer": LAYER} if _name == "rmu" else {})}
    VARIANTS |= {f"plain {_name}": (f"plain {_name}", {}), _name: ("graddiff", _options)}
BASES = {name: "plain npo" for name in VARIANTS if name.startswith("npo")}
BASES |= {variant: f"plain {name}" for name in OBJECTIVES for variant in (name, f"plain {name}")}
"""What a variant is compared with, if not with `plain graddiff`."""


class StepTimer(TrainerCallback):
    """Seconds of each optimizer step but the first of a run: on the clock, and of the processor."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.processor_seconds: list[float] = []
        self._start = (0.0, 0.0)

    def _now(self) -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._start = self._now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock; the first step warms up."""
        if state.global_step > 1:
            now = self._now()
            self.seconds.append(now[0] - self._start[0])
            self.processor_seconds.append(now[1] - self._start[1])


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


def random_rows(count: int, vocabulary: int, seed: int, longer: float = 1.0) -> Dataset:
    """Rows of the lengths of TOFU, or `longer`: a prompt of 12 to 45 tokens, an answer of 15 to 80."""
    generator = random.Random(seed)
    ids, labels = [], []
    for _ in range(count):
        prompt, answer = (int(longer * generator.randint(*span)) for span in ((12, 45), (15, 80)))
        row = [generator.randrange(3, vocabulary) for _ in range(prompt + answer)]
        ids.append(row)
        labels.append([-100] * prompt + row[prompt:])
    return Dataset.from_dict({"input_ids": ids, "labels": labels})


class RowsOnly:
    """Stands in for a tokenizer where rows are encoded already."""

    pad_token_id = 0
    eos_token_id = 0
    chat_template = None

    def get_vocab(self) -> dict[str, int]:
        """There are no words."""
        return {}

    def save_pretrained(self, folder: str) -> None:
        """There is nothing to save."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of all benchmarks of training."""
    parser.add_argument("--model_name_or_path", help="a model folder; a random Llama by default")
    parser.add_argument("--tofu_folder", help="folder of the TOFU files; random rows of the same lengths by default")
    parser.add_argument("--batch_size", type=int, default=8, help="rows of each set per step")
    parser.add_argument("--steps", type=int, default=6, help="timed steps per round")
    parser.add_argument("--vocabulary", type=int, default=16000)
    parser.add_argument("--hidden_size", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--longer", type=float, default=1.0, help="factor on the lengths of random rows")
    parser.add_argument("--lora_r", type=int, help="train an adapter of this rank (not the plain variants)")
    parser.add_argument("--activation_checkpointing", action="store_true")
    parser.add_argument("--output_file", help="write all numbers as JSON")


def load(arguments: argparse.Namespace) -> tuple[Any, Any, Dataset, Dataset]:
    """Model, tokenizer, forget rows, retain rows."""
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
    layers = model.config.num_hidden_layers
    if layers <= LAYER and any("rmu" in variant for variant in getattr(arguments, "variants", [])):
        raise SystemExit(f"--layers: {layers} is too few, `rmu` reads layer {LAYER}; give more than {LAYER}.")
    if arguments.tofu_folder:
        template = resolve_template(tokenizer)
        forget, retain = (
            encode_dataset(Dataset.from_json(str(Path(arguments.tofu_folder) / name)), tokenizer, template)
            for name in ("forget10.json", "retain90.json")
        )
        forget, retain = forget.select(range(rows)), retain.select(range(rows))
        raw = Dataset.from_json(str(Path(arguments.tofu_folder) / "forget10.json")).select(range(rows))
        other = encode_dataset(alternative_rows(raw), tokenizer, template)
        for name in ("input_ids", "labels"):
            forget = forget.add_column(f"alternative_{name}", other[name][:])
    else:
        vocabulary = model.config.vocab_size
        forget, retain, other = (random_rows(rows, vocabulary, seed, arguments.longer) for seed in (1, 2, 3))
        for name in ("input_ids", "labels"):
            forget = forget.add_column(f"alternative_{name}", other[name][:])
    return model, tokenizer, forget, retain


def make_trainer(
    variant: str,
    loaded: tuple[Any, Any, Dataset, Dataset],
    arguments: argparse.Namespace,
    folder: str,
    callbacks: list[Any],
) -> Any:
    """A trainer for `variant` that takes `steps` steps after one that warms up."""
    model, tokenizer, forget, retain = loaded
    method, options = VARIANTS[variant]
    common: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": arguments.steps + 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "learning_rate": 1e-5,
        "weight_decay": 0.01,
        "per_device_train_batch_size": arguments.batch_size,
        "activation_checkpointing": arguments.activation_checkpointing,
        **getattr(arguments, "options", {}),
    }
    adapter = None
    if getattr(arguments, "lora_r", None):
        adapter = LoraConfig(task_type="CAUSAL_LM", r=arguments.lora_r, target_modules="all-linear")
    if method == "fine-tuning":
        common["per_device_train_batch_size"] *= 2
        both = Dataset.from_list([row for pair in zip(forget, retain, strict=True) for row in pair])
        config = FinetuningConfig(**common)
        return FinetuningTrainer(
            model, config, both, processing_class=tokenizer, peft_config=adapter, callbacks=callbacks
        )
    if method.startswith("plain "):
        plain = TrainingArguments(**common, remove_unused_columns=False, dataloader_pin_memory=False)
        rows = PairedDataset(forget, retain, plain.seed, alternative=alternative_rows(forget))
        collator = UnlearningCollator(tokenizer.pad_token_id)
        trainer_class = PLAIN[method.removeprefix("plain ")]
        if method == "plain ngdiff":
            plain.max_grad_norm, plain.lr_scheduler_type = 0.0, SchedulerType.CONSTANT
        return trainer_class(model, plain, train_dataset=rows, data_collator=collator, callbacks=callbacks)
    unlearning_class = METHODS[method]
    settings: Any = {**common, "reference_cache": str(Path(folder) / "reference"), **options}
    return unlearning_class(
        model,
        unlearning_class.config_class(**settings),
        forget,
        retain,
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=callbacks,
    )
