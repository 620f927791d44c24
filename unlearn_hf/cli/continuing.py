"""A further request on an unlearned model (`--continue_from`): what the run that is continued says, before torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unlearn_hf.cli.parsing import COMMAND_LINE, Setting, Settings, add_unless_given, word_of
from unlearn_hf.common.ledger import LEDGER, LedgerEntry, read_ledger
from unlearn_hf.common.run_record import RECORD, read_record
from unlearn_hf.common.terminal import say
from unlearn_hf.models.paths import is_adapter
from unlearn_hf.models.weights import folder_fingerprint

_FIELD = "continue_from"
_INHERITED = ("template", "max_length")


def take_up(settings: Settings) -> list[str]:
    """Set the model, and how rows look to it, to those of the run that is continued; returns what contradicts that.

    Whether there is such a run, and whether its ledger is sound, `ledger_of` says.
    """
    word = word_of(settings, _FIELD)
    if word is None:
        return []
    model = settings.get("model_name_or_path")
    named = word_of(settings, "model_name_or_path")
    if model is not None and named is not None and Path(named).resolve() != Path(word).resolve():
        if model.origin == COMMAND_LINE or settings[_FIELD].origin != COMMAND_LINE:
            return [
                f"{_FIELD}: {word!r} and model_name_or_path {named!r} are two models to begin with; leave out one of "
                "them."
            ]
        say(f"{_FIELD}: the model is that of {word}, not {named} of {model.origin}")
    settings["model_name_or_path"] = Setting(word, _FIELD)
    try:
        home, record = unlearning_run(Path(word))
    except ValueError:
        return []
    configuration = record["configuration"]
    adapter = ("load_in_4bit",) if is_adapter(word) else ()
    inherited = {name: configuration.get(name) for name in (*_INHERITED, *adapter)}
    add_unless_given(settings, inherited, str(home / RECORD))
    return []


def unlearning_run(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The folder and the record of the unlearning run that left the model in `folder`, which may be merged.

    Raises:
        ValueError: when there is none, or it has not finished.
    """
    if not folder.is_dir():
        raise ValueError(f"{_FIELD}: {str(folder)!r} is not there; name the folder of an unlearning run.")
    record = read_record(folder)
    if not isinstance(record.get("configuration"), dict):
        raise ValueError(
            f"{_FIELD}: {str(folder)!r} holds no {RECORD} of a run; name the folder of an unlearning run, or begin "
            "with another model by --model_name_or_path."
        )
    if record.get("verb") == "merge":
        adapter = Path(str(record["configuration"].get("model_name_or_path")))
        if not adapter.is_dir():
            raise ValueError(
                f"{_FIELD}: {str(folder)!r} was merged from {str(adapter)!r}, which is not there; put it "
                "back, because it knows the requests."
            )
        return unlearning_run(adapter)
    if record.get("verb") != "unlearn":
        raise ValueError(
            f"{_FIELD}: {str(folder)!r} is a run of {record.get('verb')}, not of unlearn; begin with its model by "
            "--model_name_or_path."
        )
    if record.get("status") != "finished":
        raise ValueError(
            f"{_FIELD}: the run in {str(folder)!r} has not finished ({record.get('status')}); end it first "
            "(--resume), or name another."
        )
    if not isinstance(record.get("data"), dict) or "forget" not in record["data"].get("trained_on", {}):
        raise ValueError(f"{_FIELD}: {folder / RECORD} does not say which rows were forgotten; name another run.")
    return folder, record


def ledger_of(folder: Path) -> list[LedgerEntry]:
    """The requests that the model in `folder` has behind it, oldest first; none where the run there was the first.

    Raises:
        ValueError: for a ledger that is damaged or gone, that is about other weights, or whose runs are not all there.
    """
    home, record = unlearning_run(folder)
    entries = read_ledger(home)
    before = record["configuration"].get(_FIELD)
    if not entries and before is not None:
        raise ValueError(
            f"{_FIELD}: the run in {str(home)!r} continued {before!r}, but its {LEDGER} is gone; put it back."
        )
    for number, entry in enumerate(entries, start=1):
        if number < len(entries) and run_folder(entry, home) is None:
            raise ValueError(
                f"{_FIELD}: {home / LEDGER}, line {number}: the run of request {entry.request!r}, {entry.run!r}, is "
                f"not there; put its folder back ({RECORD} and the verdict's files are enough)."
            )
    if entries and entries[-1].model != folder_fingerprint(home):
        raise ValueError(
            f"{_FIELD}: the weights in {str(home)!r} are not those that its {LEDGER} is about; put back the model of "
            "that run."
        )
    return entries


def run_folder(entry: LedgerEntry, beside: Path) -> Path | None:
    """The folder of an earlier run: where it was, or, where runs were moved together, beside another of the chain."""
    places = (Path(entry.run), beside.resolve().parent / Path(entry.run).name)
    return next((each for each in places if (each / RECORD).is_file()), None)
