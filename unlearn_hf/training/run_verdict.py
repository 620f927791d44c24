"""The verdict of a run: measured before the first step and again when it is asked for."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import PreTrainedTokenizerBase

from unlearn_hf.common.files import write_json
from unlearn_hf.data.columns import COLUMN_SETS
from unlearn_hf.data.encoding import encode_dataset
from unlearn_hf.data.templates import resolve_template
from unlearn_hf.evaluation.verdict import BEFORE_FILE, VERDICT_FILE
from unlearn_hf.evaluation.verdict.facts import Verdict, decide, knew, known_rows
from unlearn_hf.evaluation.verdict.judging import make_judge
from unlearn_hf.evaluation.verdict.measuring import Judge
from unlearn_hf.evaluation.verdict.rows import drawn_rows
from unlearn_hf.evaluation.verdict.words import advice, not_checked, not_known, sentences
from unlearn_hf.training.followed_run import FollowedRun


class _Trainer(FollowedRun, Protocol):
    """What is judged."""

    stop_rule: Any
    uses_retain_rows: ClassVar[bool]


class RunVerdict:
    """Holds retain rows back, measures before training, and makes the verdict.

    Args:
        trainer: the run.
        forget: rows to forget as they were given.
        retain: rows to keep, likewise.
        holdout: rows the model has never seen, or `None`.

    Attributes:
        judge: what measures; `None` where no verdict is wanted.
        held_back: encoded retain rows that are not trained on.
        last: the verdict that was made last.
    """

    def __init__(self, trainer: _Trainer, forget: Any, retain: Any, holdout: Any) -> None:
        self.trainer = trainer
        self.judge: Judge | None = None
        self.held_back: Any = None
        self.last: Verdict | None = None
        self._raw = {"forget": forget, "retain": retain, "holdout": holdout}
        self._seconds: dict[str, float] = {}

    @property
    def wanted(self) -> bool:
        """Whether a verdict is asked for, or, where nothing is said, rows are texts."""
        wanted = self.trainer.args.verdict
        columns = set(self._raw["forget"][0])
        return bool(any(set(each) <= columns for each in COLUMN_SETS)) if wanted is None else bool(wanted)

    def take_rows(self, forget: Any, retain: Any, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Choose the rows that are judged; returns the encoded retain rows to train on (`None`: none given)."""
        args = self.trainer.args
        held = drawn_rows(len(retain), args.held_back_rows) if retain is not None else []
        kept = retain
        if held:
            kept = retain.select(sorted(set(range(len(retain))) - set(held)))
            self.held_back = retain.select(held)
        if not self.wanted:
            return kept
        template = resolve_template(tokenizer, args.template)
        holdout = self._raw["holdout"]
        encoded = {"forget": forget}
        chosen = {"forget": drawn_rows(len(forget), args.verdict_rows)}
        if retain is not None:
            encoded["retain"] = retain
            chosen["retain"] = (held or drawn_rows(len(retain), 2 * args.verdict_rows))[: 2 * args.verdict_rows]
        if holdout is not None and len(holdout):
            encoded["holdout"] = encode_dataset(holdout, tokenizer, template, args.max_length, "holdout_dataset")
            chosen["holdout"] = drawn_rows(len(holdout), 2 * args.verdict_rows)
        self.judge = make_judge(
            encoded,
            self._raw,
            chosen,
            tokenizer,
            template,
            samples=args.verdict_samples,
            held_back=bool(held),
            # A padded batch seeds its samples by its prompts: all samples of a row in one batch are never the same.
            batch_size=max(args.per_device_eval_batch_size, args.verdict_samples),
            max_length=args.max_length,
        )
        return kept

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of a block to the cost of the run."""
        start = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def begin(self, model: nn.Module, resumed: bool = False) -> None:
        """Measure the model before unlearning, once; a resumed run takes what the run it continues has measured.

        Warns where the model does not know what it is to forget.
        """
        judge, trainer = self.judge, self.trainer
        if judge is None or judge.before is not None:
            return
        path = Path(str(trainer.args.output_dir)) / BEFORE_FILE
        if resumed:
            if trainer.is_world_process_zero():
                judge.read_before(path)
            judge.before = broadcast_object_list([judge.before])[0]
            return
        if next(model.parameters()).device != trainer.args.device:
            model.to(trainer.args.device)
        with self.timed("measuring"):
            judge.before = judge.measure(model, trainer.processing_class, trainer.accelerator)
        if not trainer.is_world_process_zero():
            return
        judge.keep_before(path)
        if judge.forget and not knew(judge):
            found = not_known(sum(known_rows(judge)), len(judge.forget))
            warnings.warn(
                f"{found}: there is little to forget. Check that the model is the one that learned them, and that the "
                "prompt template is the one it learned them with.",
                stacklevel=2,
            )

    def finish(self, model: nn.Module) -> Verdict:
        """Measure the model as it is now, and make the verdict.

        Raises:
            ValueError: when nothing was measured before, or the weights give no finite likelihoods.
        """
        judge, trainer = self.judge, self.trainer
        if judge is None:
            raise ValueError("verdict: it is off, or rows are encoded already; set verdict=True in the configuration.")
        if judge.before is None:
            raise ValueError(
                f"verdict: nothing was measured before unlearning ({BEFORE_FILE} of the run that was resumed is gone, "
                "or train() was not called); train first."
            )
        with self.timed("measuring"):
            after = judge.measure(model, trainer.processing_class, trainer.accelerator)
        verdict = decide(judge, after)
        verdict.cost = {name: round(value, 1) for name, value in self._seconds.items()} | _peak_memory()
        settings = {
            "learning_rate": trainer.args.learning_rate,
            "retain_budget": trainer.args.retain_budget,
            "uses_retain_rows": trainer.uses_retain_rows,
            "adapter": hasattr(trainer.model, "peft_config"),
            "ended_by": trainer.args.stop_when if trainer.stop_rule is not None and trainer.stop_rule.held else None,
        }
        verdict.advice, verdict.not_checked = advice(verdict, settings), not_checked(verdict)
        if trainer.is_world_process_zero():
            content = verdict.as_dict() | {"sentences": sentences(verdict)}
            write_json(Path(str(trainer.args.output_dir)) / VERDICT_FILE, content)
        self.last = verdict
        return verdict


def _peak_memory() -> dict[str, float]:
    """Most memory so far, in MiB: of the GPU where there is one, else of the process where the system tells."""
    if torch.cuda.is_available():
        return {"peak_memory_mib": torch.cuda.max_memory_allocated() / 2**20}
    try:
        import resource
    except ImportError:  # Windows
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_memory_mib": peak / (2**20 if sys.platform == "darwin" else 2**10)}
