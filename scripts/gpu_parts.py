"""A part of the checks on a GPU: the rows it has, the models it trains, and their times."""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_runs import RowsOnly, StepTimer, make_trainer, memory, random_rows, reset_peak
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES: dict[str, dict[str, Any]] = {  # those of Llama 3.2 1B and 3.1 8B
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
}
TINY: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}


class Part:
    """A part that is being run: what is known of it, and where more goes."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self.name, self.arguments = name, arguments
        self.on_cpu = arguments.device == "cpu"
        self.file = Path(arguments.output_dir) / f"{name}.json"
        self.rows: list[dict[str, Any]] = json.loads(self.file.read_text())["rows"] if self.file.exists() else []

    def add(self, case: str, **found: Any) -> None:
        """Keep a row, whatever comes after."""
        self.rows.append({"part": self.name, "case": case, **found})
        self.write(False)

    def has(self, case: str) -> bool:
        """Whether a case was measured before."""
        return any(row["case"] == case for row in self.rows)

    def write(self, done: bool) -> None:
        """Leave what there is."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps({"done": done, "rows": self.rows}, indent=1))
        partial.replace(self.file)

    def model(self, shape: dict[str, Any], dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
        """A random Llama on the device."""
        torch.manual_seed(0)
        shape = TINY if self.on_cpu else shape
        heads, vocabulary = max(1, shape["num_attention_heads"] // 4), 300 if self.on_cpu else 128256
        tied = shape["num_hidden_layers"] < 32
        config = LlamaConfig(vocab_size=vocabulary, num_key_value_heads=heads, tie_word_embeddings=tied, **shape)
        with torch.device(self.arguments.device):
            model = LlamaForCausalLM(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:  # louder, or likelihoods would hardly depend on what attention sees
                parameter.data.mul_(8)
        return model.to(dtype)  # type: ignore[arg-type]

    def rates(self, shape: dict[str, Any], dtype: torch.dtype, options: dict[str, Any], lora_r: int | None) -> Any:
        """A function from a variant to its row of times, and the model it trains."""
        model = self.model(shape, dtype)
        batch, steps = (2, 2) if self.on_cpu else (8, 6)
        rows = [random_rows((steps + 1) * batch, model.config.vocab_size, seed) for seed in (1, 2, 3)]
        for name in ("input_ids", "labels"):
            rows[0] = rows[0].add_column(f"alternative_{name}", rows[2][name][:])
        tokens = sum(len(ids) for each in rows[:2] for ids in each["input_ids"]) / (steps + 1)
        arguments = argparse.Namespace(batch_size=batch, steps=steps, lora_r=lora_r, activation_checkpointing=False)
        arguments.options = {"use_cpu": self.on_cpu, **options}
        operations = (6 if lora_r is None else 4) * sum(each.numel() for each in model.parameters()) * tokens
        peak = peak_rate(self.arguments.device)

        def measure(variant: str) -> dict[str, Any]:
            timer = StepTimer()
            reset_peak()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    trainer = make_trainer(variant, (model, RowsOnly(), *rows[:2]), arguments, folder, [timer])
                    trainer.train()
                except torch.OutOfMemoryError:
                    model.zero_grad(set_to_none=True)
                    return {"note": "does not fit"}
            if lora_r is not None:
                trainer.model.unload()
            model.zero_grad(set_to_none=True)
            del trainer
            gc.collect()
            seconds = statistics.median(timer.seconds)
            found = {"seconds": seconds, "peak MiB": round(memory("VmHWM"))}
            return found | {"share of peak": round(operations / seconds / peak, 3)}

        return measure, model


def peak_rate(device: str) -> float:
    """Operations per second: the card's by its data sheet, or those of a large product."""
    if device != "cpu":
        name = torch.cuda.get_device_name()
        known = [rate for card, rate in PEAKS.items() if card in name]
        if known:
            return known[0]
    size, dtype = (512, torch.float32) if device == "cpu" else (8192, torch.bfloat16)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    left @ right
    start = time.perf_counter()
    for _ in range(10):
        product = left @ right
    product.sum().item()
    return 10 * 2 * size**3 / (time.perf_counter() - start)
