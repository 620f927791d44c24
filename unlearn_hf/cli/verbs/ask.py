"""`unlearn-hf ask`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_hf.cli.option_names import all_fields
from unlearn_hf.cli.parsing import (
    ArgumentsError,
    Setting,
    Settings,
    add_unless_given,
    build,
    collect_settings,
    split_named,
)
from unlearn_hf.cli.verbs import Verb
from unlearn_hf.common.checks import MODEL_DTYPES, check_count, check_positive, problems_of
from unlearn_hf.common.files import read_json_lines
from unlearn_hf.common.options import option
from unlearn_hf.common.run_record import RECORD, read_record, run_of
from unlearn_hf.models.paths import base_name, check_model_path, check_tokenizer_path, is_adapter

_CONTINUED = "completion"
_QUESTION = "question> "


@dataclass
class AskArguments:
    """What to ask, and how"""

    answer: str | None = option(None, "An answer whose probability is wanted, the true one say.")
    before: str | None = option(
        None, "The model to compare with. Default: what the run began with; none for other folders."
    )
    samples: int = option(2, "Sampled answers of each model, beside the greedy one.")
    temperature: float = option(1.0, "Of samples; 1 is the model's own distribution.")
    seed: int = option(0, "Of samples.")
    max_new_tokens: int = option(64, "Tokens of an answer, at most.")
    tokenizer_name_or_path: str | None = option(
        None, "Hub id or folder of the tokenizer; by default the one of the run."
    )
    template: str = option(
        "auto", "Prompt template; `auto`: the run's, or the chat template; `completion` continues a text."
    )
    model_dtype: str = option("float32", "Precision of the weights.", choices=MODEL_DTYPES)
    load_in_4bit: bool = option(False, "Hold the base model in 4 bit; by default as the run that made the adapter.")
    trust_remote_code: bool = option(False, "Run code that comes with the model or tokenizer. Read it before.")

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a count or temperature out of range, or an empty answer.
        """
        check_count("max_new_tokens", self.max_new_tokens)
        check_positive("temperature", self.temperature)
        if self.samples < 0:
            raise ValueError(f"samples: {self.samples} is negative; 0 leaves sampled answers out.")
        if self.answer is not None and not self.answer.strip():
            raise ValueError("answer: it is empty; leave it out, or give the words whose probability is wanted.")


ARGUMENTS = (AskArguments,)


def parse(argv: Sequence[str]) -> tuple[str, str | None, AskArguments]:
    """The model, the question (`None`: it is read), and the options, with what the run's record adds.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    named, options = split_named(argv)
    known = all_fields()
    settings, problems = collect_settings(options, known)
    if not named:
        problems.append("run: none is named; name a run folder or a model before the question.")
    if len(named) > 2:
        problems.append(f"question: {named[2]!r} follows it; put the question into quotes.")
    question = named[1] if len(named) > 1 else None
    if question is not None and not question.strip():
        problems.append("question: it is empty; give words, or leave it out to be asked for it.")
    if question is None and "answer" in settings:
        problems.append("answer: it belongs to one question; give the question too, or type it behind a tab.")
    if named:
        problems += problems_of(_take_from_record, settings, Path(named[0]))
    (arguments,) = build(ARGUMENTS, settings, problems, ignored=known)
    problems = _missing(named[0], arguments)
    if problems:
        raise ArgumentsError(problems)
    return named[0], question, arguments


def _take_from_record(settings: Settings, folder: Path) -> None:
    """Add template, tokenizer and the model before from the record of the run, as far as they are not given."""
    home = run_of(folder)
    if home is None:
        return
    record = read_record(home)
    configuration = record.get("configuration", {})
    origin = str(home / RECORD)
    if record.get("verb") == "merge":  # the adapter's run says where it began
        settings.setdefault("template", Setting(configuration.get("template", "auto"), origin))
        _take_from_record(settings, Path(str(configuration.get("model_name_or_path"))))
        return
    found = {
        "before": configuration.get("model_name_or_path"),
        "template": _CONTINUED if _is_text(record) else configuration.get("template"),
        "tokenizer_name_or_path": configuration.get("tokenizer_name_or_path"),
        "load_in_4bit": configuration.get("load_in_4bit") if is_adapter(folder) else None,
    }
    add_unless_given(settings, found, origin)


def _is_text(record: dict[str, Any]) -> bool:
    """Whether the run trained on raw texts, which are continued, not answered."""
    sets = record.get("data", {}).get("trained_on", {}).values()
    columns = next((each["columns"] for each in sets if "columns" in each), None)
    if columns is None:  # a record of before these were noted
        file = Path(str(record.get("configuration", {}).get("forget_file")))
        columns = read_json_lines(file)[0][1] if file.is_file() else ()
    return "text" in columns and len(set(columns) & {"question", "prompt", "messages"}) == 0


def _missing(name: str, arguments: AskArguments) -> list[str]:
    """What is wrong with the models that are named."""
    problems = problems_of(check_model_path, name, "run", arguments.trust_remote_code)
    if arguments.before is not None:
        found = problems_of(check_model_path, arguments.before, "before", arguments.trust_remote_code)
        problems += [f"{problem} --before names the model that the run began with." for problem in found]
    if arguments.tokenizer_name_or_path is not None:
        problems += problems_of(check_tokenizer_path, arguments.tokenizer_name_or_path)
    return problems


def run(argv: Sequence[str]) -> int:
    """Ask, and print the answers."""
    name, question, arguments = parse(argv)
    from unlearn_hf.report.asked import print_asked

    ask = _asker(name, arguments)
    pairs = [(question, arguments.answer)] if question is not None else _typed()
    for number, (each, answer) in enumerate(pairs):
        if number:
            print()
        print_asked(ask(each, answer))
    return 0


def _typed() -> Iterator[tuple[str, str | None]]:
    """Questions, line by line until the end of the input; an answer may follow behind a tab."""
    if sys.stdin.isatty():
        print("A question a line, an answer whose probability is wanted behind a tab; Ctrl-D ends.")
    while True:
        try:
            line = input(_QUESTION if sys.stdin.isatty() else "")
        except EOFError:
            return
        question, _, answer = line.partition("\t")
        if question.strip():
            yield question.strip(), answer.strip() or None


def _asker(name: str, arguments: AskArguments) -> Any:
    """Load the models; returns a function from question and answer to what they say."""
    import torch

    from unlearn_hf.data.templates import resolve_template
    from unlearn_hf.evaluation.asking import AskingSettings, ask
    from unlearn_hf.models.loading import check_vocabulary, load_model, load_tokenizer
    from unlearn_hf.report.asked import Asked

    tokenizer = load_tokenizer(arguments.tokenizer_name_or_path or name, arguments.trust_remote_code)
    template = resolve_template(tokenizer, arguments.template)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None

    def loaded(model: str) -> Any:
        found = load_model(
            model,
            arguments.model_dtype,
            False,
            trust_remote_code=arguments.trust_remote_code,
            load_in_4bit=arguments.load_in_4bit,
        )
        check_vocabulary(found, tokenizer)
        return found.to(accelerator or "cpu").eval()

    models = {"after" if arguments.before else "answer": loaded(name)}
    if arguments.before:
        shared = is_adapter(name) and Path(base_name(name)).resolve() == Path(arguments.before).resolve()
        models = {"before": None if shared else loaded(arguments.before), **models}
    settings = AskingSettings(
        arguments.samples,
        arguments.temperature,
        arguments.seed,
        arguments.max_new_tokens,
        open_end=arguments.template == _CONTINUED,
    )

    def ask_all(question: str, answer: str | None) -> Asked:
        answers = {}
        for side, model in models.items():
            with nullcontext() if model is not None else models["after"].disable_adapter():
                asked = model if model is not None else models["after"]  # which holds the base model already
                answers[side] = ask(asked, tokenizer, template, _turns(question), answer, settings)
        return Asked(question, answer, answers)

    return ask_all


def _turns(question: str) -> Any:
    """A conversation where the question is one in JSON, else the question."""
    if question.startswith("[{"):
        try:
            return json.loads(question)
        except ValueError as problem:
            raise ValueError(f"question: {question[:60]!r} is no conversation in JSON ({problem}).") from problem
    return question


VERB = Verb(
    run,
    "Put a question to the model before and after a run, side by side.",
    examples=(
        'unlearn-hf ask runs/mine "Who wrote The Blue Door?" --answer "Ada Moren."',
        "unlearn-hf ask runs/mine",
        "unlearn-hf ask runs/mine < questions.txt",
    ),
    arguments=ARGUMENTS,
    words="RUN [QUESTION]",
)
