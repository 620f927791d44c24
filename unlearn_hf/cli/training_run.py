"""What `unlearn` and `finetune` were asked for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_hf.cli.arguments import DataArguments, LoraArguments, ModelArguments, RequestArguments, RunArguments
from unlearn_hf.cli.evaluation_arguments import EvaluationArguments
from unlearn_hf.cli.parsing import COMMAND_LINE, Settings

if TYPE_CHECKING:
    from unlearn_hf.training.finetuning_config import FinetuningConfig


@dataclass
class TrainingRun:
    """Everything that was asked for, checked.

    Before torch is imported `training` holds what was given and nothing else.
    """

    verb: str
    settings: Settings
    model: ModelArguments
    data: DataArguments
    evaluation: EvaluationArguments
    lora: LoraArguments
    run: RunArguments
    training: FinetuningConfig
    method: str | None = None
    request: RequestArguments = field(default_factory=RequestArguments)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(str(self.training.output_dir))

    @property
    def peft_config(self) -> Any | None:
        """The configuration of the adapter, or `None` without one."""
        if not self.lora.use_lora:
            return None
        from peft import LoraConfig

        modules: list[str] | str = self.lora.lora_target_modules
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.lora.lora_r,
            lora_alpha=self.lora.lora_alpha,
            lora_dropout=self.lora.lora_dropout,
            target_modules=modules[0] if modules == ["all-linear"] else modules,
        )

    def configuration(self) -> dict[str, Any]:
        """Every option with the value in force; of training options those that were given, before torch is there."""
        found: dict[str, Any] = {"method": self.method} if self.method else {}
        if self.method:
            found.update(dataclasses.asdict(self.request))
        for part in (self.model, self.data, self.evaluation, self.lora, self.run):
            found.update(dataclasses.asdict(part))
        if hasattr(self.training, "to_dict"):
            return found | self.training.to_dict()
        return found | {name: value for name, value in vars(self.training).items() if name in self.settings}

    def given(self) -> dict[str, Any]:
        """What was given by file or command line, as it was given."""
        return {
            name: " ".join(setting.words) if setting.origin == COMMAND_LINE else setting.value
            for name, setting in self.settings.items()
        }
