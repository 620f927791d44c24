"""What a method may override: when weights are chosen, from what, and what it carries from step to step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from unlearn_hf.objectives import Objective
from unlearn_hf.training.optimizer_step import Losses
from unlearn_hf.training.unlearning_config import UnlearningConfig


class MethodHooks:
    """The part of a trainer that differs between methods. All have defaults, except one of the two weights.

    Attributes:
        paper: `title`, `url` and `citation`.
        needs_gram: whether `gradient_weights` gets the Gram matrix of the two gradients.
        copies_of_trained: how many more copies of the trained parameters' size the method holds.
        models_saved: how many models of the size of the one that is trained the run ends with.
        uses_retain_rows: whether it trains on rows to keep; else they can be left out, and the verdict does without.
    """

    paper: ClassVar[dict[str, str]] = {}
    needs_gram: ClassVar[bool] = False
    copies_of_trained: ClassVar[int] = 0
    models_saved: ClassVar[int] = 1
    uses_retain_rows: ClassVar[bool] = True
    args: UnlearningConfig

    @property
    def retain_objective(self) -> Objective:
        """What is minimised on the retain set."""
        return self.args.retain_objective

    @property
    def gradient_level(self) -> bool:
        """Whether the weights are chosen after both gradients are known."""
        return self.needs_gram

    @property
    def keeps_gradients_apart(self) -> bool:
        """Whether there are two gradients to choose weights from, or to look at."""
        return self.gradient_level or self.args.log_gradient_geometry != "none"

    @property
    def remeasured(self) -> tuple[str, ...]:
        """Which losses (`"forget"`, `"retain"`) `after_step` gets again, of the same batch after the step."""
        return ("retain",) if self.args.retain_budget is not None and self.follows_batches else ()

    @property
    def needs_retain_loss(self) -> bool:
        """Whether the retain loss is wanted in a step that gives it no weight."""
        return self.gradient_level or self.follows_batches or "retain" in self.remeasured

    @property
    def follows_retain_level(self) -> bool:
        """Whether the rise of the retain loss since before unlearning is measured."""
        return self.args.retain_budget is not None

    @property
    def needs_retain_reference(self) -> bool:
        """Whether retain batches carry the NLL of the model before unlearning: what their loss is compared with."""
        return self.follows_batches and self.retain_objective.is_nll

    @property
    def follows_batches(self) -> bool:
        """Whether that rise is read from the retain loss of the steps, whatever its weight."""
        return self.follows_retain_level and self.args.level_estimate != "probe"

    def loss_weights(self) -> tuple[float, float]:
        """Weights of forget and retain loss in this step (methods with one gradient)."""
        raise NotImplementedError

    def gradient_weights(self, gram: Any, losses: Losses) -> tuple[float, float]:
        """Weights of forget and retain gradient in this step (methods with two gradients; else those of the losses).

        Args:
            gram: inner products of the two gradients, `[2, 2]` float64 on the CPU, forget first; `None` unless
                `needs_gram`.
            losses: the two losses of the whole step.
        """
        return self.loss_weights()

    def parameter_weights(self, grams: Tensor, losses: Losses, weights: tuple[float, float]) -> Tensor | None:
        """Weights of forget and retain gradient for each parameter by itself, for methods that work tensor by tensor.

        Args:
            grams: inner products of the two gradients of each trained parameter, `[P, 2, 2]` float64 on the CPU.
            losses: the two losses of the whole step.
            weights: what `gradient_weights` gave.

        Returns:
            `[P, 2]`, or `None` where `weights` hold for all parameters. Called only with `needs_gram`.
        """
        return None

    def elementwise_rule(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The update from both gradients of a parameter, for rules that no two weights express.

        Returns:
            A function of the forget and the retain gradient (alike in shape, dtype, device and sharding; final, as
            `gradients_collected` sees them) that works element by element, or `None` where weights do. It is called
            for each parameter, after `gradient_weights`, whose result is then only logged.
        """
        return None

    def gradients_collected(self, scale: float) -> None:
        """Called when both gradients are final, before their inner products are taken (methods with two gradients).

        Args:
            scale: the factor a gradient scaler has multiplied both gradients by.
        """

    def before_step(self, losses: Losses) -> None:
        """Called when gradients are final and parameters still old; `losses` are those of the whole step."""

    def after_step(self, before: Losses, after: Losses) -> None:
        """Update what the method carries. Called after every optimizer step that was not skipped.

        Args:
            before: losses of the step, with the parameters before it.
            after: losses of the same batch with the parameters after it; NaN for those that are not in `remeasured`.
        """

    def method_state(self) -> dict[str, Any]:
        """What a resumed run must know beyond parameters and optimizer: numbers and tensors; called on every rank."""
        return {}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take up the state that `method_state` gave."""

    def measurements(self) -> dict[str, float]:
        """Further numbers to log with every step (the dual variable, say)."""
        return {}
