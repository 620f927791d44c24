"""Arguments of the command line beyond training options: plain dataclasses that need neither torch nor transformers.

The first line of each docstring is the heading under which `--help` shows the fields.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields

from unlearn_hf.benchmarks.base import BENCHMARKS, OWN_ROWS, Benchmark
from unlearn_hf.common.checks import GENERATION_BACKENDS, MODEL_DTYPES, check_positive
from unlearn_hf.common.extras import require
from unlearn_hf.evaluation.attacks.base import ATTACKS, chosen_attacks

SUBSETS = ("full", "retain")
PROTOCOLS = ("all", "official")
COMPATIBILITIES = ("unlearn_hf", "open_unlearning")
REGISTERED = "auto"  # retain results: those that are registered, if any fit
MEASURE = "measure"
OWN_FILES = ("forget_file", "retain_file", "holdout_file", "train_file")


def _splits() -> str:
    return "; ".join(f"{name}: {', '.join(each.splits)}" for name, each in BENCHMARKS.items() if each.splits)


@dataclass
class MethodArguments:
    """Method"""

    method: str | None = field(default=None, metadata={"help": "Unlearning method; `unlearn-hf list` names them."})


@dataclass
class ModelArguments:
    """Model"""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Hub id, or folder of a model, an adapter or a run."}
    )
    tokenizer_name_or_path: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the tokenizer; the model's own by default."}
    )


@dataclass
class DataArguments:
    """Data: a benchmark, or two files of your own"""

    benchmark: str | None = field(
        default=None, metadata={"help": "Benchmark that gives data and metrics.", "choices": BENCHMARKS}
    )
    split: str | None = field(
        default=None,
        metadata={
            "help": lambda: (
                f"What is to be forgotten, the first by default; {_splits()}. With --from_log, the set of a log that "
                "does not tell: forget, retain, real_authors, world_facts."
            )
        },
    )
    source: str = field(
        default="hub",
        metadata={
            "help": "`hub`, `mini` (invented data that come along, offline), or a folder of the official files."
        },
    )
    revision: str | None = field(default=None, metadata={"help": "Commit or tag of the data on the hub."})
    forget_file: str | None = field(
        default=None,
        metadata={"help": "JSON lines to forget: question/answer, prompt/completion, messages or text."},
    )
    retain_file: str | None = field(default=None, metadata={"help": "JSON lines to keep, likewise."})
    holdout_file: str | None = field(
        default=None,
        metadata={
            "help": "JSON lines that the model has never seen, like those to forget: the verdict compares with them."
        },
    )
    forget_part: str | None = field(
        default=None,
        metadata={
            "help": "Part of the benchmark to forget instead of its forget set; `unlearn-hf list benchmarks` names "
            "some."
        },
    )
    max_forget_rows: int | None = field(default=None, metadata={"help": "Use the first rows only, for a quick try."})
    max_retain_rows: int | None = field(default=None, metadata={"help": "Likewise, for training on the retain set."})

    def __post_init__(self) -> None:
        """Check the fields, and set the default split of the benchmark.

        Raises:
            ValueError: for both kinds of data at once, half of a pair of files, or a count that is not positive.
        """
        check_positive("max_forget_rows", self.max_forget_rows)
        check_positive("max_retain_rows", self.max_retain_rows)
        if self.benchmark == OWN_ROWS:
            self.benchmark = None
        if self.benchmark is not None:
            self._refuse_with_benchmark("forget_file", "retain_file", "holdout_file")
            self.split = self.split or next(iter(self.unit.splits), None)
        elif self.forget_part is not None:
            raise ValueError(f"forget_part: {self.forget_part!r} belongs to a benchmark; add --benchmark.")

    @property
    def unit(self) -> Benchmark:
        """The entry of the registry: the benchmark, or rows of one's own."""
        return BENCHMARKS[self.benchmark or OWN_ROWS]

    def files(self) -> dict[str, str]:
        """The files of one's own that are named, by option."""
        found = {name: getattr(self, name, None) for name in OWN_FILES}
        return {name: file for name, file in found.items() if file is not None}

    def _refuse_with_benchmark(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} and benchmark {self.benchmark!r} exclude each other; "
                    "leave out one of them."
                )


@dataclass
class FinetuningDataArguments(DataArguments):
    """Data: a benchmark, or files of your own"""

    subset: str = field(
        default="full",
        metadata={
            "help": "full: forget and retain set (the target model). retain: retain set alone (the gold standard).",
            "choices": list(SUBSETS),
        },
    )
    train_file: str | None = field(default=None, metadata={"help": "JSON lines to learn, instead of the above."})

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: also for a training file beside other data.
        """
        super().__post_init__()
        if self.benchmark is not None:
            self._refuse_with_benchmark("train_file")
        if self.train_file is not None and (self.forget_file or self.retain_file):
            raise ValueError(f"train_file: {self.train_file!r} stands alone; leave out forget_file and retain_file.")


@dataclass
class EvaluationArguments:
    """Evaluation"""

    retain_results: str | None = field(
        default=REGISTERED,
        metadata={
            "help": "Results of the retain-only model (a run folder, our result file or another framework's), for "
            "what is relative to it: Forget Quality, PrivLeak, privacy. auto: those that `retrain` registered for "
            "the same data and base model, if any. none: without."
        },
    )
    retain_registry: str | None = field(
        default=None,
        metadata={
            "help": "File in which `retrain` registers results and others look for them. Default: retain_results.json "
            "in the folder above the run folder."
        },
    )
    evaluation_batch_size: int = field(default=16, metadata={"help": "Rows per forward pass and process."})
    max_new_tokens: int = field(
        default=200, metadata={"help": "Tokens generated per answer, at most, where the benchmark does not say."}
    )
    generation_backend: str = field(
        default="auto",
        metadata={
            "help": "How answers are generated; greedy texts are the same. auto: slots on a CPU where the model can, "
            "transformers elsewhere. slots: ours, texts that are done leave and likely tokens are only checked. "
            "transformers_continuous: its continuous batching, without mixed precision. vllm: whole models on a GPU "
            "(extra vllm).",
            "choices": list(GENERATION_BACKENDS),
        },
    )
    protocol: str = field(
        default="all",
        metadata={"help": "all: every row. official: the first 300 rows of a set.", "choices": list(PROTOCOLS)},
    )
    compatibility: str | None = field(
        default=None,
        metadata={
            "help": "Whose definitions the plain metric names have: ours by default, for a log its writer's.",
            "choices": list(COMPATIBILITIES),
        },
    )
    max_text_tokens: int | None = field(
        default=None,
        metadata={
            "help": "MUSE: tokens that texts of PrivLeak are cut to; by default they are whole, as for its authors."
        },
    )
    mmlu_accuracy: float | None = field(
        default=None,
        metadata={
            "help": "LUME: accuracy on MMLU as a share, for the final score (--lm_eval_tasks mmlu measures it)."
        },
    )
    max_evaluation_rows: int | None = field(default=None, metadata={"help": "Rows per set, for a quick look."})
    attacks: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Membership attacks that need passes of their own; the others are always made.",
            "choices": ATTACKS,
        },
    )
    attack_model: str | None = field(
        default=None,
        metadata={
            "help": "Model (hub id or folder) that the attack `reference` compares with; it shares tokenizer and "
            "template."
        },
    )
    fluency_model: str | None = field(
        default=None,
        metadata={
            "help": "Sequence classifier (hub id or folder) that judges whether answers on the forget set are fluent; "
            "open-unlearning takes madhurjindal/autonlp-Gibberish-Detector-492513457."
        },
    )
    fluency_label: str = field(default="clean", metadata={"help": "Its label of texts that are no gibberish."})
    lm_eval_tasks: list[str] = field(
        default_factory=list,
        metadata={"help": "Also run tasks of lm-evaluation-harness (extra lm-eval): mmlu, wmdp_bio ..."},
    )
    lm_eval_task_folder: str | None = field(
        default=None, metadata={"help": "Folder with lm-evaluation-harness task files of your own."}
    )

    @property
    def named_retain_results(self) -> str | None:
        """The retain results that are named, or were found."""
        return None if self.retain_results == REGISTERED else self.retain_results

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a count that is not positive, and for an option without what it belongs to.
            ImportError: for vLLM where it is not installed.
        """
        for name in ("evaluation_batch_size", "max_new_tokens", "max_text_tokens", "max_evaluation_rows"):
            check_positive(name, getattr(self, name))
        if self.mmlu_accuracy is not None and not 0 <= self.mmlu_accuracy <= 1:
            raise ValueError(f"mmlu_accuracy: {self.mmlu_accuracy} is not in [0, 1]; give it as a share.")
        self.attacks = list(chosen_attacks(self.attacks, self.attack_model))
        if self.fluency_model is None and self.fluency_label != type(self).fluency_label:
            raise ValueError(f"fluency_label: {self.fluency_label!r} has no effect without fluency_model; name one.")
        if self.lm_eval_task_folder is not None and not self.lm_eval_tasks:
            raise ValueError(
                f"lm_eval_task_folder: {self.lm_eval_task_folder!r} has no effect without lm_eval_tasks; name some."
            )
        if self.generation_backend == "vllm":
            require("vllm", "vllm", "generation_backend vllm")


@dataclass
class LoraArguments:
    """Low-rank adapter"""

    use_lora: bool = field(default=False, metadata={"help": "Train an adapter instead of the model."})
    lora_r: int = field(default=16, metadata={"help": "Rank."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale; the update is multiplied by lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapter, from 0 to below 1."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["all-linear"], metadata={"help": "Names of the layers that get an adapter."}
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a rank or scale that is not positive, a dropout outside [0, 1), no layers, or any of
                them without `use_lora`.
        """
        check_positive("lora_r", self.lora_r)
        check_positive("lora_alpha", self.lora_alpha)
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout: {self.lora_dropout} is not in [0, 1).")
        if not self.lora_target_modules:
            raise ValueError("lora_target_modules: the list is empty; name layers, or `all-linear`.")
        for item in [] if self.use_lora else fields(self):
            default = item.default if item.default_factory is MISSING else item.default_factory()
            if getattr(self, item.name) != default:
                raise ValueError(
                    f"{item.name}: {getattr(self, item.name)!r} has no effect without an adapter; add --use_lora, or "
                    "leave it out."
                )


@dataclass
class RunArguments:
    """Run folder"""

    final_evaluation: bool = field(default=True, metadata={"help": "Evaluate the model that comes out."})
    resume: bool = field(
        default=False, metadata={"help": "Continue in the run folder from its newest complete checkpoint."}
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Begin afresh; the old folder is kept beside it as NAME.backup-1, -2, ..."}
    )
    keep_checkpoints: bool = field(
        default=False,
        metadata={"help": "Leave the last checkpoints in the folder of a finished run, so that it can be trained on."},
    )
    fail_unless_forgotten: bool = field(
        default=False, metadata={"help": "End with status 3 unless the verdict says that everything was forgotten."}
    )

    dry_run: bool | str = field(
        default=False,
        metadata={
            "help": "Say what the run would do (rows, steps, memory, disk, an example), and write nothing. measure: "
            "also time a step."
        },
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for resume together with overwrite, or an unknown kind of dry run.
        """
        if self.dry_run not in (True, False, MEASURE):
            raise ValueError(f"dry_run: {self.dry_run!r} is not known; give nothing, or {MEASURE!r}.")
        if self.resume and self.overwrite:
            raise ValueError("resume: True and overwrite: True exclude each other; leave out one of them.")


@dataclass
class EvaluateArguments:
    """What to evaluate, and where results go"""

    from_log: str | None = field(
        default=None,
        metadata={"help": "Compute metrics from a result file (ours or another framework's) and load no model."},
    )
    output_dir: str | None = field(
        default=None,
        metadata={"help": "Folder for evaluation.json and samples.parquet; by default inside the model's folder."},
    )
    output_file: str | None = field(default=None, metadata={"help": "Also write the metrics to this JSON file."})
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace output_file, and results, which are kept in NAME.backup-1, -2, ... beside theirs."},
    )
    template: str = field(
        default="auto", metadata={"help": "Prompt template; `auto`: the one the run used, or the chat template."}
    )
    max_length: int = field(default=512, metadata={"help": "Tokens per sequence; longer ones lose their tail."})
    model_dtype: str = field(
        default="float32", metadata={"help": "Precision of the weights.", "choices": list(MODEL_DTYPES)}
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "Hold the base model in 4 bit (bitsandbytes); by default as the run that made the adapter."},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention: sdpa, eager, flex_attention, flash_attention_2 (a GPU)."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that comes with the model or tokenizer. Read it before."}
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a length that is not positive, or an attention that cannot be had.
        """
        check_positive("max_length", self.max_length)
        if self.attn_implementation is not None:
            from unlearn_hf.models.loading import check_attention

            check_attention(self.attn_implementation)


@dataclass
class DemoArguments:
    """Where the demonstration goes"""

    output_dir: str = field(
        default="runs/demo", metadata={"help": "Folder for models, results, plot and summary.json."}
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Begin afresh; the old folder is kept beside it as NAME.backup-1, -2, ..."}
    )
