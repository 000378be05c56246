"""File formats of exported networks: how each is made, and how it is read back."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

NOTE = "preprocessing.json"  # the name of what FILE.json says, inside formats that can hold it
Logits = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        make: the file's bytes, from a network as its authors wrote it, a batch of images that it may be run
            on, and the text of FILE.json.
        read: from the file, a function from images (B, 3, H, W) to logits (B, K); of the network only the
            computation is used, and only for formats that do not hold it.
        computes: whether it holds the computation too.
    """

    make: Callable[[nn.Module, torch.Tensor, str], bytes]
    read: Callable[[Path, nn.Module], Logits]
    computes: bool = True


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what recorders say on the way: the last word is whether the logits are the same."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    finally:
        logging.disable(disabled)


def _with_weights(network: nn.Module, state: dict[str, torch.Tensor]) -> Logits:
    """The network with other weights; none of its own is left."""
    copy = deepcopy(network)
    for tensor in copy.state_dict().values():
        tensor.zero_()
    copy.load_state_dict(state)
    return copy


def _make_state_dict(network: nn.Module, images: torch.Tensor, note: str) -> bytes:
    file = io.BytesIO()
    torch.save(dict(network.state_dict()), file)
    return file.getvalue()


def _read_state_dict(path: Path, network: nn.Module) -> Logits:
    return _with_weights(network, torch.load(path, weights_only=True))


def _make_safetensors(network: nn.Module, images: torch.Tensor, note: str) -> bytes:
    from safetensors.torch import save

    state = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
    return save(state, {"format": "pt", NOTE: note})


def _read_safetensors(path: Path, network: nn.Module) -> Logits:
    from safetensors.torch import load_file

    return _with_weights(network, load_file(path))


def _make_torchscript(network: nn.Module, images: torch.Tensor, note: str) -> bytes:
    file = io.BytesIO()
    with _quiet():  # about branches on tensors; all batch sizes are compared
        traced = torch.jit.trace(network, images, check_trace=False)
        torch.jit.save(traced, file, _extra_files={NOTE: note})
    return file.getvalue()


def _read_torchscript(path: Path, network: nn.Module) -> Logits:
    with _quiet():
        return torch.jit.load(path)


def _make_torch_export(network: nn.Module, images: torch.Tensor, note: str) -> bytes:
    file = io.BytesIO()
    with _quiet():
        program = torch.export.export(network, (images,), dynamic_shapes=_any_batch_size())
        torch.export.save(program, file, extra_files={NOTE: note})
    return file.getvalue()


def _any_batch_size() -> tuple[dict[int, torch.export.Dim]]:
    return ({0: torch.export.Dim("batch")},)


def _read_torch_export(path: Path, network: nn.Module) -> Logits:
    with path.open("rb") as file, _quiet():
        return torch.export.load(io.BytesIO(file.read())).module()


def _make_onnx(network: nn.Module, images: torch.Tensor, note: str) -> bytes:
    with _quiet():
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            dynamic_shapes=_any_batch_size(),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    program.model.metadata_props[NOTE] = note
    return program.model_proto.SerializeToString()


def _read_onnx(path: Path, network: nn.Module) -> Logits:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


FORMATS = {
    "state-dict": Format(_make_state_dict, _read_state_dict, computes=False),
    "safetensors": Format(_make_safetensors, _read_safetensors, computes=False),
    "torchscript": Format(_make_torchscript, _read_torchscript),
    "torch-export": Format(_make_torch_export, _read_torch_export),
    "onnx": Format(_make_onnx, _read_onnx),
}
