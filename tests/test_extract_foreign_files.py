"""Files of weights as other programs leave them: recognised by what they hold, and told what to do with."""

import argparse
import json
import shlex
import subprocess
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from bad_input import TINY, refuse, succeed, write_images
from safetensors.torch import save_file
from torch import nn

from extract.config import NetworkConfig
from extract.networks.foreign_files import read_content
from extract.networks.registry import build_network
from extract.networks.weights_file import read_tensors
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("in_tmp_path")
ARCH = "resnet8"
State = dict[str, torch.Tensor]


def network_state(arch: str = ARCH) -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = build_network(NetworkConfig(arch, width=2), 3)
    return dict(network.backbone.state_dict())


def loaded(file: str) -> State:
    with torch.random.fork_rng(devices=[]):
        return dict(build_network(NetworkConfig(ARCH, width=2, weights=file), 3).backbone.state_dict())


def assert_same(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def run_told_command(file: str, what: str) -> None:
    """Run the command in the refusal of a file, in this process, which has torch already."""
    with pytest.raises(UserError, match=what) as raised:
        loaded(file)
    told = str(raised.value)
    assert "\n" not in told
    python, option, code = shlex.split(told[told.index("python -c ") :])
    assert (python, option) == ("python", "-c")
    exec(code, {})


@pytest.mark.parametrize("name", ["weights", "./weights", "weights.bin", "weights.pt"])
def test_safetensors_are_recognised_by_what_they_hold(name):
    state = network_state()
    save_file(state, name)
    assert_same(loaded(name), state)


def test_torchs_files_need_no_suffix_either():
    torch.save(network_state(), "weights")
    assert_same(loaded("weights"), network_state())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["TorchScript", "torch.export"])
def test_a_program_is_told_how_its_weights_come_out(kind):
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4))).eval()
    images = torch.zeros(2, 3, 8, 8)
    if kind == "TorchScript":
        torch.jit.save(torch.jit.trace(network, images), "net.pt")
    else:
        with Path("net.pt").open("wb") as file:
            torch.export.save(torch.export.export(network, (images,)), file)
    run_told_command("net.pt", f"net.pt: a (TorchScript program|program of {kind}), not weights alone")
    assert_same(read_tensors(Path("net-weights.pt")), network.state_dict())


def lightning(state: State) -> dict:
    """As Lightning saves a module whose hyper-parameters hold a class and a namespace."""
    prefixed = OrderedDict((f"model.{name}", value) for name, value in state.items())
    hyper = {"optimizer": torch.optim.SGD, "args": argparse.Namespace(lr=0.1), "classes": ["ape", "bee"]}
    return {"epoch": 3, "pytorch-lightning_version": "2.5", "state_dict": prefixed, "hyper_parameters": hyper}


@pytest.mark.parametrize(
    "content",
    [
        lightning,
        lambda s: {"model": s, "args": argparse.Namespace(lr=1)},
        lambda s: {"state_dict_best": {"feat_model": s}, "args": argparse.Namespace(lr=1)},
        lambda s: [{"epoch": 1, "args": argparse.Namespace()}, s][1] | {"args": argparse.Namespace()},
    ],
    ids=["Lightning", "beside arguments", "nested", "flat"],
)
def test_one_that_needs_code_is_told_the_command_that_converts_it(content):
    state = network_state()
    torch.save(content(state), "it's.ckpt")
    run_told_command("it's.ckpt", "holds objects that only code can open, and no file runs code here")
    assert_same(loaded("it's-weights.pt"), state)
    if content is lightning:  # lists of classes stay, which say the order of the FC layer's outputs
        assert read_content(Path("it's-weights.pt"))["hyper_parameters"]["classes"] == ["ape", "bee"]


def test_a_whole_module_is_told_the_same():
    with torch.random.fork_rng(devices=[]):
        torch.save(nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3))), "net.pth")
    run_told_command("net.pth", "holds objects that only code can open")
    assert set(read_tensors(Path("net-weights.pt"))) == {"conv.weight", "conv.bias"}


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_list_of_shards_is_told_how_they_are_joined(suffix):
    state = network_state()
    names, shards = list(state), [f"model-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    for shard, part in zip(shards, (names[:20], names[20:]), strict=True):
        held = {name: state[name] for name in part}
        save_file(held, shard) if suffix == "safetensors" else torch.save(held, shard)
    listed = {name: shards[int(i >= 20)] for i, name in enumerate(names)}
    Path(f"model.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    run_told_command(f"model.{suffix}.index.json", "says in which of 2 files they are; join them")
    assert_same(loaded(f"model.{suffix}.index-weights.pt"), state)
    Path("config.json").write_text('{"lr": 1}')
    with pytest.raises(UserError, match="holds no weights; name a file of torch or saf"):
        loaded("config.json")


ODD = {
    "float8": (lambda v: v.to(torch.float8_e4m3fn), "of float8_e4m3fn (which needs its scale; save it as f"),
    "sparse": (lambda v: v.to_sparse(), "of float32 (sparse; save it with .to_dense())"),
    "meta": (lambda v: v.to("meta"), "of float32 (without its numbers"),
    "quantised": (
        lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8),
        "of qint8 (quantised; save it w",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ODD)
def test_numbers_that_are_not_what_they_seem_are_refused(how):
    change, says = ODD[how]
    state = network_state()
    torch.save(state | {"0.weight": change(state["0.weight"])}, "w.pt")
    with pytest.raises(UserError) as raised:
        loaded("w.pt")
    assert "1 of another shape or kind (0.weight is 2×3×3×3 " + says in str(raised.value)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_pointer_of_git_lfs_is_told_as_such(name):
    Path(name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    with pytest.raises(UserError, match="a pointer of Git LFS, not the file; fetch it with `git lfs pull`"):
        loaded(name)


@pytest.mark.parametrize("file", ["net.ckpt", "it's.ckpt", "$HOME `!\\.ckpt"])
def test_a_shell_reads_the_told_command_as_it_is_meant(file):
    with Path(file).open("wb") as opened:
        torch.save(lightning({}), opened)
    with pytest.raises(UserError, match="only code can open") as raised:
        loaded(file)
    told = str(raised.value).partition("convert it: ")[2]
    shown = subprocess.run(
        ["sh", "-c", f"printf %s {told.removeprefix('python -c ')}"], capture_output=True, text=True
    )
    assert f"torch.load({file!r}, map_location='cpu'" in shown.stdout
    assert ('"' + shown.stdout + '"' in told) == (file == "net.ckpt")  # as readable as can be


def test_long_names_are_cut():
    long = "a" * 10_000
    state = network_state()
    torch.save({f"{long}{i}": value for i, value in enumerate(state.values())}, "w.pt")
    with pytest.raises(UserError, match="holds no weights of resnet8") as raised:
        loaded("w.pt")
    assert len(str(raised.value)) < 500
    del state["0.weight"]
    torch.save({f"{long}.{name}": value for name, value in state.items()}, "w.pt")
    with pytest.raises(UserError, match=r"1 \(0.weight\) missing") as raised:
        loaded("w.pt")
    assert len(str(raised.value)) < 500


def test_an_address_is_to_be_downloaded_first():
    train = ["train", "--root", write_images(Path("photos")), *TINY, "--image-size", "16", "--out", "p"]
    for address in ("https://example.org/w.pth", "s3://bucket/w.safetensors", "hf://org/net"):
        refuse(*train, "--weights", address, says=[f"--weights {address}: is an address; download it, and"])
    says = ["https://example.org/w.pth: an address; download it, and name the file"]
    refuse("extract", "--ckpt", "https://example.org/w.pth", "--store", "s.zarr", says=says)
    Path("DEFAULT").write_text("a file of that name is not meant")
    refuse(*train, "--weights", "DEFAULT", says=["resnet8 has no pre-trained weights"])
    save_file({"features." + n: v for n, v in network_state().items()}, "own")
    succeed(*train, "--width", 2, "--weights", "own")
