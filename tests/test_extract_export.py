"""`export`: the networks' own code loads the files, and computes what the checkpoint does."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from bad_input import refuse, succeed
from PIL import Image
from torch import nn

import tailcache as tc
from extract.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from extract.config import NetworkConfig
from extract.deploy.export import TOLERANCE
from extract.deploy.formats import FORMATS
from extract.images.image_set import read_image
from extract.images.transforms import Transform, evaluation_image, normalise
from extract.networks.registry import build_network
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("in_tmp_path")
FACTORY = """
import torch
from torch import nn

class Tail(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.add_module("head", nn.Linear(6, 3))

class ByContent(Tail):
    def forward(self, images):
        return super().forward(images if images.sum() > -1e9 else images * 2)

class ByNumber(Tail):
    def forward(self, images):
        return super().forward(images * 2 if len(images) == 3 else images)
"""


def checkpoint_of(small_ckpt: Path, arch: str, size: int) -> NetworkConfig:
    """Write c.pt: three classes of `small_ckpt`, with another network whose norms have seen images."""
    config = NetworkConfig(arch)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(config, 3, size)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = 1
        network.train()(torch.randn(4, 3, size, size))
        nn.init.normal_(network.classifier.weight)
        nn.init.normal_(network.classifier.bias)
    transform = asdict(Transform(size, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), upright=True, white={}))
    checkpoint = replace(
        load_checkpoint(small_ckpt), network=asdict(config), state=network.state_dict(), transform=transform
    )
    save_checkpoint(checkpoint, Path("c.pt"))
    return config


def authors_own(arch: str) -> nn.Module:
    """A network of three classes as its authors make it, with weights of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        if arch.startswith("timm:"):
            return timm.create_model(arch.removeprefix("timm:"), num_classes=3)
        if ":" in arch:
            names: dict = {}
            exec(FACTORY, names)
            return names[arch.partition(":")[2]]()
        return torchvision.models.get_model(arch, num_classes=3)


def images_of(size: int, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("weights", ["state-dict", "safetensors"])
@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("resnet18", 64),
        ("shufflenet_v2_x0_5", 64),
        ("timm:test_efficientnet", 64),
        ("timm:dla46x_c", 64),
        ("exported_nets:Tail", 16),
    ],
)
def test_the_authors_own_network_loads_the_weights_strictly(arch, size, weights, small_ckpt):
    Path("exported_nets.py").write_text(FACTORY)
    checkpoint_of(small_ckpt, arch, size)
    named = ["--arch", arch] if arch.startswith("exported") else []
    succeed("export", "--ckpt", "c.pt", "--format", weights, "--out", "n.bin", *named)
    if weights == "safetensors":
        state = safetensors.torch.load_file("n.bin")
    else:
        state = torch.load("n.bin", weights_only=True)
    network = authors_own(arch)
    network.load_state_dict(state)
    expected = tc.load_network("c.pt", arch=arch if named else None)
    with torch.inference_mode():
        found, logits = network.eval()(images_of(size)), expected(images_of(size))
    assert float((found - logits).abs().max() / logits.abs().max()) < 1e-5
    assert float((logits[0] - logits[1]).abs().max()) > 1e-2  # else any network would do


def run_on_others(name: str, images: torch.Tensor) -> np.ndarray:
    """The logits of an exported computation, by the library that its format is for."""
    if name == "torchscript":
        return torch.jit.load("n.bin")(images).detach().numpy()
    if name == "torch-export":
        with Path("n.bin").open("rb") as file:
            return torch.export.load(file).module()(images).detach().numpy()
    onnx.checker.check_model("n.bin")
    session = onnxruntime.InferenceSession("n.bin", providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images.numpy()})[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("arch", "size", "name"),
    [
        ("resnet18", 64, "torchscript"),
        ("resnet8", 16, "torchscript"),
        ("timm:dla46x_c", 64, "torchscript"),
        ("exported_nets:Tail", 16, "torch-export"),
        ("exported_nets:Tail", 16, "onnx"),
    ],
)
def test_a_computation_runs_elsewhere_on_batches_of_any_size(arch, size, name, small_ckpt):
    Path("exported_nets.py").write_text(FACTORY)
    checkpoint_of(small_ckpt, arch, size)
    named = ["--arch", arch] if arch.startswith("exported") else []
    said = succeed("export", "--ckpt", "c.pt", "--format", name, "--out", "n.bin", *named)
    assert (len(said.stdout.splitlines()), said.stderr) == (2, "")
    network = tc.load_network("c.pt", arch=arch if named else None)
    for n in (1, 2, 5):
        with torch.inference_mode():
            logits = network(images_of(size, n)).numpy()
        found = run_on_others(name, images_of(size, n))
        assert np.abs(found - logits).max() / np.abs(logits).max() < TOLERANCE
    assert sorted(path.name for path in Path().glob("*n*.*bin*")) == ["n.bin", "n.bin.json"]


def test_json_beside_it_prepares_images_as_evaluation_does(small_ckpt, small_root):
    image = small_root / "test/ape/0.png"
    for size, side in ((16, 16), (72, 82)):
        checkpoint_of(small_ckpt, "resnet8", size)
        tc.export("c.pt", f"{size}.pt")
        how = json.loads(Path(f"{size}.pt.json").read_text())
        assert how["class_names"] == ["ape", "bee", "cat"]
        assert (how["resize_shorter_side"], how["center_crop"]) == (side, size)
        transform = Transform(size, tuple(how["mean"]), tuple(how["std"]), upright=True, white={})
        expected = normalise(evaluation_image(read_image(image), transform)[None], transform)
        v2 = torchvision.transforms.v2
        prepare = v2.Compose(
            [
                v2.PILToTensor(),
                v2.Resize(side, v2.InterpolationMode(how["interpolation"]), antialias=how["antialias"]),
                v2.CenterCrop(how["center_crop"]),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(how["mean"], how["std"]),
            ]
        )
        torch.testing.assert_close(prepare(Image.open(image))[None], expected)


def test_a_network_that_cannot_be_exported_is_one_line(small_ckpt):
    Path("exported_nets.py").write_text(FACTORY)
    checkpoint_of(small_ckpt, "exported_nets:ByContent", 16)
    command = ["export", "--ckpt", "c.pt", "--out", "n.bin"]
    refuse(*command, says=["which is code", "pass --arch exported_nets:ByContent"])
    command += ["--arch", "exported_nets:ByContent"]
    for name in ("torch-export", "onnx"):
        says = [f"--format {name}: exported_nets:ByContent cannot be exported so (", "try another format"]
        refuse(*command, "--format", name, says=says)
    succeed(*command)


def test_a_computation_that_depends_on_the_batch_size_is_noticed(small_ckpt):
    Path("exported_nets.py").write_text(FACTORY)
    checkpoint_of(small_ckpt, "exported_nets:ByNumber", 16)
    command = ["export", "--ckpt", "c.pt", "--out", "n.bin", "--arch", "exported_nets:ByNumber"]
    refuse(*command, "--format", "torchscript", says=["gives other logits than the checkpoint"])


def test_a_file_that_reads_back_as_another_network_does_not_appear(small_ckpt, monkeypatch):
    def other(network, images, note):
        with torch.no_grad():
            for tensor in network.parameters():
                tensor.mul_(1.01)
        return FORMATS["safetensors"].make(network, images, note)

    broken = replace(FORMATS["state-dict"], make=other, read=FORMATS["safetensors"].read)
    monkeypatch.setitem(FORMATS, "state-dict", broken)
    refuse("export", "--ckpt", small_ckpt, "--out", "n.pt", says=["gives other logits than the checkpoint"])


def test_what_is_there_stays(small_ckpt):
    Path("a.pt").write_text("mine")
    Path("b.pt.json").write_text("mine")
    Path("folder").mkdir()
    command = ["export", "--ckpt", small_ckpt, "--out"]
    for name, says in {
        "a.pt": "a.pt: already exists; pass --overwrite",
        "b.pt": "b.pt.json: already exists; pass --overwrite",
        "folder": "folder: is a folder",
        "a.pt/b.pt": "a.pt: is a file",
        small_ckpt: "checkpoint.pt: this command reads that file",
    }.items():
        refuse(*command, name, says=[says])
    refuse(*command, small_ckpt, "--overwrite", says=["this command reads that file"])
    refuse("export", "--ckpt", "none.pt", "--out", "c.pt", says=["none.pt: expected a checkpoint file"])
    succeed(*command, "a.pt", "--overwrite")
    assert "resnet8" in Path("a.pt.json").read_text()
    found = json.loads(succeed(*command, "a.pt", "--overwrite", "--json").stdout)
    assert (found["file"], found["json"], found["difference"] <= TOLERANCE) == ("a.pt", "a.pt.json", True)


def test_a_package_that_is_missing_is_named(small_ckpt, monkeypatch):
    monkeypatch.setattr("extract.deploy.config.find_spec", lambda name: None if name == "onnx" else True)
    refuse(
        "export",
        "--ckpt",
        small_ckpt,
        "--format=onnx",
        "--out=n.onnx",
        says=["--format onnx: needs `pip install onnx`"],
    )
    with pytest.raises(UserError, match=r"--format .tensorflow.: expected one of"):
        tc.export(small_ckpt, "n.pb", format="tensorflow")


PAGE = Path(__file__).parent.parent / "docs" / "deployment.md"


def test_the_code_of_the_page_gives_the_predictions_of_the_program(small_ckpt, capsys):
    """Without tailcache, from the exported file and what lies beside it."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    checkpoint_of(small_ckpt, "resnet18", 96)
    for place in ("runs/fsa", "photos/new"):
        Path(place).mkdir(parents=True)
    Path("c.pt").rename("runs/fsa/checkpoint.pt")
    turned = Image.Exif()
    turned[0x0112] = 8
    pixels = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
    for name in ("robin.jpg", "photos/new/1.jpg"):
        Image.fromarray(pixels).save(name, exif=turned)
    tc.export("runs/fsa/checkpoint.pt", "resnet18.pt")
    names: dict = {}
    with torch.random.fork_rng():
        for block in blocks:
            exec(block, names)
    row = names["frame"].iloc[0]
    printed = capsys.readouterr().out.splitlines()
    assert len(blocks) == 2
    assert printed == [f"{row.class_1} {row.probability_1:.4f}"]
    assert safetensors.torch.load_file("resnet18.safetensors")["fc.weight"].shape == (3, 512)
