"""The model card that `save_model` writes where the command line, whose card says more, does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from transformers.utils import logging

from unlearn_hf.common.files import write_text
from unlearn_hf.evaluation.verdict.facts import Verdict
from unlearn_hf.evaluation.verdict.words import sentences
from unlearn_hf.version import __version__

logger = logging.get_logger(__name__)

_OURS = "<!-- written by unlearn_hf -->"
_TO_FILL_IN = "[More Information Needed]"  # in the card that peft saves with an adapter
_SETTINGS = ("forget_loss", "retain_loss", "learning_rate", "num_train_epochs", "max_steps", "stop_when",
             "per_device_train_batch_size", "gradient_accumulation_steps", "seed")  # fmt: skip


def card_data(base: str, adapter: bool, tags: list[str], **more: Any) -> ModelCardData:
    """What the hub reads of a card.

    Args:
        base: the model before; a folder of this machine, which would mean nothing elsewhere, is left out.
        adapter: whether an adapter was saved.
        tags: of the model.
        **more: further fields.
    """
    library = "peft" if adapter else "transformers"
    named = base if base and not Path(base).exists() else None
    return ModelCardData(library_name=library, pipeline_tag="text-generation", tags=tags, base_model=named, **more)


def write_card(trainer: Any, folder: Path, verdict: Verdict | None) -> None:
    """Write `README.md` beside the weights, unless there is one of somebody else's.

    A card that cannot be written is no reason to lose weights, so that is a warning.

    Args:
        trainer: an unlearning trainer.
        folder: of the weights.
        verdict: what the run did, if that was asked for.
    """
    path = folder / "README.md"
    try:
        if path.is_file():
            content = path.read_text(encoding="utf-8")
            if _OURS not in content and _TO_FILL_IN not in content:
                return
        write_text(path, _text(trainer, verdict))
    except (OSError, UnicodeDecodeError) as problem:
        logger.warning(f"The model card {path} was not written: {problem}")


def _text(trainer: Any, verdict: Verdict | None) -> str:
    adapter = hasattr(trainer.model, "peft_config")
    base = str(getattr(trainer.model.config, "_name_or_path", "") or "a model")
    method = type(trainer).__name__.removesuffix("Trainer")
    data = card_data(base if base != "a model" else "", adapter, ["unlearning", method.lower()])
    summary = (type(trainer).__doc__ or "").strip().splitlines()[0]
    lines = ["---", data.to_yaml(), "---", "", _OURS, "", f"# {Path(base).name}, {method}", ""]
    lines += [f"`{base}` after unlearning with unlearn_hf {__version__}. {summary}", "", "## Verdict", ""]
    if verdict is None:
        lines.append("None was made: `trainer.verdict()` makes one, before `save_model`.")
    else:
        lines += ["| | before | after |", "| --- | ---: | ---: |"]
        lines += [f"| {name} | {value:.3g} | {verdict.after[name]:.3g} |" for name, value in verdict.before.items()]
        lines += ["", *(f"- {sentence}" for sentence in sentences(verdict, leaks=False))]
    lines += ["", "## Training", "", "| option | value |", "| --- | --- |"]
    lines += [f"| {name} | {getattr(trainer.args, name)} |" for name in _SETTINGS]
    return ModelCard("\n".join(lines)).content + "\n"
