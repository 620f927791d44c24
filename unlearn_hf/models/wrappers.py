"""What is inside wrappers, adapters and compiled modules, and what it does in training mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn


def without_wrappers(model: nn.Module) -> nn.Module:
    """The model inside data-parallel wrappers, compiled modules and adapters."""
    for _ in range(8):  # no model has more layers of wrapping, and one that names itself must not hang
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()  # type: ignore[operator]
        elif isinstance(inner := getattr(model, "_orig_mod", None) or getattr(model, "module", None), nn.Module):
            model = inner
        else:
            break
    return model


def causal_model(model: nn.Module) -> nn.Module | None:
    """The causal language model inside wrappers and adapters, if it is built like those of transformers.

    That is: it has a decoder (`get_decoder`, under `base_model_prefix`) and a head (`get_output_embeddings`).
    """
    model = without_wrappers(model)
    prefix = getattr(model, "base_model_prefix", "")
    head = getattr(model, "get_output_embeddings", lambda: None)()
    decoder = getattr(model, "get_decoder", lambda: None)()
    built = isinstance(getattr(model, prefix, None), nn.Module) if prefix else False
    return model if built and head is not None and isinstance(decoder, nn.Module) and decoder is not model else None


def has_dropout(model: nn.Module) -> bool:
    """Whether a forward pass in training mode draws random numbers."""
    if any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()):
        return True
    config: Any = getattr(causal_model(model) or model, "config", None)  # a wrapper may have a `config` of its own
    values: Mapping[str, Any] = config.to_dict() if hasattr(config, "to_dict") else {}
    return any(
        "dropout" in name and not name.startswith(("classifier", "summary")) and isinstance(value, float) and value > 0
        for name, value in values.items()
    )


def decoder_layers(model: nn.Module) -> tuple[nn.Module, str]:
    """Where the layers of a causal language model are: a module inside its decoder, and the name of their list in it.

    Raises:
        ValueError: when it has no list of as many modules as its configuration has layers.
    """
    inner: Any = causal_model(model)
    count = layer_count(inner.config) if inner is not None else None
    for owner in inner.get_decoder().modules() if count is not None else ():
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return owner, name
    raise ValueError(f"model: the layers of {type(model).__name__} are not found; use another objective.")


@contextmanager
def only_layers(model: nn.Module, count: int) -> Iterator[None]:
    """Within the context, the decoder of a causal language model ends after its first `count` layers."""
    owner, name = decoder_layers(model)
    layers: Any = owner.get_submodule(name)
    owner._modules[name] = nn.ModuleList(layers[:count])
    try:
        yield
    finally:
        owner._modules[name] = layers


def parameters_up_to(model: nn.Module, count: int | None) -> list[nn.Parameter]:
    """The parameters of a model but those of layers beyond the first `count`; `None` for all."""
    above: set[int] = set()
    if count is not None:
        owner, name = decoder_layers(model)
        left_out = list(owner.get_submodule(name).children())[count:]
        above = {id(parameter) for layer in left_out for parameter in layer.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in above]


def layer_count(config: Any) -> int | None:
    """How many layers the decoder of a model with this configuration has; `None` if it does not say."""
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return getattr(text, "num_hidden_layers", None)


def check_layer(layer: int, count: int | None) -> None:
    """Raise a `ValueError` unless there is a layer of that number."""
    if count is not None and not 0 <= layer < count:
        raise ValueError(f"layer: {layer} does not exist; the model has {count} layers, 0 to {count - 1}.")
