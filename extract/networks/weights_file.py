"""Weights that other programs saved: read without running code, found by their names, and loaded."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from extract.networks.foreign_files import read_content
from extract.networks.parts import Network
from store.errors import UserError
from store.notes import note

COUNTERS = {"num_batches_tracked", "total_ops", "total_params"}  # last parts of names; two are profilers'
_NUMBER = re.compile(r"\d+$")  # at the end of a module's name
EMA = re.compile(r"(^|[._])ema([._]|$)")  # in names of weights that are averaged over the steps of training
DEEPEST = 20  # dictionaries in dictionaries
SHOWN = 3  # names in a message
LONGEST = 80  # characters of a name in a message


def load_weights(network: Network, path: Path, arch: str, ema: bool) -> None:
    """Load what lies before the FC layer from a file; the FC layer stays as it is.

    The file is a state dict, or holds one among other things, under names with any prefix: `state_dict`,
    `module.` (DataParallel), `_orig_mod.` (compiled), `model.` (Lightning), `feat_model.` (Decoupling).

    Args:
        network: whose `backbone` is loaded.
        path: of a file of torch or safetensors.
        arch: the network's name, for messages.
        ema: whether to take averaged weights, where the file has both.

    Raises:
        UserError: the file cannot be read, or its weights are not those of the network.
    """
    found = read_tensors(path)
    wanted = network.backbone.state_dict()
    prefix = best_prefix(found, wanted, path, arch, ema)
    own = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    check_fit(own, wanted, path, arch)
    check_no_deeper(own, wanted, network.classifier_names, path, arch)
    check_numbers({name: own[name] for name in wanted if name in own}, path)
    network.backbone.load_state_dict({n: own[n] for n in wanted if n in own}, strict=False)
    left = [name for name in own if name not in wanted]
    said = f"; {counted(left)} left out, the FC layer is new" if left else ""
    under = f" under {_cut(prefix)!r}" if prefix else ""
    note(f"{path}: {len(own) - len(left)} tensors{under} of {len(wanted)} for {arch}{said}")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a file, by its names from the outermost dictionary to the innermost, joined by dots.

    Raises:
        UserError: it needs code to be read, is damaged, or has no tensors.
    """
    return tensors_of(read_content(path), path)


def tensors_of(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file's content, as of `read_tensors`.

    Raises:
        UserError: it has none.
    """
    found = dict(_flat(content, ""))
    if not found:
        raise UserError(f"{path}: holds no tensors; expected a state dict, alone or in a dictionary")
    return found


def _flat(content: Any, prefix: str, depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping) and depth < DEEPEST:
        for name, value in content.items():
            yield from _flat(value, f"{prefix}{name}.", depth + 1)


def best_prefix(
    found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], path: Path, arch: str, ema: bool
) -> str:
    """What stands before the names of a network's tensors in a file.

    Raises:
        UserError: none of them is there, or averaged weights are asked for and the file has none.
    """
    counts: Counter[str] = Counter()
    for name in found:
        # Every way to cut a name in two: `model.layer1.0.weight` may be `layer1.0.weight` of `model.`
        cuts = [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]
        counts.update(name[:cut] for cut in cuts if name[cut:] in wanted)
    averaged = {prefix: n for prefix, n in counts.items() if EMA.search(prefix.lower())}
    plain = {prefix: n for prefix, n in counts.items() if prefix not in averaged}
    if ema and not averaged:
        raise UserError(f"--ema: {path} has no averaged weights of {arch}; leave it out")
    chosen = averaged if ema or not plain else plain
    if not chosen:
        names = ", ".join(map(_cut, list(found)[:SHOWN]))
        raise UserError(f"{path}: holds no weights of {arch} (it has {names}, …); name its own --arch")
    if averaged and not ema:
        note(f"{path}: has averaged (EMA) weights too; --ema takes them")
    if len(parts := _in_parts(found, wanted, chosen)) > 1:
        raise UserError(
            f"{path}: has one set of weights of {arch} in {len(parts)} parts, with names under "
            f"{_prefixes(parts)}; rename its tensors so that all begin alike"
        )
    most = max(chosen.values())
    sets = sorted(prefix for prefix, n in chosen.items() if n == most)
    if len(sets) > 1:
        raise UserError(
            f"{path}: has {len(sets)} sets of weights of {arch}, under {_prefixes(sets)}; save a file with "
            "the one that is meant"
        )
    return sets[0]


def _in_parts(found: Collection[str], wanted: Collection[str], counts: Mapping[str, int]) -> list[str]:
    """The prefixes under which a file has every tensor of a network once, if only together; else none.

    Args:
        found: names in the file.
        wanted: names in the network.
        counts: how many of these stand under each prefix.
    """
    missing = {name for name in wanted if not name.endswith("num_batches_tracked")}
    taken: set[str] = set()
    parts = []
    for prefix in sorted(counts, key=lambda prefix: (-counts[prefix], prefix)):
        part = {name.removeprefix(prefix) for name in found if name.startswith(prefix)} & set(wanted)
        if part & taken:
            continue  # another set of weights, or a part of a name
        parts.append(prefix)
        taken |= part
        missing -= part
        if not missing:
            return sorted(parts)
    return []


def _prefixes(prefixes: Collection[str]) -> str:
    return " and ".join(repr(_cut(prefix)) for prefix in list(prefixes)[:SHOWN])


def check_fit(
    own: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
    path: Path,
    arch: str,
    needed: Collection[str] | None = None,
) -> None:
    """Raise UserError unless a file has every tensor of a network, in its shape.

    Args:
        own: what the file has.
        wanted: what the network has.
        path: the file, for messages.
        arch: the network's name, for messages.
        needed: the names that may not be missing; by default all.
    """
    needed = wanted if needed is None else needed
    missing = [name for name in needed if name not in own and not name.endswith("num_batches_tracked")]
    unlike = [name for name in wanted if name in own and not _alike(own[name], wanted[name])]
    if not (missing or unlike):
        return
    parts = [f"{counted(missing)} missing"] if missing else []
    if unlike:
        shapes = f"{_cut(unlike[0])} is {_shape(own[unlike[0]])}, expected {_shape(wanted[unlike[0]])}"
        parts.append(f"{len(unlike)} of another shape or kind ({shapes})")
    unexpected = [name for name in own if name not in wanted]
    if unexpected:
        parts.append(f"{counted(unexpected)} unexpected")
    fitting = len(wanted) - len(missing) - len(unlike)
    raise UserError(
        f"{path}: does not fit {arch}: {fitting} of {len(wanted)} tensors match, {', '.join(parts)}; name "
        "the --arch (and --width or --arch-option) of the network that it is from"
    )


def check_no_deeper(
    own: Collection[str], wanted: Collection[str], classifiers: Collection[str], path: Path, arch: str
) -> None:
    """Raise UserError for tensors inside of a network's modules that it lacks: the file's is another one.

    What lies beside its modules (auxiliary heads, losses) is not meant, nor are counters of profilers.

    Args:
        own: names that the file has under the network's prefix.
        wanted: names that the network has.
        classifiers: names of its FC layer.
        path: the file, for the message.
        arch: the network's name, for the message.
    """
    paths = [name.split(".") for name in wanted]
    n_common = next((i for i, parts in enumerate(zip(*paths, strict=False)) if len(set(parts)) > 1), 0)
    common, modules = paths[0][:n_common], {path[n_common] for path in paths}
    numbered = {_NUMBER.sub("", module) for module in modules if _NUMBER.search(module)}
    more = []
    for name in own:
        parts = name.split(".")
        if name in wanted or parts[-1] in COUNTERS or parts[:n_common] != common or len(parts) <= n_common:
            continue
        module = parts[n_common]
        is_next = _NUMBER.search(module) is not None and _NUMBER.sub("", module) in numbered  # layer5
        if (module in modules or is_next) and not name.startswith(tuple(f"{fc}." for fc in classifiers)):
            more.append(name)
    if more:
        raise UserError(
            f"{path}: has {counted(more)} tensors more than {arch} in the same modules, so its weights are "
            "of another network; name its own --arch"
        )


def check_numbers(taken: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raise UserError for NaN or infinite weights, which those beyond the range of float32 become.

    So do variances below 0, of which batch normalisation takes the root.
    """
    for name, value in taken.items():
        if name.endswith("running_var") and bool((value < 0).any()):
            raise UserError(f"{path}: {_cut(name)} holds variances below 0; use another file")
        if not (value.float() if value.is_floating_point() else value).isfinite().all():
            raise UserError(f"{path}: {_cut(name)} holds NaN or infinite weights; use another file")


def counted(names: list[str]) -> str:
    """How many names there are, and the first of them."""
    more = ", …" if len(names) > SHOWN else ""
    return f"{len(names)} ({', '.join(map(_cut, names[:SHOWN]))}{more})"


def _cut(name: str) -> str:
    """A name without its middle, if it is very long."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 :]}"


def _alike(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether a tensor has the shape of another, and numbers of its kind, in memory as a whole."""
    same_kind = found.is_floating_point() == wanted.is_floating_point() and not found.is_complex()
    return found.shape == wanted.shape and same_kind and _odd(found) is None


def _odd(tensor: torch.Tensor) -> str | None:
    """Why the numbers of a tensor cannot be used as they are, and what to do; None if they can."""
    if tensor.is_meta:
        return "without its numbers, which are in other files"
    if tensor.layout != torch.strided:
        return "sparse; save it with .to_dense()"
    if tensor.is_quantized:
        return "quantised; save it with .dequantize()"
    if tensor.is_floating_point() and tensor.element_size() == 1:
        return "which needs its scale; save it as float32, multiplied by that"
    return None


def _shape(tensor: torch.Tensor) -> str:
    shape, odd = "×".join(map(str, tensor.shape)) or "a number", _odd(tensor)
    return f"{shape} of {str(tensor.dtype).removeprefix('torch.')}" + (f" ({odd})" if odd else "")
