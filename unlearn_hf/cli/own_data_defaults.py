"""Defaults for files of one's own, under what is given, and on record."""

from __future__ import annotations

from typing import Any

from unlearn_hf.cli.option_names import configuration_of
from unlearn_hf.cli.parsing import Setting, word_of
from unlearn_hf.cli.training_run import TrainingRun
from unlearn_hf.common.terminal import say

ORIGIN = "own data"


def add_own_data_defaults(run: TrainingRun, forget: int, retain: int) -> None:
    """Set what is not given, on a run over files of one's own, and say so, once."""
    if run.data.benchmark is not None:
        return
    from unlearn_hf.models.loading import configured_width
    from unlearn_hf.models.paths import is_adapter
    from unlearn_hf.training.row_defaults import in_words, row_defaults

    assert run.method is not None
    name = str(run.model.model_name_or_path)
    given: dict[str, Any] = dict(run.settings)
    if batch := word_of(run.settings, "per_device_train_batch_size"):
        given["per_device_train_batch_size"] = int(batch) if batch.isdigit() and int(batch) else None
    if "stop_when" in given and (word_of(run.settings, "stop_when") or "none").lower() in ("none", "null"):
        given["stop_when"] = None
    given["reinforced_model"] = word_of(run.settings, "reinforced_model")
    chosen = row_defaults(
        forget,
        retain,
        run.lora.use_lora or is_adapter(name),
        configured_width(name, bool(run.training.trust_remote_code)),
        given,
        configuration_of(run.method).can_stop,
    )
    run.settings.update({option: Setting(value, ORIGIN) for option, value in chosen.items()})
    # A dry run lists all settings anyway.
    if chosen and not run.run.dry_run:
        say(in_words(chosen, forget))
