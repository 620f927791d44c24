"""The whole story on the bundled mini data: memorise, retrain, unlearn with four methods, compare."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import datasets
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from unlearn_hf.cli.arguments import DataArguments, FinetuningDataArguments
from unlearn_hf.cli.data import load_data, training_rows
from unlearn_hf.cli.parsing import as_words
from unlearn_hf.cli.verbs import VERBS
from unlearn_hf.common.files import write_json
from unlearn_hf.common.run_record import read_record
from unlearn_hf.data.templates import TEMPLATES
from unlearn_hf.evaluation import SAMPLES_FILE
from unlearn_hf.evaluation.results import read_samples
from unlearn_hf.report.comparison import frontier, metric_lines
from unlearn_hf.report.figures import draw_frontier, save
from unlearn_hf.report.runs import Run, read_runs

_NO_PLOT = "skipped; pip install 'unlearn-hf[plots]' draws it"
_METRICS = ("forget_prob", "forget_rouge", "forget_truth_ratio", "forget_quality", "model_utility")

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


class Demo:
    """Runs the demonstration step by step, with the verbs, and keeps what was measured."""

    def __init__(self, output_dir: Path, settings: DemoSettings) -> None:
        self.folder = output_dir
        self.settings = settings
        loaded = load_data(DataArguments(benchmark=_DATA["benchmark"], source=_DATA["source"]))
        self.data: Any = loaded.parts
        template = TEMPLATES["question_answer"]
        rows = training_rows(loaded, FinetuningDataArguments())
        texts = ["".join(template.render(row["question"], row["answer"])) for row in rows]
        self.tokenizer = train_tokenizer(texts, settings.vocabulary)
        self.reference: Path | None = None
        self.rows: list[dict[str, Any]] = []
        self.generations: dict[str, list[str]] = {}

    def memorise(self, method: str, subset: str) -> Path:
        """Fine-tune a fresh model on the whole data or on the retain set; returns its folder."""
        fresh = self.folder / "untrained"
        if not fresh.exists():
            new_model(self.tokenizer, self.settings).save_pretrained(fresh)
            self.tokenizer.save_pretrained(fresh)
        self._run(
            "finetune",
            method,
            model_name_or_path=fresh,
            subset=subset,
            num_train_epochs=self.settings.epochs,
            per_device_train_batch_size=self.settings.batch_size,
            learning_rate=2e-3,
            warmup_steps=0.1,
            lr_scheduler_type="cosine",
        )
        return self.folder / method

    def unlearn(self, method: str, target: Path) -> None:
        """Unlearn the forget set from the target."""
        self._run(
            "unlearn",
            method,
            method=method,
            model_name_or_path=target,
            num_train_epochs=self.settings.unlearning_epochs,
            per_device_train_batch_size=8,
            lr_scheduler_type="constant",
            verdict=False,  # the retain-only model is what this demonstration compares with
            reference_cache=self.folder / "reference",
            **UNLEARNING[method],
        )

    def _run(self, verb: str, name: str, **options: Any) -> None:
        """Run a verb without what it prints, and print one line of what is in its run folder."""
        folder = self.folder / name
        options |= {**_DATA, **_QUIET, "output_dir": folder}
        if self.reference is not None:
            options["retain_results"] = self.reference
        with redirect_stdout(StringIO()):
            VERBS[verb].run(as_words({option: str(value) for option, value in options.items()}))
        record = read_record(folder)
        values = {key: record["metrics"].get(key) for key in _METRICS}
        self.rows.append({"method": name, **values, "seconds": record["seconds"]["training"]})
        samples = read_samples(folder / SAMPLES_FILE)
        forget = samples[samples["split"] == "forget"]
        self.generations[name] = [str(text) for text in forget["generation"][:3]]
        print(format_row(self.rows[-1]), flush=True)

    def compared(self) -> list[Run]:
        """All models as the report reads them; the target, too, has its forget quality by now."""
        runs, _ = read_runs([self.folder / row["method"] for row in self.rows], self.folder / "target", self.reference)
        for row, run in zip(self.rows, runs, strict=True):
            row["forget_quality"] = run.values["forget_quality"].value
        return runs

    def show_generations(self) -> None:
        """Print answers of the target and of every unlearned model to three forget questions."""
        for index in range(3):
            row = self.data["forget"][index]
            print(f"\nQ: {row['question']}\n{'gold':>13}: {row['answer']}")
            for method, texts in self.generations.items():
                print(f"{method:>13}: {texts[index]}")


_DATA = {"benchmark": "tofu", "source": "mini"}
_QUIET: dict[str, Any] = {
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "weight_decay": 0.0,
    "evaluation_batch_size": 64,
    "max_new_tokens": 32,
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


def plot(runs: Sequence[Run], folder: Path) -> bool:
    """Draw forget quality against model utility; returns whether matplotlib was there to do it."""
    front = frontier(runs, metric_lines(runs), "forget_quality_log10", "model_utility")
    assert front is not None
    try:
        figure = draw_frontier(runs, front)
    except ImportError:
        return False
    limit = math.log10(0.05)
    figure.axes[0].axhline(limit, color="grey", linestyle="--", linewidth=1)
    figure.axes[0].annotate("p = 0.05", (0.01, limit), xycoords=("axes fraction", "data"), va="bottom", color="grey")
    save(figure, folder, "frontier")
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
    runs = demo.compared()
    demo.show_generations()
    print(f"\n{_HEADER}")
    for row in demo.rows:
        print(format_row(row))
    write_json(folder / "summary.json", demo.rows)
    print(f"\nsummary: {folder / 'summary.json'}")
    drawn = plot(runs, folder)
    print(f"plot:    {folder / 'frontier.png' if drawn else _NO_PLOT}")
    print(f"{time.perf_counter() - start:.0f} s in all, {torch.get_num_threads()} CPU threads")
    return demo.rows
