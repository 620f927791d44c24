"""Two models as one: logits `v_base - alpha * relu(v_reinforced - v_base)`.

This file is saved beside the weights and runs without the rest of the package, so it imports torch and transformers
alone.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple


class WHPModelConfig(PreTrainedConfig):
    """Configurations of both models, and how much is taken away.

    Attributes:
        base: of the model before unlearning.
        reinforced: of the model that was trained further on what is to be forgotten.
        alpha: weight of what is taken away, positive.
    """

    model_type = "whp"
    sub_configs_defaults = {  # noqa: RUF012
        "base": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
        "reinforced": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    base: Any = None  # a configuration, or a dictionary that becomes one
    reinforced: Any = None
    alpha: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        """Check what would give no distribution over tokens.

        Raises:
            ValueError: for an `alpha` that is not positive, or vocabularies of different sizes.
        """
        super().__post_init__(**kwargs)
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha: {self.alpha} takes nothing away; give a positive number such as 1.")
        sizes = [each.get_text_config(decoder=True).vocab_size for each in (self.base, self.reinforced)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"reinforced_model: its vocabulary has {sizes[1]} tokens, that of the base model {sizes[0]}; name a "
                "model that was trained from the same base."
            )

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Any:
        """The base model's, which says what a vocabulary, layers and a cache are like."""
        return self.base.get_text_config(decoder=decoder, encoder=encoder)


class TwoCaches(DynamicCache):
    """Keys and values of the base model, and in `second` those of the reinforced one."""

    def __init__(self, base: PreTrainedConfig, reinforced: PreTrainedConfig) -> None:
        super().__init__(config=base)
        self.second = DynamicCache(config=reinforced)

    def reorder_cache(self, beam_idx: Any) -> None:
        """Follow beams."""
        super().reorder_cache(beam_idx)
        self.second.reorder_cache(beam_idx)

    def crop(self, tokens_to_remove: int) -> None:
        """Take tokens back."""
        super().crop(tokens_to_remove)
        self.second.crop(tokens_to_remove)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        super().batch_repeat_interleave(repeats)
        self.second.batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        super().batch_select_indices(indices)
        self.second.batch_select_indices(indices)

    def activate_past_recording(self) -> None:
        """Prepare for tokens to be taken back."""
        super().activate_past_recording()
        self.second.activate_past_recording()

    def reset(self) -> None:
        """Empty both."""
        super().reset()
        self.second.reset()


class WHPForCausalLM(PreTrainedModel, GenerationMixin):
    """A causal language model whose logits are `v_base - alpha * relu(v_reinforced - v_base)`, token by token.

    What the reinforced model finds likelier than the base model does is taken to belong to what is to be forgotten.
    Both models run for every token: twice the parameters, the time and the cache of one.

    Source: Eldan and Russinovich, "Who's Harry Potter? Approximate Unlearning in LLMs", arXiv 2310.02238.
    """

    config_class = WHPModelConfig
    base_model_prefix = ""  # there is no decoder whose hidden states its logits could be made of
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = False

    def __init__(self, config: WHPModelConfig) -> None:
        super().__init__(config)
        self.base = AutoModelForCausalLM.from_config(config.base)
        self.reinforced = AutoModelForCausalLM.from_config(config.reinforced)
        self.post_init()

    @classmethod
    def of(cls, base: PreTrainedModel, reinforced: PreTrainedModel, alpha: float) -> "WHPForCausalLM":
        """Put two models together; they are not copied.

        Raises:
            ValueError: for an `alpha` that is not positive, or vocabularies of different sizes.
        """
        config = WHPModelConfig(base=base.config, reinforced=reinforced.config, alpha=alpha, dtype=base.dtype)
        with torch.device("meta"):
            model = cls(config)
        model.base, model.reinforced = base, reinforced
        model.generation_config = base.generation_config
        return model

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits `[B, T, V]` of both models, put together.

        Args:
            input_ids: `[B, T]`.
            attention_mask: `[B, T]`.
            position_ids: `[B, T]`.
            past_key_values: what an earlier call gave, or an empty cache.
            use_cache: whether a cache is wanted.
            labels: `[B, T]`, for the usual loss.
            logits_to_keep: the last positions, or the positions, whose logits are wanted; 0 for all.
            **kwargs: for both models.

        Raises:
            ValueError: for a cache with the keys of one model alone, or of fixed size.
        """
        if use_cache is None:
            use_cache = past_key_values is not None
        if use_cache and not isinstance(past_key_values, TwoCaches):
            if past_key_values is not None and (
                type(past_key_values) is not DynamicCache or past_key_values.get_seq_length()
            ):
                raise ValueError(
                    f"past_key_values: {type(past_key_values).__name__} cannot hold what two models remember; "
                    "leave it (and cache_implementation) out."
                )
            past_key_values = TwoCaches(self.config.base, self.config.reinforced)
        shared = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            **kwargs,
        }
        caches = (past_key_values, past_key_values.second) if use_cache else (None, None)
        base, reinforced = (
            part(**shared, past_key_values=cache).logits
            for part, cache in zip((self.base, self.reinforced), caches, strict=True)
        )
        logits = torch.sub(base, torch.relu(reinforced - base), alpha=self.config.alpha)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1])
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values if use_cache else None)

    def get_input_embeddings(self) -> nn.Module:
        """Those of the base model."""
        return self.base.get_input_embeddings()

    def get_output_embeddings(self) -> None:
        """No head gives the logits."""
        return

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Resize the embeddings of both models."""
        self.reinforced.resize_token_embeddings(*args, **kwargs)
        return self.base.resize_token_embeddings(*args, **kwargs)


# What `save_pretrained` copies this file for, and how transformers finds it in there.
WHPModelConfig.register_for_auto_class()
WHPForCausalLM.register_for_auto_class("AutoModelForCausalLM")
