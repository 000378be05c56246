"""Every command and every block of the walks in docs/ runs, in order, on tiny data.

Options are added to some commands, which make them quick.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import succeed
from PIL import Image
from timm import create_model
from torchvision.models import resnet18

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)
SMALLER = {
    "extract": ["--image-size", "64"],
    "finetune": ["--iterations", "40"],
    "sweep": ["--iterations", "40"],
}
PER_CLASS = {"ape": 12, "bee": 6, "cat": 4, "dog": 3}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a folder `photos` of classes of different brightness, to be split."""
    monkeypatch.chdir(tmp_path)
    return write_photos(Path("photos"), PER_CLASS)


def write_photos(folder: Path, per_class: dict[str, int]) -> Path:
    """Class folders of JPEGs of 48×64 noise, each class with a brightness of its own."""
    rng = np.random.default_rng(0)
    for k, (name, n) in enumerate(per_class.items()):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.normal(40 + 50 * k, 30, (48, 64, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")
    return folder


def walk(page: str) -> dict:
    """Run the commands and blocks of a page, in order.

    Returns:
        What the blocks define, and under "printed" what each command printed.
    """
    names: dict = {"printed": []}
    blocks = BLOCK.findall((DOCS / page).read_text())
    for kind, source in blocks:
        if kind == "python":
            with torch.random.fork_rng(devices=[]):  # a new network draws its weights
                exec(compile(source, page, "exec"), names)
            continue
        for line in source.splitlines():
            program, *arguments = shlex.split(line.removeprefix("$ "))
            assert program == "tailcache"
            result = succeed(*arguments, *SMALLER.get(arguments[0], []))
            names["printed"].append(result.stderr + result.stdout)
    assert len(names["printed"]) >= 3
    return names


def test_from_a_trained_network_of_torchvision_to_a_better_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photos(Path("photos/train"), PER_CLASS)
    write_photos(Path("photos/test"), dict.fromkeys(PER_CLASS, 2))
    with torch.random.fork_rng(devices=[]):
        old = resnet18(num_classes=len(PER_CLASS)).state_dict()
    torch.save(old, "resnet18.pth")
    names = walk("trained-network.md")
    assert "taken to be ape, bee, cat, dog (" in names["printed"][0]
    assert "first accuracy" in names["printed"][0]
    new = names["network"].state_dict()
    changed = {name for name in new if not torch.equal(new[name], old[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_from_a_folder_to_a_classifier_without_training(photos):
    with torch.random.fork_rng(devices=[]):
        pretrained = create_model("efficientnet_lite0").state_dict()
    torch.save(pretrained, "efficientnet_lite0.pth")
    names = walk("frozen-backbone.md")
    assert "classifier: logistic regression on " in names["printed"][0]
    assert "accuracy of the fitted classifier: " in names["printed"][0]
    new = torch.load("network.pth", weights_only=True)
    assert new.keys() == pretrained.keys()
    changed = {name for name in new if not torch.equal(new[name], pretrained[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
