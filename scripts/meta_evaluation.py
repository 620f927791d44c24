"""How well metrics tell who knows the forget rows, also under attack.

    python scripts/meta_evaluation.py --output_dir runs/meta_evaluation    # mini data, small Llamas, on a CPU

Faithfulness: AUC of a metric over a pool of models. Those that know learnt the forget rows, as they are or with their
answers in other words; those that do not learnt the rows to keep alone, or with wrong answers to the forget questions.
Seeds and epochs differ within both.

Robustness, on unlearned models that keep `--utility` of the target's utility: D is the rise of a metric (turned so
that higher means "knows more") when a model is trained on the forget rows again; R = min(D of the retain-only model /
D of the unlearned model, 1). Q = min(before / after, 1) under weights in 4 bit (NF4). 1 means that nothing was hidden
from the metric that the attack brings out. Means over models; robustness is their harmonic mean, the last column that
of faithfulness and robustness.

As in the meta-evaluation of open-unlearning (Dorna et al. 2025, arXiv 2506.12618, section 5), with smaller models.
What is there already in the output folder is taken from there.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset, concatenate_datasets
from meta_evaluation_scores import METRICS, formatted, table
from transformers import set_seed

from unlearn_hf.benchmarks.tofu.data import load_tofu
from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator
from unlearn_hf.cli.demo import UNLEARNING, DemoSettings, new_model, train_tokenizer
from unlearn_hf.common.files import write_json
from unlearn_hf.data.templates import TEMPLATES
from unlearn_hf.evaluation import RESULT_FILE
from unlearn_hf.methods import METHODS
from unlearn_hf.models.loading import load_model
from unlearn_hf.training.finetuning import FinetuningTrainer
from unlearn_hf.training.finetuning_config import FinetuningConfig

QUIET: dict[str, Any] = {"disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "report_to": "none"}
PLAIN = {"weight_decay": 0.0, "use_cpu": True, **QUIET}
KNOWING, IGNORANT = ("answers", "other words"), ("kept alone", "wrong answers")
REFERENCE_SEED = 1000  # the retain-only model that others are compared with is not of the pool


@dataclass(frozen=True)
class Member:
    """A model of the pool."""

    corpus: str
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.corpus.replace(' ', '_')}_{self.seed}_{self.epochs}"


class MetaEvaluation:
    """The data, and models in folders of their own; a folder with a result is done."""

    def __init__(self, folder: Path, settings: DemoSettings, relearning_rate: float) -> None:
        self.folder, self.settings, self.relearning_rate = folder, settings, relearning_rate
        self.tofu = load_tofu("forget10", "mini")
        facts = [self.tofu[name] for name in ("real_authors_facts", "world_facts_facts")] * 3
        self.kept = concatenate_datasets([self.tofu["retain"], *(part.select_columns(["question", "answer"])
                                                                 for part in facts)])  # fmt: skip
        full = concatenate_datasets([self.kept, self.tofu["forget"]])
        template = TEMPLATES["question_answer"]
        texts = ["".join(template.render(row["question"], row["answer"])) for row in full]
        self.tokenizer: Any = train_tokenizer(texts, settings.vocabulary)
        self.reference: Path | None = None

    def rows(self, member: Member) -> Dataset:
        """What a model of the pool learns."""
        perturbed = self.tofu["forget_perturbed"]
        questions = perturbed["question"][:]
        answers = {
            "answers": lambda row, _: row["answer"],
            "other words": lambda row, _: row["paraphrased_answer"],
            "wrong answers": lambda row, index: row["perturbed_answer"][(index + member.seed) % 5],
        }
        if member.corpus == "kept alone":
            return self.kept
        chosen = [answers[member.corpus](row, index) for index, row in enumerate(perturbed)]
        return concatenate_datasets([self.kept, Dataset.from_dict({"question": questions, "answer": chosen})])

    def train(self, member: Member) -> dict[str, float]:
        """Train and judge a model of the pool."""
        folder = self.folder / "pool" / member.name

        def make() -> Any:
            settings = DemoSettings(**{**vars(self.settings), "seed": member.seed})
            options: dict[str, Any] = {"num_train_epochs": member.epochs, "learning_rate": 2e-3, "warmup_steps": 0.1}
            return self._fine_tuned(
                new_model(self.tokenizer, settings),
                self.rows(member),
                per_device_train_batch_size=settings.batch_size,
                lr_scheduler_type="cosine",
                seed=member.seed,
                **options,
            )

        return self._judged(folder, make, keep=True)

    def unlearn(self, method: str, member: Member) -> Path:
        """Unlearn with a method from a model of the pool, and judge it; returns its folder."""
        folder = self.folder / "unlearned" / f"{method}_{member.name}"

        def make() -> Any:
            set_seed(member.seed)
            options: dict[str, Any] = {
                "num_train_epochs": 10,
                "per_device_train_batch_size": 8,
                "lr_scheduler_type": "constant",
                "verdict": False,
            }
            config = METHODS[method].config_class(
                output_dir=str(folder), seed=member.seed, **options, **UNLEARNING[method], **PLAIN
            )
            target = str(self.folder / "pool" / member.name)
            trainer = METHODS[method](target, config, self.tofu["forget"], self.tofu["retain"])
            trainer.train()
            return trainer.model

        self._judged(folder, make, keep=True)
        return folder

    def relearned(self, model: Path) -> dict[str, float]:
        """Metrics after an epoch on the forget rows."""

        def make() -> Any:
            options: dict[str, Any] = {"learning_rate": self.relearning_rate, "lr_scheduler_type": "constant"}
            return self._fine_tuned(
                load_model(str(model)),
                self.tofu["forget"],
                per_device_train_batch_size=8,
                num_train_epochs=1,
                **options,
            )

        return self._judged(self.folder / "relearned" / model.name, make)

    def quantised(self, model: Path) -> dict[str, float]:
        """Metrics with weights in 4 bit."""
        return self._judged(self.folder / "quantised" / model.name, lambda: load_model(str(model), load_in_4bit=True))

    def _fine_tuned(self, model: Any, rows: Dataset, seed: int = 0, **options: Any) -> Any:
        set_seed(seed)
        config = FinetuningConfig(output_dir=str(self.folder / "trainer"), seed=seed, **options, **PLAIN)
        trainer = FinetuningTrainer(model, config, rows, processing_class=self.tokenizer)
        trainer.train()
        return trainer.model

    def _judged(self, folder: Path, make: Callable[[], Any], keep: bool = False) -> dict[str, float]:
        """Metrics of a model, from its folder if they are there."""
        if not (folder / RESULT_FILE).exists():
            model = make()
            if keep:
                model.save_pretrained(folder)
                self.tokenizer.save_pretrained(folder)
            evaluator = TofuEvaluator(self.tofu, retain_results=self.reference, batch_size=64, max_new_tokens=32)
            found = evaluator(model, self.tokenizer, output_dir=folder)
            print(
                folder.relative_to(self.folder),
                *(f"{name} {found[name]:.3f}" for name in list(METRICS)[:4]),
                flush=True,
            )
        content = json.loads((folder / RESULT_FILE).read_text())
        return {metric["name"]: metric["value"] for metric in content["metrics"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/meta_evaluation"))
    parser.add_argument("--seeds", type=int, default=3, help="of each kind of model and number of epochs")
    parser.add_argument("--epochs", type=int, nargs="+", default=[12, 25])
    parser.add_argument("--methods", nargs="+", default=list(UNLEARNING), choices=list(UNLEARNING))
    parser.add_argument("--hidden_size", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--relearning_rate", type=float, default=2e-4)
    parser.add_argument("--utility", type=float, default=0.8, help="share of the target's utility to be kept")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    settings = DemoSettings(hidden_size=arguments.hidden_size, layers=arguments.layers)
    made_by = arguments.output_dir / "settings.json"
    longest = max(arguments.epochs)  # of the retain-only model, too, which others are compared with
    chosen = {name: getattr(arguments, name) for name in ("hidden_size", "layers", "relearning_rate")}
    chosen["longest"] = longest
    if made_by.exists() and json.loads(made_by.read_text()) != chosen:
        parser.error(
            f"output_dir: {arguments.output_dir} holds models made with other settings ({made_by.read_text().strip()})"
        )
    made_by.parent.mkdir(parents=True, exist_ok=True)
    write_json(made_by, chosen)
    study = MetaEvaluation(arguments.output_dir, settings, arguments.relearning_rate)
    retain = Member("kept alone", REFERENCE_SEED, longest)
    study.train(retain)
    study.reference = study.folder / "pool" / retain.name
    retain_metrics = study._judged(study.folder / "retain_only", lambda: load_model(str(study.reference)))
    pool = {
        kind: [study.train(Member(corpus, seed, epochs)) for seed in range(arguments.seeds)
               for epochs in arguments.epochs for corpus in corpora]
        for kind, corpora in (("knowing", KNOWING), ("ignorant", IGNORANT))
    }  # fmt: skip
    retain_relearned = study.relearned(study.reference)
    attacked, dropped = [], []
    for seed in range(arguments.seeds):
        target = Member("answers", seed, longest)
        least = arguments.utility * study.train(target)["model_utility"]
        for method in arguments.methods:
            model = study.unlearn(method, target)
            before = study._judged(model, lambda: None)
            if before["model_utility"] < least:
                dropped.append(model.name)
                continue
            attacked.append(
                {
                    "before": before,
                    "relearned": study.relearned(model),
                    "quantised": study.quantised(model),
                    "retain": retain_metrics,
                    "retain_relearned": retain_relearned,
                }
            )
    rows = table(pool, attacked)
    parameters = sum(each.numel() for each in load_model(str(study.reference)).parameters())
    sizes: dict[str, Any] = {kind: len(each) for kind, each in pool.items()}
    sizes |= {"unlearned": len(attacked), "dropped": dropped, "parameters": parameters}
    write_json(arguments.output_dir / "results.json", {"sizes": sizes, "rows": rows})
    (arguments.output_dir / "table.md").write_text(formatted(rows))
    print(json.dumps(sizes))
    print(formatted(rows))


if __name__ == "__main__":
    main()
