"""The model before unlearning, behind one call, and without a second model in memory where an adapter is trained."""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from unlearn_hf.common.files import whole_file
from unlearn_hf.data.labels import label_positions
from unlearn_hf.likelihood.answer_request import AnswerRequest
from unlearn_hf.likelihood.answers import answer_likelihood, ask_about
from unlearn_hf.likelihood.head_in_chunks import logits_of_hidden
from unlearn_hf.likelihood.one_pass import PartialResults, evaluating, run_pass
from unlearn_hf.models.fingerprint import model_fingerprint
from unlearn_hf.models.wrappers import causal_model, decoder_layers
from unlearn_hf.version import __version__

REFERENCE_ADAPTER = "reference"


def rows_fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """Hash the tokens and labels of encoded rows."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{list(row['input_ids'])}{list(row['labels'])}".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Row:
    """A row to run through the model."""

    index: int
    length: int

    @property
    def key(self) -> str:
        return str(self.index)


def reference_nll(
    model: nn.Module,
    dataset: Dataset,
    rows: list[int],
    collate: Callable[[list[Any]], dict[str, Tensor]],
    *,
    batch_size: int,
    accelerator: Accelerator,
    cache: Path | None = None,
    description: str = "Reference likelihoods",
) -> Tensor:
    """NLL of the answers of `dataset` under `model` as it is now.

    Args:
        model: the model before unlearning; its mode is left as it was, dropout is off while it is read.
        dataset: encoded rows (`input_ids`, `labels`).
        rows: the rows that are needed.
        collate: makes a batch of rows.
        batch_size: rows per forward pass.
        accelerator: rows are shared out over its processes.
        cache: folder in which the result is kept, and looked up, under a fingerprint of everything that it depends on:
            the model (configuration, precision, attention and adapters too), the rows, and the versions of libraries.
        description: label of the progress bar.

    Returns:
        `[len(dataset)]` float32 on the CPU, in nats, summed over the answer; NaN in rows that were not asked for.
    """
    path, device = None, accelerator.device
    if cache is not None:
        parts = (
            model_fingerprint(accelerator.unwrap_model(model)),
            rows_fingerprint(dataset[row] for row in rows),
            (rows, len(dataset)),  # type: ignore[arg-type]
            (accelerator.mixed_precision, device.type, __version__, torch.__version__, transformers.__version__),
        )
        key = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
        path = cache / f"nll-{key}.safetensors"
        found_by_all = [path.exists()]
        if accelerator.num_processes > 1:  # of several machines, one may have the file
            found_by_all = gather_object(found_by_all)
        if all(found_by_all):
            return load_file(path)["nll"]

    def nll_of(batch: list[_Row]) -> list[float]:
        inputs = {name: value.to(device) for name, value in collate([dataset[row.index] for row in batch]).items()}
        return answer_likelihood(model, inputs).nll.cpu().tolist()

    with evaluating(model):
        found = run_pass(
            "reference",
            [_Row(row, len(dataset[row]["input_ids"])) for row in rows],
            nll_of,
            batch_size=batch_size,
            token_budget=sys.maxsize,
            accelerator=accelerator,
            partial=PartialResults(None, ""),
            description=description,
        )
    result = torch.full((len(dataset),), float("nan"))  # type: ignore[arg-type]
    for row in rows:
        result[row] = found[str(row)]
    if path is not None and accelerator.is_main_process:
        with whole_file(path) as partial:
            save_file({"nll": result}, partial)
    return result


LogitsOfRows = Callable[[slice], Tensor]


def _request(reference: nn.Module, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], AnswerRequest]:
    """The batch where the reference is, and a request about its label positions."""
    device = next(reference.parameters()).device
    positions, _ = label_positions(batch["labels"])
    moved = {name: value.to(device) for name, value in batch.items()}
    return moved, AnswerRequest(positions.to(device), batch["labels"].shape[1])


@torch.no_grad()
def output_at_labels(model: nn.Module, batch: Mapping[str, Tensor], layer: int | None, packed: bool = False) -> Tensor:
    """Hidden states after `layer`, `[N, H]`, or logits, `[N, V]`, at the label positions of `batch`."""
    moved, request = _request(model, batch)
    answer = ask_about(model, moved, replace(request, layer=layer, keep_logits=layer is None), packed)
    found = answer.logits if layer is None else answer.layer_output
    assert found is not None
    return found


class ReferenceModel:
    """Gives logits and hidden states of the model before unlearning.

    With a fresh adapter, the adapter is switched off; with an adapter that was trained before, a frozen copy of that
    adapter is switched on; otherwise there is a frozen copy of the model, which shares what is not trained.

    Args:
        model: the model as it is before unlearning.
        device: where the frozen copy rests and computes; by default beside the model. Without a copy it has no effect.
        dtype: precision of the frozen copy; by default that of the model.
        share: whether a copy beside the model may share its frozen parameters (not where they will be sharded).
        layers: how many layers a copy needs, where nothing above them is asked for.

    Attributes:
        strategy: `"disabled adapter"`, `"adapter copy"` or `"model copy"`.
        copied: bytes of the parameters that were copied.
    """

    def __init__(
        self,
        model: nn.Module,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        share: bool = True,
        layers: int | None = None,
    ) -> None:
        self._copy: nn.Module | None = None
        self._device = torch.device(device) if device is not None else None
        self.copied = 0
        if not hasattr(model, "peft_config"):
            self.strategy = "model copy"
            shared = {}
            if share and device is None and dtype is None:
                shared = {id(each): each for each in model.parameters() if not each.requires_grad}
            frozen = _frozen_copy(model, shared, layers)
            self._copy = frozen.to(dtype) if dtype is not None else frozen
            self.copied = sum(each.nbytes for each in frozen.parameters() if id(each) not in shared)
        elif _adapter_is_identity(model):
            self.strategy = "disabled adapter"
        else:
            self.strategy = "adapter copy"
            self.copied = _copy_adapter(model)

    @torch.no_grad()
    def logits(self, model: nn.Module, batch: Mapping[str, Tensor], packed: bool = False) -> LogitsOfRows:
        """Prepare the logits of the model before unlearning at the label positions of `batch`, dropout off.

        Only its hidden states are kept; its logits are made chunk by chunk, beside those of the model.

        Returns:
            A function from a slice of these positions to their logits, `[n, V]` float32.
        """
        with self._active(model) as reference:
            moved, request = _request(reference, batch)
            hidden = ask_about(reference, moved, replace(request, keep_hidden=True), packed).hidden
            found = None
            if hidden is None:  # not built like the models of transformers
                found = ask_about(reference, moved, replace(request, keep_logits=True), packed).logits

        @torch.no_grad()
        def logits_of(rows: slice) -> Tensor:
            if hidden is None:
                assert found is not None
                return found[rows].to(batch["labels"].device)
            with self._active(model) as reference:
                inner = causal_model(reference)
                assert inner is not None
                return logits_of_hidden(inner, hidden[rows]).to(batch["labels"].device)

        return logits_of

    @torch.no_grad()
    def hidden(self, model: nn.Module, batch: Mapping[str, Tensor], layer: int, packed: bool = False) -> Tensor:
        """Hidden states of the model before unlearning after `layer`, at the label positions of `batch`, `[N, H]`."""
        with self._active(model) as reference:
            return output_at_labels(reference, batch, layer, packed).to(batch["labels"].device)

    @contextmanager
    def _active(self, model: nn.Module) -> Iterator[nn.Module]:
        if self._copy is not None:
            device = self._device or next(model.parameters()).device
            if next(self._copy.parameters()).device != device:
                self._copy.to(device)
            yield self._copy
            return
        training = model.training
        model.eval()  # and nothing is resharded: this may happen within a forward pass of the same model
        try:
            if self.strategy == "disabled adapter":
                with model.disable_adapter():  # type: ignore[operator]
                    yield model
            else:
                with _switching(model):
                    model.base_model.set_adapter(REFERENCE_ADAPTER)  # type: ignore[union-attr, operator]
                    yield model
        finally:
            model.train(training)


@contextmanager
def _switching(model: Any) -> Iterator[None]:
    """Afterwards the adapter that is active now is so again, and the same parameters are trained."""
    active = model.active_adapter
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        yield
    finally:
        model.base_model.set_adapter(active)
        model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)


def _frozen_copy(model: nn.Module, shared: dict[int, nn.Parameter], layers: int | None) -> Any:
    """A copy of `model` but for shared parameters, with its first `layers` layers alone."""
    # What `deepcopy` finds in its memo, it takes as it is.
    memo: dict[int, Any] = dict(shared)
    if layers is not None:
        owner, name = decoder_layers(model)
        memo |= {id(layer): nn.Identity() for layer in list(owner.get_submodule(name).children())[layers:]}
    frozen: Any = copy.deepcopy(model, memo).eval().requires_grad_(False)
    if layers is not None:
        owner, name = decoder_layers(frozen)
        owner._modules[name] = nn.ModuleList(list(owner.get_submodule(name).children())[:layers])
        frozen.config.num_hidden_layers = layers
    return frozen


def _adapter_is_identity(model: nn.Module) -> bool:
    """Whether the active adapter changes nothing: every `lora_B` is zero and no module is trained beside it."""
    if any("modules_to_save" in name for name, _ in model.named_parameters()):
        return False
    updates = [
        parameter for name, parameter in model.named_parameters() if "lora_B" in name or "lora_embedding_A" in name
    ]
    return bool(updates) and all(not parameter.detach().any() for parameter in updates)


def _copy_adapter(model: nn.Module) -> int:
    """Add a frozen copy of the active adapter; returns its size in bytes."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    active = str(model.active_adapter)
    with _switching(model):
        model.add_adapter(REFERENCE_ADAPTER, copy.deepcopy(model.peft_config[active]))  # type: ignore[operator, index]
        weights = get_peft_model_state_dict(model, adapter_name=active)
        set_peft_model_state_dict(model, weights, adapter_name=REFERENCE_ADAPTER)
    return sum(each.nbytes for each in weights.values())
