"""Files of other programs with weights: recognised by what they hold, and read without running code."""

import json
import pickle
import shlex
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from store.errors import UserError

STARTS = (b"PK\x03\x04", b"\x80")  # of files that torch writes, now and once
LFS = b"version h"  # …ttps://git-lfs.github.com/spec/v1
METADATA = "__metadata__"  # of safetensors
LARGEST_HEADER = 100 * 1024**2  # bytes, the limit of safetensors itself
# Keeps tensors, dictionaries, lists and plain values, and the state dicts of modules.
KEEP = (
    "f = lambda v: f(v.state_dict()) if isinstance(v, torch.nn.Module) else {k: f(x) for k, x in v.items()} "
    "if isinstance(v, dict) else [f(x) for x in v] if type(v) in (list, tuple) "
    "else v if isinstance(v, torch.Tensor) or type(v) in (str, int, float) else None"
)


def read_content(path: Path) -> Any:
    """What a file of torch or safetensors holds, whatever its name ends in; tensors are on the CPU.

    Raises:
        UserError: it needs code to be read, is of another format, or is damaged.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if start == LFS:
        raise UserError(f"{path}: a pointer of Git LFS, not the file; fetch it with `git lfs pull`")
    header = int.from_bytes(start[:8], "little")
    if path.suffix == ".safetensors" or (start[8:] == b"{" and header <= LARGEST_HEADER):
        return _safetensors(path)
    if start.startswith(STARTS):
        return _torch(path)
    if path.suffix == ".json":
        raise UserError(f"{path}: holds no weights{_shards(path)}")
    raise UserError(
        f"{path}: not a file that torch wrote (it begins with {start[:4]!r}); download or copy it again"
    )


def _torch(path: Path) -> Any:
    _check_no_program(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, of old files
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        load = f"torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
        raise UserError(
            f"{path}: holds objects that only code can open, and no file runs code here; where you trust it, "
            f"convert it: {_command(f'{KEEP}; torch.save(f({load}), {_converted(path)!r})')}"
        ) from error
    except OSError:
        raise
    except Exception as error:  # foreign bytes can fail anywhere in torch's unpickler
        raise UserError(f"{path}: not a file of torch's, or damaged; copy it again") from error


def _check_no_program(path: Path) -> None:
    """Raise UserError for a network that was saved with its computation, by TorchScript or torch.export."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile:  # an old file, or a damaged one
        return
    if "constants.pkl" in names:
        state = f"torch.jit.load({str(path)!r}, map_location='cpu').state_dict()"
        what = "a TorchScript program"
    elif "archive_format" in names:
        state = f"torch.export.load(open({str(path)!r}, 'rb')).state_dict"
        what = "a program of torch.export"
    else:
        return
    save = f"torch.save(dict({state}), {_converted(path)!r})"
    raise UserError(f"{path}: {what}, not weights alone; take them out: {_command(save)}")


def _command(code: str) -> str:
    code = f"import torch; {code}"
    plain = not set('"$`\\!') & set(code)  # else double quotes would change it
    return f'python -c "{code}"' if plain else f"python -c {shlex.quote(code)}"


def _converted(path: Path) -> str:
    return f"{path.stem}-weights.pt"


def _safetensors(path: Path) -> dict[str, Any]:
    """Tensors by name, and what the file says of itself under METADATA, which no tensor is called."""
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"{path}: needs `pip install safetensors`") from error
    try:
        with safe_open(path, "pt") as file:
            about = {name: _parsed(text) for name, text in (file.metadata() or {}).items()}
        return load_file(path) | ({METADATA: about} if about else {})
    except SafetensorError as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())}); copy it again") from error


def _parsed(text: str) -> Any:
    """A value of metadata, which are texts: what it holds if it is JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _shards(path: Path) -> str:
    """What to do about the list of the files that weights were divided into, if a file is one."""
    try:
        files = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        load = "safetensors.torch.load_file" if files[0].endswith(".safetensors") else "torch.load"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "; name a file of torch or safetensors"
    module = "import safetensors.torch; " if load.startswith("safe") else ""
    names = [str(path.with_name(name)) for name in files]
    save = f"torch.save({{k: v for n in {names} for k, v in {load}(n).items()}}, {_converted(path)!r})"
    return f", but says in which of {len(files)} files they are; join them: {_command(module + save)}"
