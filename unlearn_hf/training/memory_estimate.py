"""How much memory training will take, from shapes and declared needs alone: nothing is loaded and nothing computed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, UnsupportedFakeTensorException
from torch.autograd.graph import saved_tensors_hooks
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from transformers import AttentionInterface, AutoModelForCausalLM

from unlearn_hf.data.labels import IGNORE_INDEX
from unlearn_hf.likelihood.head_in_chunks import LARGEST_LOGITS
from unlearn_hf.likelihood.packed_rows import SHORTEST_SHARED, can_share, packing_pays
from unlearn_hf.models.loading import model_configuration
from unlearn_hf.models.paths import is_adapter
from unlearn_hf.models.trained_parameters import prepare_model
from unlearn_hf.models.wrappers import causal_model, only_layers, parameters_up_to
from unlearn_hf.reference.stored import bytes_of_copy, line_bytes
from unlearn_hf.training.declared_needs import DeclaredNeeds
from unlearn_hf.training.disk_space import optimizer_bytes
from unlearn_hf.training.divergence import may_overflow
from unlearn_hf.training.unlearning import UnlearningTrainer

_MOST_DRAWS = 200
_NF4_BYTES = 4.127 / 8
"""Bytes of a parameter in NF4 with doubly quantised scales (Dettmers et al., QLoRA, 2023, section 3)."""

_LINEAR_ATTENTION = "fused_shapes"

Row = Mapping[str, Sequence[int]]


class _FusedAttention(torch.autograd.Function):
    """Keeps what fused kernels keep: inputs, output and a normaliser of each token, but no scores of pairs."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """An output of the right shape, `[B, T, heads, D]`."""
        rows, heads, tokens, _ = query.shape
        output = query.new_empty(rows, tokens, heads, value.shape[-1])
        ctx.save_for_backward(query, key, value, output, query.new_empty(rows, heads, tokens, dtype=torch.float32))
        return output


def _fused_shapes(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
    return _FusedAttention.apply(query, key, value), None


AttentionInterface.register(_LINEAR_ATTENTION, _fused_shapes)


@dataclass
class MemoryEstimate:
    """Most bytes that tensors hold together during training, on each process.

    Attributes:
        parts: bytes by what they are for, in the moment of the peak.
        on_cpu: bytes of copies that rest on the CPU; where that is the device of training, they are among `parts`.
        activations_known: whether the architecture could be followed; otherwise activations are left out.
    """

    parts: dict[str, int]
    on_cpu: int
    activations_known: bool

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


def model_without_weights(name: str, args: Any, peft_config: Any | None) -> nn.Module:
    """The model that would be trained, on the device `meta`: shapes and precisions, and no values.

    Args:
        name: hub id, or folder of a model or an adapter.
        args: the configuration of training.
        peft_config: the adapter to add, or `None`.

    Raises:
        ValueError: for an adapter that does not fit, or nothing to train.
    """
    dtype = None if args.model_dtype == "auto" else getattr(torch, args.model_dtype)
    if is_adapter(name):
        from peft import PeftConfig

        peft_config = PeftConfig.from_pretrained(name)
        peft_config.inference_mode = False
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            model_configuration(name, args.trust_remote_code),
            dtype=dtype,
            attn_implementation=args.attn_implementation,
            trust_remote_code=args.trust_remote_code,
        )
        return prepare_model(model, args, peft_config)


def estimate_memory(
    model: nn.Module, args: Any, sets: Mapping[str, Sequence[Row]], steps: int, method: type[Any] | None = None
) -> MemoryEstimate:
    """Estimate the peak of a step.

    Args:
        model: see `model_without_weights`; real weights do as well.
        args: the configuration of training.
        sets: the encoded rows that a step draws from, by set.
        steps: how many steps there will be; the largest batch of as many draws counts.
        method: the trainer class; `None` for fine-tuning.

    Returns:
        Weights, gradients, optimizer and so on; without the process itself, its libraries and evaluations.
    """
    weights = _weight_bytes(model, args.load_in_4bit)
    if not args.trains:
        return MemoryEstimate({"weights": getattr(method, "models_saved", 1) * weights}, 0, True)
    device = torch.device(args.device)
    hooks: Any = object.__new__(method or UnlearningTrainer)
    hooks.args = args
    trained = sum(each.nbytes for each in model.parameters() if each.requires_grad)
    declared = DeclaredNeeds(args) if method is not None else None
    ends = {name: declared.layers(name) for name in declared.objectives} if declared is not None else {}
    # Layers above the last one that a loss is about have no gradient, so no state of the optimizer either.
    found = [each for each in ends.values() if each is not None]
    highest = max(found) if len(found) == len(ends) > 0 else None
    reached = [each for each in parameters_up_to(model, highest) if each.requires_grad]
    gradients = sum(each.nbytes for each in reached)
    apart = method is not None and hooks.keeps_gradients_apart
    copies = hooks.copies_of_trained if method is not None else 0
    copies += sum(getattr(args, name, None) is not None for name in ("stop_when", "retain_budget"))
    copies += 2 * getattr(args, "stop_on_path", False)
    copies += may_overflow(args, False)
    on_cpu = copies * trained
    fixed = {
        "weights": weights,
        "optimizer": optimizer_bytes(args, reached),
        "reference": _reference_bytes(model, args, declared, sets) if declared is not None else 0,
        "copies of trained weights": on_cpu if device.type == "cpu" else 0,
    }
    logits_of_reference = declared is not None and None in declared.compared.values()
    largest: tuple[int, int, int] = (0, 0, 0)
    known = True
    with_head = max((each.nbytes for each in _head(model) if each.requires_grad and highest is None), default=0)
    for name, rows in sets.items():
        shape, answers = largest_batch(rows, model, args, steps)
        layers = ends.get(name)
        activations = activation_bytes(model, args, shape, layers)
        known = known and activations is not None
        head = (_logits_bytes(model, args, answers, logits_of_reference), with_head) if layers is None else (0, 0)
        largest = max(largest, (activations or 0, *head), key=sum)
    # While the second graph is alive, the first gradient is there; when it has gone, both may be.
    while_alive = {
        "gradients": gradients,
        "activations": largest[0],
        "logits and gradient of the head": sum(largest[1:]),
    }
    afterwards = {"gradients": (2 if apart else 1) * gradients, "gradient of the head": with_head}
    peak = max(while_alive, afterwards, key=lambda each: sum(each.values()))
    return MemoryEstimate({name: size for name, size in (fixed | peak).items() if size}, on_cpu, known)


def largest_batch(rows: Sequence[Row], model: nn.Module, args: Any, steps: int) -> tuple[tuple[int, int], int]:
    """Shape of the largest input, `(B, T)`, and its answer tokens, over random batches."""
    size = min(args.per_device_train_batch_size, len(rows))
    packed = args.packing == "true" or (args.packing == "auto" and packing_pays(model, torch.device(args.device)))
    share = packed and can_share(model)
    generator = random.Random(0)
    shapes = []
    for _ in range(min(steps, _MOST_DRAWS)):
        batch = [rows[index] for index in generator.sample(range(len(rows)), size)]
        ids = [each["input_ids"] for each in batch]
        answers = _answer_tokens(batch)
        if not packed:
            shapes.append(((size, max(map(len, ids))), answers))
            continue
        alike = takewhile(lambda column: len(set(column)) == 1, zip(*ids, strict=False))
        shared = sum(1 for _ in alike) if share and size > 1 else 0
        tokens = sum(map(len, ids)) - (size - 1) * (shared if shared >= SHORTEST_SHARED else 0)
        shapes.append(((1, tokens), answers))
    return max(shapes, key=lambda each: each[0][0] * each[0][1])


def _answer_tokens(rows: Sequence[Row]) -> int:
    return sum(label != IGNORE_INDEX for row in rows for label in row["labels"][1:])


def activation_bytes(model: nn.Module, args: Any, shape: tuple[int, int], layers: int | None = None) -> int | None:
    """Bytes that a forward pass of the decoder keeps for its backward pass; the head is not in them.

    Shapes `(B, T)` go through the model's own code, so that adapters, precisions and checkpointing count as they are.
    After `layers` layers it ends, if that is given.

    Returns:
        `None` where the code of the model cannot be followed without values.
    """
    inner = causal_model(model)
    if inner is None:
        return None
    decoder: Any = inner.get_decoder()  # type: ignore[operator]
    if args.gradient_checkpointing or getattr(args, "activation_checkpointing", False):
        inner.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    config: Any = inner.config
    attention = config._attn_implementation
    device = torch.device(args.device)
    half = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
    found: dict[int, tuple[Any, int]] = {}
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with only_layers(model, layers) if layers is not None else contextlib.nullcontext(), mode:
        values = {
            name: torch.empty(each.shape, dtype=each.dtype, device=device, requires_grad=each.requires_grad)
            for name, each in (*decoder.named_parameters(), *decoder.named_buffers())
        }
        own = {each.untyped_storage()._cdata for each in values.values()}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:  # held, so that no other storage takes its place
                found[storage._cdata] = (storage, storage.nbytes())
            return tensor

        autocast = torch.autocast(device.type, half) if half is not None else contextlib.nullcontext()
        training = decoder.training
        decoder.train()
        if attention == "sdpa" or "flash" in str(attention):
            config._attn_implementation_internal = _LINEAR_ATTENTION
        try:
            with saved_tensors_hooks(note, lambda tensor: tensor), autocast:
                ids = torch.zeros(shape, dtype=torch.long, device=device)
                torch.func.functional_call(decoder, values, kwargs={"input_ids": ids, "use_cache": False})
        except (UnsupportedFakeTensorException, GuardOnDataDependentSymNode, NotImplementedError):
            return None
        finally:
            decoder.train(training)
            config._attn_implementation_internal = attention
    return sum(size for _, size in found.values())


def _head(model: nn.Module) -> list[nn.Parameter]:
    inner = causal_model(model)
    head: Any = inner.get_output_embeddings() if inner is not None else None  # type: ignore[operator]
    return [head.weight] if head is not None and isinstance(getattr(head, "weight", None), nn.Parameter) else []


def _logits_bytes(model: nn.Module, args: Any, answers: int, of_reference: bool) -> int:
    """Logits of one pass: in float32, in place of their gradient, in chunks where they are many."""
    weights = _head(model)
    if not weights:
        return 0
    device = torch.device(args.device).type
    elements = min(answers * weights[0].shape[0], LARGEST_LOGITS.get(device, LARGEST_LOGITS["cuda"]))
    size = 4 + 2 * (args.bf16 or args.fp16 or weights[0].dtype != torch.float32)
    return elements * (size + 4 * of_reference)


def _weight_bytes(model: nn.Module, four_bit: bool) -> int:
    total = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
    if four_bit:
        head = {id(each) for each in _head(model)}
        for module in model.modules():
            if isinstance(module, nn.Linear):
                weight = module.weight
                if not weight.requires_grad and id(weight) not in head:
                    total -= weight.nbytes - int(weight.numel() * _NF4_BYTES)
    return total


def _reference_bytes(model: nn.Module, args: Any, declared: DeclaredNeeds, sets: Mapping[str, Sequence[Row]]) -> int:
    """The frozen copy of the model before unlearning, where there is one, and on the device of training."""
    if not declared.compared or hasattr(model, "peft_config"):
        return 0  # the adapter is switched off; a copy of it is small
    elsewhere = args.reference_device
    if elsewhere is not None and torch.device(elsewhere).type != torch.device(args.device).type:
        return 0
    dtype = getattr(torch, args.reference_dtype) if args.reference_dtype else None
    layers = declared.layers_compared
    if elsewhere is None and dtype is None:
        copied = bytes_of_copy(model, layers)
        tokens = {name: _answer_tokens(sets.get(name, sets["forget"])) for name in declared.compared}
        stored = sum(tokens[name] * line_bytes(model, layer) for name, layer in declared.compared.items())
        return copied if args.world_size > 1 or copied <= stored else 0
    parameters = parameters_up_to(model, layers)
    return sum(each.numel() * (dtype.itemsize if dtype is not None else each.element_size()) for each in parameters)
