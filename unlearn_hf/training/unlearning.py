"""The base of every unlearning method: a run from begin to end (long: one class, all that a `Trainer` is asked)."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

from unlearn_hf.common.files import whole_file
from unlearn_hf.data.alternatives import alternative_rows
from unlearn_hf.data.forget_retain_pairs import PairedDataset
from unlearn_hf.data.new_words import with_new_words
from unlearn_hf.data.row_checks import check_overlap
from unlearn_hf.evaluation.verdict.facts import Verdict
from unlearn_hf.gradients.buffers import GradientBuffers
from unlearn_hf.gradients.geometry import GradientGeometryFile
from unlearn_hf.models.loading import configured_layers
from unlearn_hf.models.sharding import reshard, shards
from unlearn_hf.models.wrappers import check_layer, has_dropout
from unlearn_hf.objectives.base import ALTERNATIVE
from unlearn_hf.reference.nll_column import ReferenceColumns
from unlearn_hf.reference.stored import StoredReference, choose_reference
from unlearn_hf.training.automatic_learning_rate import AutomaticLearningRate, LearningRateProbe
from unlearn_hf.training.backends import check_two_gradients
from unlearn_hf.training.card import write_card
from unlearn_hf.training.checkpoints import METHOD_STATE_FILE
from unlearn_hf.training.contributions import batch_names
from unlearn_hf.training.declared_needs import DeclaredNeeds
from unlearn_hf.training.evaluators import Evaluator
from unlearn_hf.training.retain_level import RetainBudget, RetainLevel
from unlearn_hf.training.run_verdict import RunVerdict
from unlearn_hf.training.stop_condition import parse_condition
from unlearn_hf.training.stop_rule import StopRule
from unlearn_hf.training.two_objectives import TwoObjectivesTrainer
from unlearn_hf.training.unlearning_config import UnlearningConfig


class UnlearningTrainer(TwoObjectivesTrainer):
    """Minimise `w_f l_f + w_r l_r` (or combine the two gradients with these weights), step by step.

    A method says how the two weights are chosen. If they are known before the losses, it overrides `loss_weights`
    and costs one backward pass per set into one gradient. If they depend on this step's losses or gradients, it sets
    `gradient_level` and overrides `gradient_weights`: the two gradients are kept apart, accumulated over
    micro-batches, reduced over ranks, and only then combined. A method with a state updates it in `after_step` and
    names it in `method_state`, which is saved with every checkpoint. `MethodHooks` has all that can be overridden.

    Args:
        model: a hub id, a folder (model or adapter), a `PreTrainedModel` or a `PeftModel`.
        args: the method's configuration.
        forget_dataset: rows to forget, raw (`question`/`answer`, ...) or encoded.
        retain_dataset: rows to keep, likewise; `None` where the method does not train on them.
        eval_dataset: rows, or a dict of them, whose loss `evaluate` reports.
        evaluators: called by `evaluate`.
        processing_class: the tokenizer; by default the one that belongs to the model.
        peft_config: an adapter to add.
        callbacks: further callbacks.
        holdout_dataset: rows like those to forget that the model has never seen, for the verdict to compare with.

    Attributes:
        ended: why the method has ended the run by itself, or `None`.
        retain_level: the rise of the retain loss since before unlearning, where something follows it.
        stop_rule: what stops the run when `stop_when` holds, where that is set.
        retain_budget: what ends the run when that rise is above `retain_budget`, where that is set.

    Raises:
        ValueError: for bad arguments, before a model is loaded.
    """

    config_class: type[UnlearningConfig] = UnlearningConfig
    args: UnlearningConfig
    train_dataset: Any
    checkpoint_files = (METHOD_STATE_FILE,)
    divergence_advice = "Lower learning_rate, or use a bounded forget_loss (npo, simnpo)."

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | None,
        args: UnlearningConfig,
        forget_dataset: Any,
        retain_dataset: Any,
        eval_dataset: Any = None,
        evaluators: Sequence[Evaluator] = (),
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: Any | None = None,
        callbacks: list[TrainerCallback] | None = None,
        holdout_dataset: Any = None,
        **trainer_arguments: Any,
    ) -> None:
        self.check_configuration(args)
        self.args = args
        declared = DeclaredNeeds(args)
        self.objectives, self.needs, self.parameters = declared.objectives, declared.needs, declared.parameters
        if self.keeps_gradients_apart:
            check_two_gradients(args, type(self).__name__)
        for name, rows in (("forget_dataset", forget_dataset), ("retain_dataset", retain_dataset)):
            needed = name == "forget_dataset" or self.uses_retain_rows or args.held_back_rows
            if needed and (rows is None or len(rows) == 0):
                raise ValueError(f"{name}: the dataset is empty; unlearning needs rows to forget and rows to keep.")
        if retain_dataset is not None and len(retain_dataset):
            args.check_fills_batch(len(retain_dataset))
        elif self.keeps_gradients_apart:
            raise ValueError(
                f"log_gradient_geometry: {args.log_gradient_geometry!r} compares with the gradient of rows to keep, "
                "and there are none; leave it out, or give retain_dataset."
            )
        else:
            retain_dataset = None
        model = self.given_or_fresh(model, args.seed, trainer_arguments)
        for layer in declared.layers_read:
            check_layer(layer, configured_layers(model, args.trust_remote_code))
        self.run_verdict = RunVerdict(self, forget_dataset, retain_dataset, holdout_dataset)
        if any(declared.layers(name) is not None for name in declared.objectives):
            # Data parallelism must not wait for gradients of the layers above, and of the head.
            args.ddp_find_unused_parameters = True
        super().__init__(
            model=model,
            args=args,
            train_dataset={"forget": forget_dataset, "retain": retain_dataset},
            eval_dataset=eval_dataset,
            evaluators=evaluators,
            processing_class=processing_class,
            peft_config=peft_config,
            callbacks=callbacks,
            **trainer_arguments,
        )
        self.reference_columns = ReferenceColumns(self)
        if args.needs_reference_model:
            self.reference = choose_reference(self, declared.compared, declared.layers_compared)
        self._first_state: dict[str, Any] | None = None
        self._resumes = False
        if args.autolr:
            self.learning_rate_probe = LearningRateProbe(self)
        self.repeats_dropout = has_dropout(self.model) or args.neftune_noise_alpha is not None
        # What a checkpoint carries beside the state of the method, by its name there.
        self._carried: dict[str, Any] = {}
        if self.follows_retain_level:
            self._carried["retain_level"] = self.retain_level = RetainLevel(self)
            if args.retain_budget is not None:
                level = self.retain_level
                if args.level_estimate != "probe":
                    self._carried["budget_level"] = level = RetainLevel(self, "probe")
                self.retain_budget = RetainBudget(self, level, args.retain_budget)
        self.stop_rule: StopRule | None = None
        if args.stop_when is not None:
            retain = self.run_verdict.held_back or self.train_dataset.retain
            self._carried["stop_rule"] = self.stop_rule = StopRule(self, parse_condition(args.stop_when), retain)

    def _prepare_train_dataset(self, dataset: Any, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        args = self.args
        seed = args.data_seed if args.data_seed is not None else args.seed
        along = {}
        if ALTERNATIVE in self.needs["forget"].answers:
            rows = alternative_rows(dataset["forget"], args.refusal_file, args.alternative_column, seed)
            along[ALTERNATIVE] = self._encode(rows, tokenizer, "alternative answers")
        forget = self._encode(dataset["forget"], tokenizer, "forget_dataset")
        retain = None
        if dataset["retain"] is not None:
            retain = self._encode(dataset["retain"], tokenizer, "retain_dataset")
            check_overlap(forget, retain, args.allow_overlap)
        retain = self.run_verdict.take_rows(forget, retain, tokenizer)
        if args.forget_tokens == "new_words":
            with args.main_process_first(desc="looking for new words"):
                forget = with_new_words(forget, tokenizer, "forget_dataset")
        return PairedDataset(forget, retain, seed, **along)

    @property
    def sets_with_reference(self) -> set[str]:
        """The sets whose rows need the NLL of their answers under the model before unlearning."""
        sets = {"retain"} if self.needs_retain_reference else set()
        for name, needs in self.needs.items():
            if "nll" in needs.reference:
                sets.update(batch_names(name, needs))
        return sets

    def training_begins(self) -> None:
        """Called when model and optimizer are wrapped and restored, before the first step."""
        if shards(self.accelerator):
            # Only now, because no rank alone can be asked.
            self.reference_columns.measure(self._model_for_evaluation())
            self.run_verdict.begin(self._model_for_evaluation(), self._resumes)
            reshard(self.model)
        if self.keeps_gradients_apart:
            # Only now, because sharding replaces the parameters.
            self.gradients = GradientBuffers(self.model.parameters(), device=self.args.gradient_buffer_device)
        super().training_begins()
        for follower in (*self._carried.values(), self.retain_budget):
            if follower is not None:
                follower.begin()
        if self.args.log_gradient_geometry == "layers" and self.is_world_process_zero():
            names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
            self.geometry = GradientGeometryFile(Path(str(self.args.output_dir)), names, self.state.global_step)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """AutoLR is the scheduler, so that nothing else sets the rate and its state is saved and resumed."""
        if not self.args.autolr:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            self.lr_scheduler: Any = AutomaticLearningRate(
                optimizer or cast(torch.optim.Optimizer, self.optimizer), self.args.autolr_min, self.args.autolr_max
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Unlearn.

        Args:
            resume_from_checkpoint: a checkpoint folder, or `True` for the newest complete one in the output folder.
            *args: passed on to `Trainer.train`.
            **kwargs: passed on to `Trainer.train`.

        Raises:
            ValueError: when there is no checkpoint to resume from.

        Called again without a checkpoint, it goes on from the weights as they are, with a method that starts anew.
        """
        resume_from_checkpoint = self.checkpoint_to_resume(resume_from_checkpoint)
        self.divergence = self.ended = None
        self._resumes = bool(resume_from_checkpoint)
        if self._first_state is None:
            self._first_state = copy.deepcopy(self.method_state())
        elif not resume_from_checkpoint:
            self.load_method_state(copy.deepcopy(self._first_state))
        if resume_from_checkpoint:
            # mapped, so that a large state is not read once for every rank
            state = torch.load(Path(resume_from_checkpoint) / METHOD_STATE_FILE, weights_only=True, mmap=True)
            self.load_method_state(state)
            for name, carried in self._carried.items():
                carried.load_state_dict(state.get(name))
            self.reference_columns.load_state_dict(state.get("reference_nll", {}))
        if not shards(self.accelerator):
            self.reference_columns.measure(self.model)
            if isinstance(self.reference, StoredReference):
                self.reference.measure(self.model)
            self.run_verdict.begin(self.model, self._resumes)
        with self.run_verdict.timed("training"):
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def verdict(self) -> Verdict:
        """What the run did: forgotten, kept, leaking rows; measured now against what was measured before training.

        All ranks take part. `verdict.json` in the output folder has the same.

        Raises:
            ValueError: when nothing was measured before, or the weights give no finite likelihoods.
        """
        return self.run_verdict.finish(self._model_for_evaluation())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model or adapter, with a card; inside a checkpoint also the state of the method."""
        if _internal_call and self.retain_budget is not None:
            self.retain_budget.settle()
        super().save_model(output_dir, _internal_call)
        if _internal_call and output_dir is not None:
            state = self.method_state()  # every rank takes part where the state is sharded
            state = state | {name: carried.state_dict() for name, carried in self._carried.items()}
            state = state | {"reference_nll": self.reference_columns.state_dict()}
            if self.args.should_save:
                with whole_file(Path(output_dir) / METHOD_STATE_FILE) as partial:
                    torch.save(state, partial)
        elif self.args.should_save:
            write_card(self, Path(output_dir or str(self.args.output_dir)), self.run_verdict.last)

    def epoch_begins(self, epoch: int) -> None:
        """Pair the rows anew."""
        self.train_dataset.set_epoch(epoch)

    def step_ended(self) -> None:
        """After a step, look whether the stop rule holds."""
        super().step_ended()
        if self.stop_rule is not None:
            self.stop_rule.follow()

    def training_ended(self) -> None:
        """Measure what the run leaves behind."""
        for follower in (self.retain_budget, self.stop_rule):
            if follower is not None:
                follower.finish()
