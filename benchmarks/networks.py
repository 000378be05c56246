"""Which networks of torchvision and timm can be used, and why not the others: the tables of docs/networks.md.

Run through `make networks`. Each is made on the meta device, where a forward pass computes shapes and no
numbers, and its logits are followed back to what they are computed from. One that cannot be made there is
made with random weights, and proved as in training. Half an hour on a core.
"""

import json
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import timm
import torch
import torchvision
from torch import nn

from extract.config import NetworkConfig
from extract.networks.found import refusal
from extract.networks.registry import build_network, preparation
from store.errors import UserError

VERSIONS = {"torchvision": torchvision.__version__, "timm": timm.__version__}


def names(library: str) -> Iterator[str]:
    """Every network of a library, as `--arch` takes it."""
    if library == "timm":
        yield from (f"timm:{name}" for name in timm.list_models())
    else:
        yield from torchvision.models.list_models(module=torchvision.models)


def reason(library: str, arch: str) -> str | None:
    """Why a network is refused, None if it is not."""
    config = NetworkConfig(arch)
    with warnings.catch_warnings(action="ignore"):
        try:
            made = on_meta(library, arch)
            found = built(config) if made is None else refusal(made, preparation(config).image_size)
        except Exception as error:
            return f"cannot be made ({type(error).__name__})"
    return None if found is None else found.split("followed by one FC layer, and ")[-1]


def on_meta(library: str, arch: str) -> nn.Module | None:
    """A network without numbers; None if it needs them to be made."""
    try:
        with torch.device("meta"):
            if library == "timm":
                return timm.create_model(arch.removeprefix("timm:"), num_classes=2)
            return torchvision.models.get_model(arch)
    except (NotImplementedError, RuntimeError):
        return None


def built(config: NetworkConfig) -> str | None:
    """The same of a network with random weights."""
    try:
        build_network(config, 2)
    except UserError as error:
        return str(error)
    return None


def kind(why: str) -> str:
    """A reason without what is the network's own: names of layers, sizes and numbers."""
    if why.startswith("fails on images"):
        return "fails on the images of its own config"
    return re.sub(r" \(.*?\)| '.*?'|\b\d+ ", "", why)


def page(found: dict[str, dict[str, str | None]]) -> Iterator[str]:
    """The lines of the table."""
    for library, of_library in found.items():
        accepted = [name for name, why in of_library.items() if why is None]
        version = VERSIONS[library].split("+")[0]
        yield f"### {library} {version}: {len(accepted)} of {len(of_library)}"
        yield ""
        yield "| | networks |"
        yield "|---|---|"
        yield f"| **can be used** ({len(accepted)}) | {_listed(accepted)} |"
        refused = defaultdict(list)
        for name, why in of_library.items():
            if why is not None:
                refused[kind(why)].append(name)
        for why, several in sorted(refused.items(), key=lambda item: -len(item[1])):
            yield f"| {why} ({len(several)}) | {_listed(several)} |"
        yield ""


def _listed(several: list[str]) -> str:
    return ", ".join(name.removeprefix("timm:") for name in several)


@click.command()
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="keep what is found here as it comes"
)
@click.option("--only", help="only networks whose name contains this")
def main(json_path: Path | None, only: str | None) -> None:
    """Try every network; print the table."""
    found: dict[str, dict[str, str | None]] = {}
    if json_path is not None and json_path.exists():
        found = json.loads(json_path.read_text())
    for library in VERSIONS:
        of_library = found.setdefault(library, {})
        wanted = [name for name in names(library) if only is None or only in name]
        for i, arch in enumerate(wanted):
            if arch not in of_library:
                of_library[arch] = reason(library, arch)
                click.echo(f"{i + 1} of {len(wanted)} {arch}: {of_library[arch] or 'accepted'}", err=True)
                if json_path is not None:
                    json_path.write_text(json.dumps(found))
    for line in page(found):
        click.echo(line)


if __name__ == "__main__":
    main()
