"""What an objective is: what it needs of each row, a function of that, its own parameters, and what it averages over.

Nothing here, nor in the modules of the objectives, imports torch before an objective is computed: names, summaries
and parameters are read by `list` and `--help`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unlearn_hf.common.options import check_options

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood

ALTERNATIVE = "alternative"
"""The batch of alternative answers: for each forget row its prompt with another answer (a refusal, say)."""


@dataclass(frozen=True)
class Needs:
    """What an objective needs of each row; a step costs no more than that.

    Attributes:
        answers: the answers the model is asked about: the row's `own`, the `alternative`, or both.
        nll: the NLL of their tokens; without it, and without a function of logits, the head is not run.
        hidden: hidden states of the layer that the parameter `layer` names; if these are all, the model runs no
            further.
        reference: what the model before unlearning said of the same answers: the `nll` of each, its `logits` (for a
            function of logits), or its `hidden` states of the same layer.
    """

    answers: tuple[Literal["own", "alternative"], ...] = ("own",)
    nll: bool = True
    hidden: bool = False
    reference: tuple[Literal["nll", "logits", "hidden"], ...] = ()


@dataclass(frozen=True)
class Parameters:
    """Base of an objective's parameters, which are checked by what `option` says of each."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: for one out of its range.
        """
        check_options(self)


@dataclass(frozen=True)
class NoParameters(Parameters):
    """An objective without parameters."""


@dataclass(frozen=True)
class Objective:
    """An objective to minimise on the forget or the retain set.

    Attributes:
        name: the name used in configs.
        summary: one line.
        paper: where it comes from.
        unit: what the loss averages over: labelled `"tokens"` or `"sequences"` of the answers it is about.
        function: maps an `AnswerLikelihood` and the parameters to one contribution per sequence, `[B]`. The loss is
            the sum of contributions over the whole optimizer step divided by the number of `unit`s in it. Of an
            objective about both answers, `likelihood.alternative` has the other one. Without a function the values
            of `token_function` are added up.
        token_function: maps logits `[n, V]` (float32), targets `[n]`, the reference's logits `[n, V]` (`None` unless
            needed) and the parameters to one value per token, `[n]`, in `likelihood.token_values["objective"]`. It
            is called on one chunk of label positions after the other, so that the logits of a batch never exist at
            once.
        needs: what it needs of each row; a function of the parameters where it depends on them.
        parameters: a dataclass, whose fields become options of every method; `help` in a field's metadata describes
            it. Options of the same name in two objectives are one option. It checks its values in `__post_init__`.
        non_negative: whether the loss is bounded below by zero (a logarithm of it exists).
        zero_before_unlearning: whether the loss is zero for the model before unlearning.
        is_nll: whether the loss is the mean NLL of the answers.
    """

    name: str
    summary: str
    paper: str
    unit: Literal["tokens", "sequences"] = "tokens"
    function: Callable[[AnswerLikelihood, Any], Tensor] | None = None
    token_function: Callable[[Tensor, Tensor, Tensor | None, Any], Tensor] | None = None
    needs: Needs | Callable[[Any], Needs] = Needs()
    parameters: type = NoParameters
    non_negative: bool = True
    zero_before_unlearning: bool = False
    is_nll: bool = False

    def __post_init__(self) -> None:
        """Refuse an objective that computes nothing.

        Raises:
            ValueError: without a function, or with parameters that are no dataclass.
        """
        if self.function is None and self.token_function is None:
            raise ValueError(f"objective {self.name!r}: give a function of likelihoods or a token_function of logits.")
        if not dataclasses.is_dataclass(self.parameters):
            raise ValueError(f"objective {self.name!r}: parameters must be a dataclass, not {self.parameters!r}.")

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of its parameters."""
        return tuple(field.name for field in dataclasses.fields(self.parameters))

    def needs_with(self, parameters: Any) -> Needs:
        """What it needs of each row with these parameters."""
        return self.needs if isinstance(self.needs, Needs) else self.needs(parameters)

    def reaches_head(self, needs: Needs) -> bool:
        """Whether it is a function of the logits, so that every layer and the head have a gradient."""
        return needs.nll or self.token_function is not None

    def __call__(self, likelihood: AnswerLikelihood, parameters: Any = None, **values: Any) -> Tensor:
        """Contributions of each sequence, shape `[B]`; parameters as an instance, or by name."""
        if self.function is not None:
            return self.function(likelihood, self.parameters(**values) if parameters is None else parameters)
        return likelihood.sum_by_sequence(likelihood.token_values["objective"])
