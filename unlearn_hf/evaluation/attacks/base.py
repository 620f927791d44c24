"""What a membership attack is: a score per text, from what it needs; and the registry of all of them.

Each attack gives every text of the forget set (members before unlearning) and of a holdout set (never trained on) a
score that is *higher for texts that look less like members*. The declarations are light: what is heavy is imported
inside the methods.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unlearn_hf.common.registry import Registry

if TYPE_CHECKING:
    import pandas as pd
    from accelerate import Accelerator
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from unlearn_hf.evaluation.engine import Engine
    from unlearn_hf.evaluation.requests import SplitRequest
    from unlearn_hf.likelihood.one_pass import PartialResults


@dataclass(frozen=True)
class TokenScores:
    """What the likelihood pass knows of one text.

    Attributes:
        log: log-probability of each token, shape `[n]`, the end of sequence left out.
        standardised: the same, standardised over the vocabulary at its place.
        match: whether each token is the most likely one.
        mean_nll: mean NLL in nats, the end of sequence included.
        text: the text.
    """

    log: Tensor
    standardised: Tensor
    match: Tensor
    mean_nll: float
    text: str


@dataclass(frozen=True)
class AttackPass:
    """What an attack with a pass of its own may use.

    Attributes:
        model: the model that is attacked.
        tokenizer: its tokenizer.
        requests: the sets that are attacked, their answers alone.
        engine: runs a model over requests, with the template and lengths of the evaluation.
        memory: of the evaluator; what an attack keeps in it is there at the next evaluation.
        attack_model: another model, or its name, where the attack needs one.
        accelerator: shares work out over processes.
        partial: results of an interrupted evaluation.
        compatibility: framework whose definition is asked for, see `evaluation.sample_table`.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    requests: Sequence[SplitRequest]
    engine: Engine
    memory: dict[str, Any]
    attack_model: nn.Module | str | None = None
    accelerator: Accelerator | None = None
    partial: PartialResults | None = None
    compatibility: str | None = None


class Attack:
    """An attack; a subclass overrides `score`, or `scores` when it needs a pass of its own.

    Attributes:
        summary: by what it attacks, in a few words.
        paper: where it comes from.
        needs: `tokens` (the likelihood pass, at no further cost), a `pass` of its own, or another `model`.
        cost: what it costs beyond the likelihood pass.
        version: of our implementation.
    """

    summary: str = ""
    paper: str = ""
    needs: Literal["tokens", "pass", "model"] = "tokens"
    cost: str = "nothing beyond the likelihood pass"
    version: int = 1

    def score(self, tokens: TokenScores) -> float | None:
        """Score of one text, `None` where it has none (a text without tokens)."""
        raise NotImplementedError

    def scores(self, run: AttackPass) -> Mapping[tuple[str, int], float]:
        """Score of each attacked text by set and index, from a pass of its own."""
        raise NotImplementedError

    def definition(self, compatibility: str | None) -> str:
        """Which of several formulas under this name a compatibility takes."""
        return "holdout_above_forget"

    def aggregate(self, forget: Any, holdout: Any) -> float:
        """What the scores of both sets amount to: the AUC, see `attack_auc`."""
        from unlearn_hf.evaluation.metrics.statistics import attack_auc

        return attack_auc(forget, holdout)


ATTACKS: Registry[Attack] = Registry(
    "attack",
    {
        "loss": "unlearn_hf.evaluation.attacks.loss:LOSS",
        "zlib": "unlearn_hf.evaluation.attacks.compression:ZLIB",
        "min_k": "unlearn_hf.evaluation.attacks.min_k:MIN_K",
        "min_k_plus_plus": "unlearn_hf.evaluation.attacks.min_k:MIN_K_PLUS_PLUS",
        "gradient_norm": "unlearn_hf.evaluation.attacks.gradient_norm:GRADIENT_NORM",
        "reference": "unlearn_hf.evaluation.attacks.other_model:REFERENCE",
    },
)


def add_scores(samples: pd.DataFrame, attacks: Sequence[str], run: AttackPass) -> None:
    """Add a column of scores to a table for each of these attacks with passes of their own; NaN: a row has none."""
    rows = list(zip(samples["split"], samples["index"], strict=True))
    for name in attacks:
        start = time.perf_counter()
        found = ATTACKS[name].scores(run)
        samples[name] = [found.get(row, float("nan")) for row in rows]
        run.engine.seconds[name] = time.perf_counter() - start


def chosen_attacks(attacks: Sequence[str], attack_model: Any = None) -> tuple[str, ...]:
    """The attacks with a pass of their own that are asked for; a model for one asks for it.

    Raises:
        ValueError: for an unknown attack, or one without the model that it needs.
    """
    chosen = [name for name in dict.fromkeys(attacks) if ATTACKS.find(name).needs != "tokens"]
    comparing = [name for name in chosen if ATTACKS[name].needs == "model"]
    if comparing and attack_model is None:
        raise ValueError(f"attack_model: missing; the attack {comparing[0]} compares with a model, so name one.")
    if attack_model is not None and not comparing:
        chosen.append("reference")
    return tuple(chosen)
