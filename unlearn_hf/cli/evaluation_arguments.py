"""Arguments about evaluation: how a model is judged, what `evaluate` judges, and where results go.

As in `arguments`, plain dataclasses whose docstring is a heading of `--help`.
"""

from __future__ import annotations

from dataclasses import dataclass

from unlearn_hf.common.checks import GENERATION_BACKENDS, MODEL_DTYPES, check_positive
from unlearn_hf.common.extras import require
from unlearn_hf.common.options import option
from unlearn_hf.evaluation.attacks.base import ATTACKS, chosen_attacks

REGISTERED = "auto"  # retain results: those that are registered, if any fit


@dataclass
class EvaluationArguments:
    """Evaluation"""

    retain_results: str | None = option(
        REGISTERED,
        "Results of the retain-only model (a run folder, our result file or another framework's), for "
        "what is relative to it: Forget Quality, PrivLeak, privacy. auto: those that `retrain` registered for "
        "the same data and base model, if any. none: without.",
    )
    retain_registry: str | None = option(
        None,
        "File in which `retrain` registers results and others look for them. Default: retain_results.json "
        "in the folder above the run folder.",
    )
    evaluation_batch_size: int = option(16, "Rows per forward pass and process.")
    max_new_tokens: int = option(200, "Tokens generated per answer, at most, where the benchmark does not say.")
    generation_backend: str = option(
        "auto",
        "How answers are generated; greedy texts are the same. auto: slots on a CPU where the model can, "
        "transformers elsewhere. slots: ours, texts that are done leave and likely tokens are only checked. "
        "transformers_continuous: its continuous batching, without mixed precision. vllm: whole models on a GPU "
        "(extra vllm).",
        choices=GENERATION_BACKENDS,
    )
    protocol: str = option(
        "all", "all: every row. official: the first 300 rows of a set.", choices=("all", "official")
    )
    compatibility: str | None = option(
        None,
        "Whose definitions the plain metric names have: ours by default, for a log its writer's.",
        choices=("unlearn_hf", "open_unlearning"),
    )
    max_text_tokens: int | None = option(
        None, "MUSE: tokens that texts of PrivLeak are cut to; by default they are whole, as for its authors."
    )
    mmlu_accuracy: float | None = option(
        None, "LUME: accuracy on MMLU as a share, for the final score (--lm_eval_tasks mmlu measures it)."
    )
    max_evaluation_rows: int | None = option(None, "Rows per set, for a quick look.")
    attacks: list[str] = option(
        [], "Membership attacks that need passes of their own; the others are always made.", choices=ATTACKS
    )
    attack_model: str | None = option(
        None, "Model (hub id or folder) that the attack `reference` compares with; it shares tokenizer and template."
    )
    fluency_model: str | None = option(
        None,
        "Sequence classifier (hub id or folder) that judges whether answers on the forget set are fluent; "
        "open-unlearning takes madhurjindal/autonlp-Gibberish-Detector-492513457.",
    )
    fluency_label: str = option("clean", "Its label of texts that are no gibberish.")
    lm_eval_tasks: list[str] = option(
        [], "Also run tasks of lm-evaluation-harness (extra lm-eval): mmlu, wmdp_bio ..."
    )
    lm_eval_task_folder: str | None = option(None, "Folder with lm-evaluation-harness task files of your own.")

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
class EvaluateArguments:
    """What to evaluate, and where results go"""

    from_log: str | None = option(
        None, "Compute metrics from a result file (ours or another framework's) and load no model."
    )
    output_dir: str | None = option(
        None, "Folder for evaluation.json and samples.parquet; by default inside the model's folder."
    )
    output_file: str | None = option(None, "Also write the metrics to this JSON file.")
    overwrite: bool = option(
        False, "Replace output_file, and results, which are kept in NAME.backup-1, -2, ... beside theirs."
    )
    template: str = option("auto", "Prompt template; `auto`: the one the run used, or the chat template.")
    max_length: int = option(512, "Tokens per sequence; longer ones lose their tail.")
    model_dtype: str = option("float32", "Precision of the weights.", choices=MODEL_DTYPES)
    load_in_4bit: bool = option(
        False, "Hold the base model in 4 bit (bitsandbytes); by default as the run that made the adapter."
    )
    attn_implementation: str | None = option(
        None, "Attention: sdpa, eager, flex_attention, flash_attention_2 (a GPU)."
    )
    trust_remote_code: bool = option(False, "Run code that comes with the model or tokenizer. Read it before.")

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a length that is not positive, or an attention that cannot be had.
        """
        check_positive("max_length", self.max_length)
        if self.attn_implementation is not None:
            from unlearn_hf.models.loading import check_attention

            check_attention(self.attn_implementation)
