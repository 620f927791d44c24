"""What is continued, how, and what ends a continuation."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn
from transformers import PreTrainedTokenizerBase

from unlearn_hf.common.checks import check_count


@dataclass(frozen=True)
class GenerationSettings:
    """How to continue.

    Attributes:
        max_new_tokens: most tokens of a continuation.
        max_length: TOFU's official rule instead: prompt and continuation together, the prompt counted with the padding
            of its batch, so that the budget depends on the batch.
        samples: continuations of each prompt; more than one needs a temperature.
        temperature: 0 is greedy decoding; 1 draws from the model's own distribution.
        top_p: share of probability that is drawn from, the most likely tokens first.
        seed: of what is drawn, together with the prompt's key and the number of the sample, so that neither batches
            nor ranks change a sample; the backend `transformers` draws for a batch at a time, by all of its keys.
        stops: texts at which a continuation may end, because nothing after them is used.
    """

    max_new_tokens: int = 200
    max_length: int | None = None
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse continuations without tokens and samples that would all be the same.

        Raises:
            ValueError: naming the field.
        """
        check_count("max_new_tokens", self.max_new_tokens)
        check_count("samples", self.samples)
        if not self.temperature >= 0:
            raise ValueError(f"temperature: {self.temperature} is negative; give 0 for greedy decoding, or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: {self.top_p} is not in (0, 1]; 1 draws from all tokens.")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples: {self.samples} greedy continuations are all the same; give a temperature, such as 1."
            )


@dataclass(frozen=True)
class GeneratedText:
    """A prompt to continue.

    Attributes:
        key: unique name.
        input_ids: the prompt.
        settings: how to continue it.
        guess: tokens that may come, such as the answer; they cost one pass where they do not, and save many where
            they do, and never change the text.
    """

    key: str
    input_ids: list[int]
    settings: GenerationSettings = GenerationSettings()
    guess: tuple[int, ...] = field(default=(), repr=False)

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.input_ids)


def end_tokens(tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> list[int]:
    """Tokens that end a continuation: the tokenizer's, and those the model's generation settings name."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return sorted({int(token) for token in [tokenizer.eos_token_id, *listed] if token is not None})
