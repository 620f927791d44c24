"""Earlier requests of a model that is unlearned further: their rows are judged again, and the ledger grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_hf.benchmarks.parts import content_fingerprint
from unlearn_hf.cli.arguments import DataArguments
from unlearn_hf.cli.continuing import ledger_of, run_folder, unlearning_run
from unlearn_hf.cli.data import LoadedData, load_data
from unlearn_hf.cli.parsing import ArgumentsError
from unlearn_hf.cli.training_run import TrainingRun
from unlearn_hf.common.files import read_json
from unlearn_hf.common.ledger import LedgerEntry, write_ledger
from unlearn_hf.common.run_record import now, read_record
from unlearn_hf.data.row_checks import row_fingerprints
from unlearn_hf.evaluation.verdict import BEFORE_FILE, VERDICT_FILE
from unlearn_hf.models.weights import folder_fingerprint

if TYPE_CHECKING:
    from datasets import Dataset

    from unlearn_hf.training.finetuning import FinetuningTrainer

_SHOWN = 5


@dataclass
class _Request:
    """An earlier request.

    Attributes:
        entry: its line of the ledger.
        configuration: options of its run.
        data: its rows, `forget` among the sets; `None` where they could not be read as they were.
        before: what was measured before its run.
        why: why it is not measured, `None` where it is.
    """

    entry: LedgerEntry
    configuration: Mapping[str, Any]
    data: LoadedData | None = None
    before: dict[str, Any] = field(default_factory=dict)
    why: str | None = None


class EarlierRequests:
    """The requests behind the model that is continued.

    Args:
        run: what was asked for, with `continue_from`.
        trained: the datasets that will be trained on, by name.

    Attributes:
        found: for each earlier request what the judgement of the model that came out says, by id.

    Raises:
        ArgumentsError: when a row to keep was to be forgotten earlier, or the same is asked for again.
    """

    def __init__(self, run: TrainingRun, trained: Mapping[str, Dataset]) -> None:
        assert run.request.continue_from is not None
        self.run = run
        self.parent = Path(run.request.continue_from)
        self.found: dict[str, dict[str, Any]] = {}
        self._forget = row_fingerprints(trained["forget"])
        home = unlearning_run(self.parent)[0]
        entries: list[LedgerEntry | None] = [*ledger_of(self.parent)]
        places = [run_folder(entry, home) for entry in entries[:-1] if entry is not None] + [home]
        self._requests: list[_Request] = []
        for place, entry in zip(places, entries or [None], strict=True):
            assert place is not None
            self._requests.append(_read(place, entry))
        self._check(row_fingerprints(trained.get("retain", ())))

    @property
    def all_forgotten(self) -> bool:
        """Whether every earlier request was judged again, and holds."""
        return all(each["forgotten"] == "yes" for each in self.found.values())

    @property
    def not_measured(self) -> list[str]:
        """A line for each earlier request that cannot be judged again."""
        return [
            f"earlier request {each.entry.request!r} is not measured: {each.why}"
            for each in self._requests
            if each.why
        ]

    @property
    def _id(self) -> str:
        return self.run.request.request_id or self.run.folder.resolve().name

    def _check(self, retain: list[str]) -> None:
        problems = []
        for entry in (each.entry for each in self._requests):
            rows = set(entry.rows["fingerprints"])
            if entry.request == self._id:
                problems.append(
                    f"request_id: {self._id!r} is an earlier request of {str(self.parent)!r}; give another name."
                )
            if rows == set(self._forget) and not self.run.request.allow_repeated_request:
                problems.append(
                    f"continue_from: the rows to forget are those of the earlier request {entry.request!r}; give the "
                    "rows of a new one, or set allow_repeated_request."
                )
            kept = [row for row, digest in enumerate(retain) if digest in rows]
            if kept and not getattr(self.run.training, "allow_overlap", False):
                shown = ", ".join(map(str, kept[:_SHOWN])) + (", ..." if len(kept) > _SHOWN else "")
                problems.append(
                    f"retain_dataset: {len(kept)} of {len(retain)} rows were to be forgotten by the earlier request "
                    f"{entry.request!r} (rows, from 0: {shown}); take them out, or set allow_overlap."
                )
        if problems:
            raise ArgumentsError(problems)

    def judge(self, trainer: FinetuningTrainer) -> None:
        """Measure the model as it is now on the rows of every earlier request; all ranks take part."""
        from unlearn_hf.evaluation.verdict.facts import forgotten, knew, known_rows, leaking_rows
        from unlearn_hf.evaluation.verdict.judging import judge_again

        tokenizer: Any = trainer.processing_class
        batch_size = trainer.args.per_device_eval_batch_size
        for request in self._requests:
            if request.why is None and not getattr(trainer.args, "verdict", True):
                request.why = "this run makes no verdict"
            if request.why is None and request.data is not None:
                length = request.configuration["max_length"]
                with trainer.args.main_process_first(desc="encoding earlier requests"):
                    raw = {
                        name: rows if name == "holdout" else request.data.as_trained(rows, tokenizer, length)
                        for name, rows in request.data.datasets.items()
                    }
                    try:
                        judge = judge_again(raw, request.before, tokenizer, request.configuration, batch_size)
                    except ValueError as problem:
                        request.why = str(problem)
            if request.why is not None:
                self.found[request.entry.request] = {"forgotten": "not_measured", "why": request.why}
                continue
            after = judge.measure(trainer._model_for_evaluation(), tokenizer, trainer.accelerator)
            known = known_rows(judge)
            leaking = len(leaking_rows(judge, after, known)[0])
            self.found[request.entry.request] = {
                "forgotten": forgotten(leaking, sum(known)),
                "leaking": leaking,
                "known": sum(known),
            }
            if not knew(judge):
                why = "the model did not know its rows in the first place"
                self.found[request.entry.request] = {"forgotten": "not_measured", "why": why}

    def sentences(self) -> list[str]:
        """What was found, a line each."""
        return [
            f"Earlier request {name!r}: not measured: {found['why'].rstrip('.')}."
            if "why" in found
            else f"Earlier request {name!r}: forgotten: {found['forgotten']}. {found['leaking']} of {found['known']} "
            "rows that the model knew leak."
            for name, found in self.found.items()
        ]

    def write(self, trained_on: Mapping[str, Any]) -> None:
        """Write the ledger of this run: that of its parent and one line more."""
        entries = [each.entry for each in self._requests]
        folder = self.run.folder
        entry = _entry(folder, {"configuration": {"method": self.run.method}}, self._id, self._forget,
                       str(trained_on["forget"]["sha256"]))  # fmt: skip
        entry = replace(
            entry,
            date=now(),
            parent=str(self.parent.resolve()),
            earlier=self.found,
            previous=entries[-1].fingerprint,
        )
        write_ledger(folder, [*entries, entry])


def _entry(folder: Path, record: Mapping[str, Any], request: str, fingerprints: list[str], sha256: str) -> LedgerEntry:
    """The line of a run that is the first of its chain."""
    verdict = read_json(folder / VERDICT_FILE) if (folder / VERDICT_FILE).is_file() else {}
    return LedgerEntry(
        request=request,
        date=record.get("finished"),
        run=str(folder.resolve()),
        parent=None,
        method=record["configuration"].get("method"),
        rows={"count": len(fingerprints), "sha256": sha256, "fingerprints": fingerprints},
        verdict={
            "forgotten": verdict.get("forgotten", "not_measured"),
            "kept": verdict.get("kept", "not_measured"),
            "leaking": len(verdict.get("leaking_rows", [])),
            "known": verdict.get("rows", {}).get("known_before"),
        },
        earlier={},
        model=folder_fingerprint(folder),
        previous=None,
    )


def _read(folder: Path, entry: LedgerEntry | None) -> _Request:
    """An earlier request from the folder of its run; without an entry one is made for it."""
    record = read_record(folder)
    configuration = record["configuration"]
    sets = record["data"]["trained_on"]
    data = why = None
    before: dict[str, Any] = {}
    try:
        data = _rows(configuration, sets)
        before = _before(folder / BEFORE_FILE)
    except (ValueError, OSError) as problem:
        why = " ".join(str(problem).split())
    if entry is None:
        name = configuration.get("request_id") or folder.resolve().name
        fingerprints = row_fingerprints(data.datasets["forget"]) if data is not None else []
        entry = _entry(folder, record, name, fingerprints, sets["forget"]["sha256"])
        entry.rows["count"] = sets["forget"]["rows"]
    elif entry.rows["sha256"] != sets["forget"]["sha256"]:
        why = f"{folder} holds another run now"
    return _Request(entry, configuration, data, before, why)


def _before(path: Path) -> dict[str, Any]:
    """What was measured before an earlier run.

    Raises:
        ValueError: when the file is gone or damaged.
    """
    content = read_json(path)
    before = content.get("before") if isinstance(content, dict) else None
    if not isinstance(before, dict) or not isinstance(before.get("forget"), list):
        raise ValueError(f"{path} holds no measurement.")
    return before


def _rows(configuration: Mapping[str, Any], sets: Mapping[str, Any]) -> LoadedData:
    """The rows of an earlier run; those to keep and of the holdout set as far as they are there as they were.

    Raises:
        ValueError: when those to forget are gone, or are others now.
    """
    arguments = DataArguments.of_run(configuration)
    others = {name: Path(file).expanduser() for name, file in arguments.files().items() if name != "forget_file"}
    gone: dict[str, Any] = {name: None for name, file in others.items() if not file.is_file()}
    data = load_data(replace(arguments, **gone), needs_retain=False)
    found = {name: data.part(name) for name in (*sets, "holdout") if name in data.datasets or name == "forget"}
    changed = [name for name in found if name in sets and content_fingerprint(found[name]) != sets[name]["sha256"]]
    if "forget" in changed:
        raise ValueError(f"its rows to forget ({arguments.forget_file or arguments.benchmark}) are not those of then.")
    kept = {name: rows for name, rows in found.items() if name not in changed}
    return replace(data, datasets=kept)
