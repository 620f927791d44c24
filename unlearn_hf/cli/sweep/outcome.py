"""How a sweep came out: the choice, the frontier, a table, a picture, and the report of its runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from unlearn_hf.cli.parsing import as_words
from unlearn_hf.cli.sweep.study import repeated
from unlearn_hf.common.files import write_json
from unlearn_hf.models.paths import WEIGHTS

RESULT_FILE = "sweep.json"
KEPT = 0.95
RULE = (
    f"fewest leaking rows, then the lowest forget Prob, among trials that keep {100 * KEPT:.0f} % of the probability "
    "of retain rows"
)


@dataclass(frozen=True)
class Result:
    """A trial that was measured; all of it is from its `verdict.json`, which knows no retain-only model.

    Attributes:
        number: of the trial.
        options: what it tried.
        leaking: rows that leak by any test of the verdict.
        known: rows that the model knew before, of which those are.
        forget_prob: mean probability of answers to forget, per token.
        kept: probability of answers to keep, relative to before.
        held_back: whether those were kept from training.
        knew: whether the model knew the forget rows before.
        folder: its run folder.
        seconds: it took.
    """

    number: int
    options: dict[str, str]
    leaking: int
    known: int
    forget_prob: float
    kept: float
    held_back: bool
    knew: bool
    folder: str
    seconds: float


def results(trials: Sequence[FrozenTrial]) -> list[Result]:
    """The trials that were measured, by number."""
    found = []
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            of = trial.user_attrs
            told = {name: of["verdict"][name] for name in ("leaking", "known", "forget_prob", "kept", "held_back")}
            run = {name: of[name] for name in ("options", "folder", "seconds")}
            found.append(Result(number=trial.number, knew=of["verdict"]["known_before"], **told, **run))
    return found


def choose(found: Sequence[Result]) -> Result | None:
    """The best by `RULE`; `None` where no trial keeps enough, or the model had nothing to forget."""
    eligible = [each for each in found if each.kept >= KEPT and each.knew]
    return min(eligible, key=lambda each: (each.leaking, each.forget_prob, -each.kept, each.number), default=None)


def frontier(found: Sequence[Result]) -> list[Result]:
    """Trials that no other one beats in both forget Prob and what is kept, by what is kept."""

    def beaten(one: Result) -> bool:
        return any(
            other.forget_prob <= one.forget_prob
            and other.kept >= one.kept
            and ((other.forget_prob, other.kept) != (one.forget_prob, one.kept) or other.number < one.number)
            for other in found
        )

    return sorted((each for each in found if not beaten(each)), key=lambda each: each.kept)


def drop_beaten_weights(found: Sequence[Result]) -> None:
    """Remove the weights of trials that are neither on the frontier nor chosen; what was measured stays."""
    keep = {each.folder for each in (*frontier(found), choose(found)) if each is not None}
    for each in found:
        for pattern in WEIGHTS if each.folder not in keep else ():
            for path in Path(each.folder).glob(pattern):
                path.unlink(missing_ok=True)


def table(found: Sequence[Result], best: Result | None) -> list[str]:
    """A line for each trial, the choice marked with `*`, others on the frontier with `+`."""
    front = frontier(found)
    names = list(dict.fromkeys(name for each in found for name in each.options))
    head = ["trial", *names, "leaking rows", "forget Prob", "kept", "minutes"]
    lines = [head]
    for each in found:
        mark = "*" if each is best else "+" if each in front else " "
        lines.append(
            [
                f"{each.number}{mark}",
                *(each.options.get(name, "") for name in names),
                f"{each.leaking} of {each.known}",
                f"{each.forget_prob:.3g}",
                f"{each.kept:.3f}",
                f"{each.seconds / 60:.1f}",
            ]
        )
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return ["  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)) for line in lines]


def unmeasured(trials: Sequence[FrozenTrial]) -> list[str]:
    """What became of the others, a line each."""
    again = repeated(trials)
    lines = []
    for trial in trials:
        of = trial.user_attrs
        if trial.state == TrialState.PRUNED:
            step = max(map(int, of["looks"]))
            lines.append(f"trial {trial.number} was pruned at step {step}: {options_text(of)}")
        elif trial.state == TrialState.FAIL and not of.get("surplus"):
            line = f"trial {trial.number} failed: {of.get('problem', 'its process was killed')}"
            lines.append(line + (f"; trial {again[trial.number]} repeats it" if trial.number in again else ""))
        elif trial.state == TrialState.RUNNING:
            lines.append(f"trial {trial.number} is running: {options_text(of)}")
    return lines


def options_text(attributes: Mapping[str, Any]) -> str:
    """What a trial tried, from its attributes."""
    return " ".join(f"{name}={value}" for name, value in attributes.get("options", {}).items())


def conclude(trials: Sequence[FrozenTrial], folder: Path, words: Sequence[str], program: Sequence[str]) -> bool:
    """Print what was found, and write `sweep.json`, picture and report, the latter once no trial runs any more.

    Args:
        trials: all of the study.
        folder: of the sweep.
        words: the options that all trials share.
        program: what runs a verb.

    Returns:
        Whether some trial was measured.
    """
    found = results(trials)
    best = choose(found)
    others = unmeasured(trials)
    print("\n" + "\n".join([*(table(found, best) if found else []), *others]))
    command = None
    if best is not None:
        given = [*words, *as_words(best.options), "--output_dir", str(folder / "best")]
        command = shlex.join([*program, "unlearn", *given])
    content = {
        "rule": RULE,
        "best": best and {**asdict(best), "command": command},
        "frontier": [each.number for each in frontier(found)],
        "trials": [asdict(each) for each in found],
        "others": others,
    }
    write_json(folder / RESULT_FILE, content)
    if not found:
        print("no trial was measured")
        return False
    print(f"\n* the choice, + others on the frontier. Rule: {RULE}{'' if found[0].held_back else ' (trained on)'}.")
    _say_choice(found, best)
    if command is not None:
        print(f"command of the choice:\n  {command}")
    _draw(found, best, folder)
    if any(trial.state == TrialState.RUNNING for trial in trials):
        print("trials still run in other processes; the one that ends last writes the report.")
    else:
        _report(found, folder)
    return True


def _say_choice(found: Sequence[Result], best: Result | None) -> None:
    if best is not None:
        print(
            f"choice: trial {best.number}, {best.leaking} of {best.known} rows leak, forget Prob "
            f"{best.forget_prob:.3g}, {100 * best.kept:.1f} % kept; its model is in {best.folder}"
        )
        if best.leaking == best.known:
            print("Every row leaks still: search higher learning rates, or more epochs.")
    elif not any(each.knew for each in found):
        print("no choice: the model did not know these rows before, so that there is nothing to forget.")
    else:
        most = max(found, key=lambda each: each.kept)
        print(
            f"no choice: no trial kept {100 * KEPT:.0f} % (the most is {100 * most.kept:.1f} %, trial {most.number}); "
            "look at the frontier, or search lower learning rates and fewer epochs."
        )


def _draw(found: Sequence[Result], best: Result | None, folder: Path) -> None:
    from unlearn_hf.report.figures import draw_trials, save

    try:
        figure = draw_trials(found, frontier(found), best, KEPT)
    except ImportError as problem:
        print(f"no picture: {problem}", file=sys.stderr)
        return
    save(figure, folder, "frontier")
    print(f"picture: {folder / 'frontier.png'}")


def _report(found: Sequence[Result], folder: Path) -> None:
    from unlearn_hf.cli.verbs.report import ReportArguments, make_report

    there = [path for path in dict.fromkeys(Path(each.folder) for each in found) if path.is_dir()]
    if there:
        try:
            make_report(there, folder / "report", ReportArguments(title="Trials of a sweep"))
        except ValueError as problem:  # trials without an evaluation
            print(f"no report: {str(problem).splitlines()[0]}", file=sys.stderr)
