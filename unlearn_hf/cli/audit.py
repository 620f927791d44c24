"""An audit of a run folder: which models and rows it is about, from the record of the run, and what it leaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_hf.audit import AUDIT_FILE, SIGNATURE_FILE
from unlearn_hf.audit.base import PARTIAL, AuditPass, Sizes
from unlearn_hf.audit.baselines import other_rows, target_of
from unlearn_hf.audit.plan import check_room, cost_lines, make_plan, needed_bytes
from unlearn_hf.audit.rows import SETS, audited_rows
from unlearn_hf.audit.signing import load_key, sign, verify
from unlearn_hf.benchmarks.parts import content_fingerprint
from unlearn_hf.cli.arguments import DataArguments
from unlearn_hf.cli.data import load_data, make_evaluators
from unlearn_hf.cli.evaluation_arguments import REGISTERED, EvaluationArguments
from unlearn_hf.cli.retain_results import registry_of, trained_on
from unlearn_hf.cli.run_folder import set_aside
from unlearn_hf.common.files import code_digest, read_json, write_json
from unlearn_hf.common.locks import hold_folder
from unlearn_hf.common.run_record import read_record
from unlearn_hf.common.terminal import say
from unlearn_hf.evaluation.retain_registry import evaluated_by, find
from unlearn_hf.models.paths import WEIGHTS, check_model_path, check_tokenizer_path
from unlearn_hf.models.weights import content_digest

if TYPE_CHECKING:
    from unlearn_hf.cli.verbs.audit import AuditArguments
    from unlearn_hf.evaluation.engine import Engine

_EVALUATION = ("max_new_tokens", "max_evaluation_rows", "evaluation_batch_size", "protocol", "retain_registry")


@dataclass
class Audited:
    """What is audited.

    Attributes:
        record: of the run.
        configuration: of the run.
        data: its data options.
        evaluator: of its benchmark, whose rows are taken.
        engine: the evaluator's; rows that it continues as they are become questions and answers here.
        rows: `forget`, `retain` and, where there are some, `holdout` rows, with `question` and `answer`.
    """

    record: dict[str, Any]
    configuration: dict[str, Any]
    data: DataArguments
    evaluator: Any
    engine: Engine
    rows: dict[str, list[dict[str, Any]]]

    @property
    def fingerprint(self) -> str:
        """Of the rows."""
        return content_fingerprint([self.rows[name] for name in SETS])


def read_audited(folder: Path, given: Mapping[str, Any]) -> Audited:
    """Load the rows of a run.

    Args:
        folder: the run folder.
        given: options of evaluation that replace the run's, where they are not `None`.

    Raises:
        ValueError: for data that are gone, or that have no questions and answers.
    """
    record = read_record(folder)
    configuration = record.get("configuration", {})
    data = DataArguments.of_run(configuration)
    options = {name: configuration[name] for name in _EVALUATION if configuration.get(name) is not None}
    options |= {name: given[name] for name in _EVALUATION if given.get(name) is not None}
    loaded = load_data(data)
    evaluators = make_evaluators(
        loaded,
        EvaluationArguments(retain_results=None, **options),
        configuration.get("template", "auto"),
        configuration.get("max_length", 512),
    )
    most = options.get("max_evaluation_rows")
    asked = audited_rows(loaded.benchmark, loaded.datasets, evaluators[0], most) if evaluators else None
    if asked is None:
        raise ValueError(
            f"run: {str(folder)!r} is about rows without a question and an answer each; the audit asks questions, so "
            "it needs them."
        )
    return Audited(record, configuration, data, evaluators[0], *asked)


def reference_of(folder: Path, audited: Audited) -> str | None:
    """The retain-only model that the run compared with, or that is registered for it; `None` where none is there."""
    results = audited.configuration.get("retain_results")
    files = [Path(results)] if results else []
    if (evaluated := evaluated_by(audited.evaluator)) is not None:
        options = EvaluationArguments(retain_registry=audited.configuration.get("retain_registry"))
        files += find(registry_of(options, folder), evaluated, trained_on(audited.data), str(folder))[0]
    homes = (file if file.is_dir() else file.parent for file in files)
    return next((str(each) for each in homes if any(list(each.glob(pattern)) for pattern in WEIGHTS)), None)


def _other_models(folder: Path, audited: Audited, arguments: AuditArguments) -> dict[str, str | None]:
    """Names of the retain-only model and of the target, `None` for one that is not there.

    Raises:
        ValueError: for one that is named and not there, is the run itself, or is of other rows.
    """
    found: dict[str, str | None] = {}
    for role, option, named, default in (
        ("retain", "reference", arguments.reference, lambda: reference_of(folder, audited)),
        ("target", "target", arguments.target,
         lambda: target_of(folder)),
    ):  # fmt: skip
        found[role] = name = default() if named == REGISTERED else named
        try:
            if name is not None:
                _check_other(name, option, folder, audited)
        except ValueError as problem:
            if named != REGISTERED:
                raise
            found[role] = None
            say(f"{option}: no baseline ({problem})")
        else:
            hint = f" (--{option} names another)" if named == REGISTERED and name else ""
            say(f"{option}: {name or 'no baseline'}{hint}")
    return found


def _check_other(name: str, option: str, folder: Path, audited: Audited) -> None:
    check_model_path(name, option)
    other = Path(name)
    if other.is_dir() and content_digest(other) == content_digest(folder):
        raise ValueError(f"{option}: {name!r} is the audited run itself, or has the same weights; name another model.")
    if option == "reference" and (problem := other_rows(other, audited.record)):
        raise ValueError(problem)


def audit(folder: Path, arguments: AuditArguments) -> int:
    """Make an audit, and leave `audit.json` in the run folder.

    Raises:
        ValueError: for what cannot be audited, before a model is loaded.
    """
    key = None
    if arguments.sign is not None:
        key = load_key(Path(arguments.sign))
    tokenizer_name = arguments.tokenizer_name_or_path or str(folder)
    check_model_path(str(folder), "run")
    check_tokenizer_path(tokenizer_name, "tokenizer_name_or_path")
    given = {name: getattr(arguments, name, None) for name in _EVALUATION}
    audited = read_audited(folder, given)
    plan = make_plan(arguments.attacks, len(audited.rows["holdout"]))
    others = _other_models(folder, audited, arguments)
    models = {"run": str(folder), **others}
    roles = [role for role, name in models.items() if name is not None]
    forget, retain, holdout = (audited.rows[name] for name in SETS)
    sizes = Sizes(len(forget), len(retain), len(holdout), arguments.attacking)
    weights = sum(file.stat().st_size for pattern in WEIGHTS for file in folder.glob(pattern))
    for line in cost_lines(plan, sizes, roles, weights):
        say(line)
    check_room(folder, needed_bytes(plan, sizes, roles))

    from accelerate import Accelerator

    from unlearn_hf.audit.running import attack_models, audit_content
    from unlearn_hf.evaluation.engine import settings_fingerprint
    from unlearn_hf.models.loading import check_vocabulary, load_model, load_tokenizer
    from unlearn_hf.models.sharding import join_processes
    from unlearn_hf.report.audit import print_audit

    join_processes()
    accelerator = Accelerator()
    tokenizer = load_tokenizer(tokenizer_name)
    if accelerator.is_main_process:
        hold_folder(folder)
    accelerator.wait_for_everyone()

    digests = {
        role: content_digest(Path(name)) if Path(name).is_dir() else name
        for role, name in models.items()
        if name is not None
    }
    # What an interrupted audit has left is of this code, and where an attack compares, of this retain-only model.
    partial = folder / PARTIAL / settings_fingerprint(code_digest(), digests.get("retain"))[:16]

    def loader(name: str) -> Callable[[], Any]:
        return lambda: load_model(name, arguments.model_dtype, False).to(accelerator.device)

    def with_model(model: Any) -> AuditPass:
        check_vocabulary(model, tokenizer)
        return AuditPass(
            model,
            tokenizer,
            audited.engine,
            forget,
            retain,
            holdout,
            arguments.attacking,
            accelerator,
            partial,
            others["retain"],
        )

    loaders = {role: loader(name) for role, name in models.items() if name is not None}
    found = attack_models(loaders, plan, with_model, lambda line: say(f"  {line}"))
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return 0
    settings = {
        **asdict(arguments.attacking),
        "model_dtype": arguments.model_dtype,
        **audited.evaluator.settings(),
        **audited.engine.settings(),
        "evaluation": {name: value for name, value in given.items() if value is not None},
    }
    content = audit_content(found, plan, {"weights": digests, "data": audited.fingerprint}, models, settings)
    set_aside(folder, "the old audit is now in", (AUDIT_FILE, SIGNATURE_FILE))
    write_json(folder / AUDIT_FILE, content, strict=True)
    shutil.rmtree(folder / PARTIAL)
    print_audit(content)
    print(f"audit: {folder / AUDIT_FILE}")
    if key is not None:
        print(f"signature: {sign(folder / AUDIT_FILE, key)}")
    if arguments.card:
        from unlearn_hf.report.model_card import add_audit

        add_audit(folder)
    return 0


def verify_audit(folder: Path) -> int:
    """Check the signature of an audit, and weights and rows as they are now.

    Raises:
        ValueError: naming what does not fit.
    """
    content = read_json(folder / AUDIT_FILE)
    given = content.get("settings", {}).get("evaluation", {}) if isinstance(content, dict) else {}
    key = verify(folder / AUDIT_FILE, content_digest(folder), read_audited(folder, given).fingerprint)
    print(f"verified: result, weights and data are those that the owner of this ed25519 key signed: {key}")
    return 0
