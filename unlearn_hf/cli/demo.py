"""The whole story on the bundled mini data: memorise, retrain, unlearn with four methods, compare."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import concatenate_datasets
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, ProgressCallback, set_seed

from unlearn_hf.benchmarks.tofu.data import TofuData, load_tofu
from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator
from unlearn_hf.common.files import whole_file, write_json
from unlearn_hf.data.templates import TEMPLATES
from unlearn_hf.methods import METHODS
from unlearn_hf.training.config import FinetuningConfig
from unlearn_hf.training.finetuning import FinetuningTrainer

SUMMARY_KEYS = (
    "method",
    "forget_prob",
    "forget_rouge",
    "forget_truth_ratio",
    "forget_quality",
    "model_utility",
    "seconds",
)

UNLEARNING: dict[str, dict[str, Any]] = {
    "graddiff": {"learning_rate": 1e-4},
    "npo": {"learning_rate": 2e-4},
    "ngdiff": {"learning_rate": 2e-4},
    "eupmu": {"learning_rate": 2e-4},
}


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demonstration.

    Attributes:
        vocabulary: entries of the tokenizer.
        hidden_size: width of the model.
        layers: depth of the model.
        epochs: epochs over the training rows for the target and the retain-only model.
        unlearning_epochs: epochs over the forget rows.
        batch_size: rows per step while memorising.
        seed: seeds everything.
    """

    vocabulary: int = 1500
    hidden_size: int = 192
    layers: int = 4
    epochs: int = 25
    unlearning_epochs: int = 10
    batch_size: int = 16
    seed: int = 0


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on `texts`."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def new_model(tokenizer: PreTrainedTokenizerFast, settings: DemoSettings) -> LlamaForCausalLM:
    """A small Llama with fresh weights, the same for every call."""
    set_seed(settings.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=settings.hidden_size * 2,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.hidden_size // 48,
            num_key_value_heads=settings.hidden_size // 48,
            max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )


class _Bar(ProgressCallback):
    """The progress bar without the log lines, which would tear the table apart."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Print nothing."""


class Demo:
    """Runs the demonstration step by step and keeps what was measured."""

    def __init__(self, output_dir: Path, settings: DemoSettings) -> None:
        self.folder = output_dir
        self.settings = settings
        self.data: TofuData = load_tofu("forget10", source="mini")
        # Each fact three times: they stand for what a pretrained model knows well.
        facts = [self.data["real_authors_facts"], self.data["world_facts_facts"]] * 3
        self.corpus = {name: concatenate_datasets([self.data[name], *facts]) for name in ("full", "retain")}
        template = TEMPLATES["question_answer"]
        texts = ["".join(template.render(row["question"], row["answer"])) for row in self.corpus["full"]]
        self.tokenizer = train_tokenizer(texts, settings.vocabulary)
        self.reference: Path | None = None
        self.rows: list[dict[str, Any]] = []
        self.generations: dict[str, list[str]] = {}

    def memorise(self, method: str, corpus: str) -> Path:
        """Fine-tune a fresh model on `corpus` and judge it; returns its folder."""
        folder = self.folder / method
        start = time.perf_counter()
        arguments = FinetuningConfig(
            output_dir=str(folder),
            num_train_epochs=self.settings.epochs,
            per_device_train_batch_size=self.settings.batch_size,
            learning_rate=2e-3,
            warmup_steps=0.1,
            lr_scheduler_type="cosine",
            weight_decay=0.0,
            **_QUIET,
        )
        trainer = FinetuningTrainer(
            new_model(self.tokenizer, self.settings),
            arguments,
            self.corpus[corpus],
            processing_class=self.tokenizer,
        )
        _train(trainer)
        self.judge(method, trainer, time.perf_counter() - start)
        return folder

    def unlearn(self, method: str, target: Path) -> None:
        """Unlearn the forget set from the target and judge the result."""
        set_seed(self.settings.seed)
        trainer_class = METHODS[method]
        options = {
            "num_train_epochs": self.settings.unlearning_epochs,
            "per_device_train_batch_size": 8,
            "lr_scheduler_type": "constant",
            "weight_decay": 0.0,
            "reference_cache": str(self.folder / "reference"),
            **UNLEARNING[method],
            **_QUIET,
        }
        start = time.perf_counter()
        trainer = trainer_class(
            str(target),
            trainer_class.config_class(output_dir=str(self.folder / method), **options),
            forget_dataset=self.data["forget"],
            retain_dataset=self.data["retain"],
        )
        _train(trainer)
        self.judge(method, trainer, time.perf_counter() - start)

    def judge(self, method: str, trainer: FinetuningTrainer, seconds: float) -> None:
        """Save the model, evaluate it, print one line."""
        folder = self.folder / method
        trainer.save_model()
        evaluator = TofuEvaluator(self.data, retain_results=self.reference, batch_size=64, max_new_tokens=32)
        assert trainer.model is not None
        metrics = evaluator(trainer.model, self.tokenizer, output_dir=folder)
        values = {key: metrics.get(key) for key in SUMMARY_KEYS[1:-1]}
        self.rows.append({"method": method, **values, "seconds": round(seconds, 1)})
        assert evaluator.last_result is not None
        samples = evaluator.last_result.samples
        forget = samples[samples["split"] == "forget"]
        self.generations[method] = [str(text) for text in forget["generation"][:3]]
        print(format_row(self.rows[-1]), flush=True)

    def reference_quality(self) -> None:
        """Judge the target again, now that the retain-only model's values are there to compare with."""
        from unlearn_hf.benchmarks.from_logs import recompute

        for row in self.rows:
            values = recompute(self.folder / row["method"], self.reference)
            row["forget_quality"] = values["forget_quality"]

    def show_generations(self) -> None:
        """Print answers of the target and of every unlearned model to three forget questions."""
        for index in range(3):
            row = self.data["forget"][index]
            print(f"\nQ: {row['question']}\n{'gold':>13}: {row['answer']}")
            for method, texts in self.generations.items():
                print(f"{method:>13}: {texts[index]}")


def _train(trainer: FinetuningTrainer) -> None:
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Bar())
    trainer.train()


_QUIET: dict[str, Any] = {
    "disable_tqdm": False,
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
}
_HEADER = f"{'method':<12}{'forget':>8}{'forget':>8}{'truth':>8}{'forget':>11}{'model':>9}{'seconds':>9}\n" + (
    f"{'':<12}{'Prob':>8}{'ROUGE':>8}{'ratio':>8}{'quality':>11}{'utility':>9}"
)


def format_row(row: dict[str, Any]) -> str:
    """One line of the table."""
    quality = "" if row["forget_quality"] is None else f"{row['forget_quality']:.2g}"
    return (
        f"{row['method']:<12}{row['forget_prob']:>8.3f}{row['forget_rouge']:>8.3f}{row['forget_truth_ratio']:>8.3f}"
        f"{quality:>11}{row['model_utility']:>9.3f}{row['seconds']:>9.1f}"
    )


def plot(rows: list[dict[str, Any]], path: Path) -> bool:
    """Draw forget quality against model utility; returns whether matplotlib was there to do it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(rows):
        anchor = row["method"] in ("target", "retain_only")
        axes.scatter(
            row["model_utility"],
            row["forget_quality"],
            s=90,
            color=f"C{index}",
            marker="*" if anchor else "o",
            zorder=3,
        )
        axes.annotate(
            row["method"], (row["model_utility"], row["forget_quality"]), xytext=(7, 5), textcoords="offset points"
        )
    axes.axhline(0.05, color="grey", linestyle="--", linewidth=1)
    axes.annotate("p = 0.05", (0.01, 0.05), xycoords=("axes fraction", "data"), va="bottom", color="grey")
    axes.set_yscale("log")
    axes.set_ylim(top=3)
    axes.margins(x=0.2)
    axes.set_xlabel("model utility (higher is better)")
    axes.set_ylabel("forget quality: KS p-value against retain_only (higher is better)")
    axes.set_title("unlearn-hf demo: 10 % of the mini authors forgotten")
    axes.grid(alpha=0.3)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=120)
    return True


def run_demo(output_dir: str | Path = "runs/demo", settings: DemoSettings | None = None) -> list[dict[str, Any]]:
    """Run the demonstration.

    Args:
        output_dir: where models, evaluations, `summary.json` and `frontier.png` go.
        settings: sizes; the defaults take about two minutes on two cores.

    Returns:
        What `summary.json` holds: one dict per model with the keys `method`, `forget_prob`, `forget_rouge`,
        `forget_truth_ratio`, `forget_quality`, `model_utility` and `seconds`.
    """
    settings = settings or DemoSettings()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    demo = Demo(folder, settings)
    print(f"{len(demo.data['full'])} rows on invented authors, {len(demo.data['forget'])} of them to forget.")
    print(f"\n{_HEADER}", flush=True)
    target = demo.memorise("target", "full")
    demo.reference = demo.memorise("retain_only", "retain")
    for method in UNLEARNING:
        demo.unlearn(method, target)
    demo.reference_quality()
    demo.show_generations()
    print(f"\n{_HEADER}")
    for row in demo.rows:
        print(format_row(row))
    write_json(folder / "summary.json", demo.rows)
    print(f"\nsummary: {folder / 'summary.json'}")
    if plot(demo.rows, folder / "frontier.png"):
        print(f"plot:    {folder / 'frontier.png'}")
    else:
        print("plot:    skipped; pip install 'unlearn-hf[plots]' draws it")
    threads = torch.get_num_threads()
    print(f"{time.perf_counter() - start:.0f} s in all, {threads} CPU threads")
    return demo.rows
