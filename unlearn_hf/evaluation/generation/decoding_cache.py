"""Keys and values of texts that are being continued: one slot for each, and attention that reads them in place.

A step of decoding lays the new tokens of all texts end to end in one row, so that every layer but attention treats
each token once, whatever the lengths. Attention writes the new keys and values into the slots and lets every token see
its own slot up to itself. Nothing is padded. The slots are copied where they grow: by half of what the longest text
needs, not at every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from unlearn_hf.models.wrappers import causal_model

_ATTENTION = "sdpa_in_slots"
WIDEST_TOGETHER = 32
"""New tokens of a text up to which texts attend in one call, padded to the widest of them."""

Layer = tuple[Tensor, Tensor]


class KeyValueSlots:
    """Keys and values of every layer, `[slots, heads, room, D]` each, made when a layer first writes.

    Args:
        slots: texts that are continued at a time; lowered when no more will come, so that what grows is for these.
        capacity: tokens of the longest of them.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots, self.capacity = slots, capacity
        self.layers: dict[int, Layer] = {}
        self._room = 0

    def reserve(self, longest: int, used: int) -> None:
        """Make room for `longest` tokens, and for half of that to come; most texts end long before `capacity`.

        Args:
            longest: tokens of the longest text.
            used: slots whose tokens are kept.
        """
        if longest <= self._room:
            return
        self._room = min(max(self.capacity, longest), longest + longest // 2)
        for index, layer in self.layers.items():
            self.layers[index] = (self._grown(layer[0], used), self._grown(layer[1], used))

    def _grown(self, held: Tensor, used: int) -> Tensor:
        # Zeros, because what a mask hides is still multiplied.
        grown = held.new_zeros((max(self.slots, used), held.shape[1], self._room, held.shape[3]))
        grown[:used, :, : held.shape[2]] = held[:used]
        return grown

    def of_layer(self, index: int, like: Tensor) -> Layer:
        """Keys and values of a layer whose keys look like `like`, `[1, heads, T, D]`."""
        if index not in self.layers:
            nothing = like.new_zeros((0, like.shape[1], 0, like.shape[3]))
            self.layers[index] = (self._grown(nothing, 0), self._grown(nothing, 0))
        return self.layers[index]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot to another."""
        for layer in self.layers.values():
            for each in layer:
                each[target, :, :length] = each[source, :, :length]

    def read(self, slot: int, length: int) -> dict[int, Layer]:
        """A copy of the first `length` tokens of a slot."""
        return {
            index: (keys[slot, :, :length].clone(), values[slot, :, :length].clone())
            for index, (keys, values) in self.layers.items()
        }

    def write(self, slot: int, saved: dict[int, Layer]) -> None:
        """Begin a slot with what `read` gave."""
        for index, layer in saved.items():
            for each, part in zip(self.layers[index], layer, strict=True):
                each[slot, :, : part.shape[1]] = part


@dataclass
class DecodingStep:
    """The new tokens of some texts, end to end.

    Attributes:
        cache: where keys and values are.
        past: tokens of each text that are in its slot already; text `i` has slot `i`.
        new: new tokens of each text, at least one.
        device: of the model.
    """

    cache: KeyValueSlots
    past: Sequence[int]
    new: Sequence[int]
    device: torch.device
    _masks: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find slot, column in the padded rows and position of each new token."""
        slots = [slot for slot, count in enumerate(self.new) for _ in range(count)]
        columns = [column for count in self.new for column in range(count)]
        self.slot, self.column = torch.tensor([slots, columns], device=self.device)
        self.position = self.column + torch.tensor(self.past, device=self.device)[self.slot]
        self.longest = max(past + new for past, new in zip(self.past, self.new, strict=True))
        self.cache.reserve(self.longest, len(self.past))
        widest = max(self.new)
        # Padding to the widest text must not cost more than it saves.
        self.together = widest <= WIDEST_TOGETHER and widest * len(self.new) <= 2 * len(slots)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None,
               window: int | None) -> Tensor:  # fmt: skip
        """Attention of the new tokens; see `in_slots`."""
        keys, values = self.cache.of_layer(layer, key)
        keys[self.slot, :, self.position] = key[0].transpose(0, 1)
        values[self.slot, :, self.position] = value[0].transpose(0, 1)
        heads, groups = keys.shape[1], query.shape[1] // keys.shape[1]
        by_token = query[0].transpose(0, 1).unflatten(1, (heads, groups))  # [S, heads, groups, D]
        if self.together:
            return self._attend_together(by_token, keys, values, scaling, window)
        found = by_token.new_empty(by_token.shape)
        single = torch.tensor(self.new, device=self.device) == 1
        if single.any():
            # The others' first tokens go along, because rows of the cache are read in place; they are overwritten.
            first = self.column == 0
            found[first] = self._padded_attention(by_token[first].unsqueeze(1), 1, keys, values, scaling, window)[:, 0]
        start = 0
        for slot, (past, count) in enumerate(zip(self.past, self.new, strict=True)):
            if count > 1:
                part = by_token[start : start + count].permute(1, 2, 0, 3)  # [heads, groups, n, D]
                mask = self._mask(slice(slot, slot + 1), count, past + count, window, groups, query.dtype)
                found[start : start + count] = F.scaled_dot_product_attention(
                    part.flatten(1, 2)[None], keys[slot : slot + 1, :, : past + count],
                    values[slot : slot + 1, :, : past + count], mask, scale=scaling,
                )[0].unflatten(1, (groups, count)).permute(2, 0, 1, 3)  # fmt: skip
            start += count
        return found.flatten(1, 2)[None]

    def _attend_together(self, by_token: Tensor, keys: Tensor, values: Tensor, scaling: float | None,
                         window: int | None) -> Tensor:  # fmt: skip
        widest = max(self.new)
        padded = by_token.new_zeros(len(self.new), widest, *by_token.shape[1:])
        padded[self.slot, self.column] = by_token
        found = self._padded_attention(padded, widest, keys, values, scaling, window)
        return found[self.slot, self.column].flatten(1, 2)[None]

    def _padded_attention(self, padded: Tensor, widest: int, keys: Tensor, values: Tensor, scaling: float | None,
                          window: int | None) -> Tensor:  # fmt: skip
        """Attention of `[texts, widest, heads, groups, D]` in place; the same shape."""
        texts, groups = padded.shape[0], padded.shape[3]
        mask = self._mask(slice(0, texts), widest, self.longest, window, groups, padded.dtype)
        # The queries of a group share keys and values: side by side in one head, nothing is copied for them.
        found = F.scaled_dot_product_attention(
            padded.permute(0, 2, 3, 1, 4).flatten(2, 3),
            keys[:texts, :, : self.longest],
            values[:texts, :, : self.longest],
            mask,
            scale=scaling,
        )
        return found.unflatten(2, (groups, widest)).permute(0, 3, 1, 2, 4)

    def _mask(self, rows: slice, widest: int, longest: int, window: int | None, groups: int,
              dtype: torch.dtype) -> Tensor:  # fmt: skip
        """0 where a new token sees its slot, else -inf, `[texts, 1, groups * widest, longest]`; one for all layers."""
        key = (rows.start, widest, window, groups, dtype)
        if key not in self._masks:
            own = torch.tensor(self.past[rows], device=self.device)[:, None] + torch.arange(widest, device=self.device)
            seen = torch.arange(longest, device=self.device)
            mask = seen <= own[..., None]
            if window is not None:
                mask &= seen > own[..., None] - window
            hidden = torch.zeros(mask.shape, dtype=dtype, device=self.device).masked_fill_(~mask, -torch.inf)
            self._masks[key] = hidden[:, None].repeat(1, 1, groups, 1)
        return self._masks[key]


def in_slots(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    decoding: DecodingStep,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention for transformers' `AttentionInterface`.

    Args:
        module: the attention layer.
        query: `[1, heads, S, D]` over the new tokens of all texts; `key` and `value` alike, with their own heads.
        key: see `query`.
        value: see `query`.
        attention_mask: is not used.
        decoding: the step.
        scaling: of the scores.
        sliding_window: how many tokens a token sees, itself included, where the layer limits it.
        **options: what else transformers passes on.

    Returns:
        `[1, S, heads, D]`, and no attention weights.

    Raises:
        ValueError: for scores that SDPA cannot give (soft caps, sinks, biases).
    """
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise ValueError(f"attn_implementation: {name} is not known to {_ATTENTION}.")
    found = decoding.attend(int(module.layer_idx), query, key, value, scaling, sliding_window)
    return found, None


AttentionInterface.register(_ATTENTION, in_slots)


@contextmanager
def attention_in_slots(model: nn.Module) -> Iterator[None]:
    """Within the context the model's attention reads slots.

    Raises:
        ValueError: when its attention is neither SDPA nor eager.
    """
    config: Any = getattr(causal_model(model), "config", None)
    before = getattr(config, "_attn_implementation", None)
    if before not in ("sdpa", "eager"):
        raise ValueError(f"attn_implementation: {before!r} cannot read slots; use sdpa or eager.")
    config._attn_implementation_internal = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation_internal = before
