"""`unlearn-hf audit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn_hf.audit import AUDIT_FILE, SIGNATURE_FILE
from unlearn_hf.audit.base import AuditSettings
from unlearn_hf.audit.plan import check_attacks
from unlearn_hf.cli.evaluation_arguments import REGISTERED
from unlearn_hf.cli.parsing import ArgumentsError, build, collect_settings, field_names, split_named
from unlearn_hf.cli.verbs import Verb
from unlearn_hf.common.checks import MODEL_DTYPES, check_positive
from unlearn_hf.common.locks import check_free
from unlearn_hf.common.options import option
from unlearn_hf.common.run_record import CARD, RECORD, read_record

_UNFINISHED = ("running", "killed", "interrupted", "failed")
_VERIFY = "--verify"


@dataclass
class AuditArguments:
    """Audit"""

    reference: str | None = option(
        REGISTERED,
        "Run folder of the retain-only model. auto: the one whose results the run compared with, or that "
        "`retrain` registered. none: without.",
    )
    target: str | None = option(
        REGISTERED, "The model before unlearning. auto: the one that the run began with. none: without."
    )
    attacks: list[str] = option(
        [], "Attacks to make, or all; by default the cheap ones (`unlearn-hf list audit_attacks`)."
    )
    samples: int = option(32, "Sampled answers of each forget question.")
    k: list[int] = option([], "Sizes of draws for leak@k; by default the powers of two.")
    seed: int = option(0, "Of all that is drawn.")
    relearning_steps: int | None = option(
        None, "Optimizer steps of relearning, of 32 rows each; by default one epoch."
    )
    relearning_rate: float | None = option(
        None, "Learning rate of relearning (2e-5); adapters take ten times as much."
    )
    max_new_tokens: int | None = option(
        None, "Tokens generated per answer, at most; by default as the run was evaluated."
    )
    max_evaluation_rows: int | None = option(None, "Rows per set, for a quick look.")
    evaluation_batch_size: int | None = option(None, "Rows per forward pass and process.")
    tokenizer_name_or_path: str | None = option(None, "Tokenizer, where the run folder holds none.")
    model_dtype: str = option("float32", "Precision of the weights.", choices=MODEL_DTYPES)
    sign: str | None = option(
        None, "Private ed25519 key (PEM file): write a detached signature over result, weights and data."
    )
    verify: bool = option(
        False, "Make no audit: check the signature of the one that is there, and weights and data by it."
    )
    card: bool = option(False, "Put a section on the audit into the model card of the run (README.md).")
    overwrite: bool = option(False, "Set an older audit aside.")

    @property
    def attacking(self) -> AuditSettings:
        """How to attack."""
        return AuditSettings(self.samples, tuple(self.k), self.seed, self.relearning_steps, self.relearning_rate)

    def __post_init__(self) -> None:
        """Raise a `ValueError` that names the field unless all values can be had."""
        self.attacks = [name for word in self.attacks for name in word.split(",") if name]
        check_attacks(self.attacks)
        _ = self.attacking  # checks its own values
        for name in ("max_new_tokens", "max_evaluation_rows", "evaluation_batch_size"):
            check_positive(name, getattr(self, name))
        if self.verify and (self.sign or self.card or self.overwrite):
            raise ValueError("verify: it changes nothing; leave out sign, card and overwrite.")


ARGUMENTS = (AuditArguments,)


def parse(argv: Sequence[str]) -> tuple[Path, AuditArguments]:
    """The run folder and the options, checked as far as the folder tells.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    # `--verify RUN` is as good as `RUN --verify`.
    words = [word for word in argv if word != _VERIFY]
    named, given = split_named(words)
    given += [_VERIFY] if _VERIFY in argv else []
    settings, problems = collect_settings(given, field_names(ARGUMENTS))
    if len(named) != 1:
        problems = [*problems, f"run: {' '.join(named) or 'missing'}; name one run folder before the options."]
    (arguments,) = build(ARGUMENTS, settings, problems)
    folder = Path(named[0])
    if problem := _misfit(folder, arguments):
        raise ArgumentsError([problem])
    return folder, arguments


def _misfit(folder: Path, arguments: AuditArguments) -> str | None:
    """Why the folder cannot be audited, or its audit not be checked."""
    if not (folder / RECORD).is_file():
        return f"run: {str(folder)!r} is no run folder ({RECORD} is missing); name one that `unlearn` made."
    status = read_record(folder).get("status")
    if status in _UNFINISHED:
        return f"run: the run in {str(folder)!r} is {status}; finish it with --resume, or name another."
    if arguments.verify:
        missing = next((name for name in (AUDIT_FILE, SIGNATURE_FILE) if not (folder / name).is_file()), None)
        return f"verify: {str(folder / missing)!r} is not there; audit with --sign KEYFILE." if missing else None
    if arguments.card and not (folder / CARD).is_file():
        return f"card: {str(folder / CARD)!r} is not there; leave out --card."
    if (folder / AUDIT_FILE).is_file() and not arguments.overwrite:
        return f"run: {str(folder / AUDIT_FILE)!r} is there already; --overwrite sets it aside and audits anew."
    return None


def run(argv: Sequence[str]) -> int:
    """Audit, or check an audit."""
    folder, arguments = parse(argv)
    from unlearn_hf.cli.audit import audit, verify_audit

    if arguments.verify:
        return verify_audit(folder)
    check_free(folder)
    try:
        return audit(folder, arguments)
    except KeyboardInterrupt as problem:
        raise KeyboardInterrupt("the same command goes on where it stopped") from problem


VERB = Verb(
    run,
    "Attack an unlearned model, and tell what came back: relearning, quantisation, sampling and others.",
    examples=(
        "unlearn-hf audit runs/x",
        "unlearn-hf audit runs/x --reference runs/retain --attacks relearning,quantisation --sign key.pem",
        "unlearn-hf audit runs/x --verify",
    ),
    arguments=ARGUMENTS,
    words="RUN",
)
