"""Networks and checkpoints of other programs, and images of digits in class folders for them."""

from functools import cache
from pathlib import Path

import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

NAMES = ("zero", "one", "two", "three")  # in the order of the digits; sorted: one, three, two, zero
SIZE = 16
IMAGES = ["--image-size", SIZE, "--no-flip", "--device", "cpu"]
USERS = "made_foreign:users_network"
State = dict[str, torch.Tensor]


class UsersNetwork(nn.Module):
    """A network of a user's, with names of its own."""

    def __init__(self, n_classes: int = 3, bias: bool = True):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3))
        self.head = nn.Linear(12, n_classes, bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K)."""
        return self.head(torch.relu(self.body(images)).mean((2, 3)))


def users_network(n_classes: int = 3, bias: bool = True) -> nn.Module:
    """The user's factory."""
    return UsersNetwork(n_classes, bias)


@cache
def authors_network(arch: str, n_classes: int) -> nn.Module:
    """A network as its authors make it, its statistics not the initial ones. Do not change it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        make = users_network if arch == USERS else torchvision.models.get_model
        network = make(n_classes) if arch == USERS else make(arch, num_classes=n_classes)
        for name, value in network.state_dict().items():
            if "running_" in name:
                value += torch.rand(value.shape)
    return network.eval()


def trained_users_network(photos: Path) -> nn.Module:
    """The user's network, trained for a moment; its outputs are in the order of NAMES."""
    images, label = arrays(photos / "train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UsersNetwork(len(NAMES))
        optimizer = torch.optim.Adam(network.parameters(), 0.02)
        for _ in range(90):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), label).backward()
            optimizer.step()
    return network.eval()


def arrays(split: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, H, W) less 0.5, by 0.5, and their classes in the order of NAMES."""
    images, label = [], []
    for k, name in enumerate(NAMES):
        for path in sorted((split / name).iterdir()):
            pixels = torch.frombuffer(bytearray(Image.open(path).tobytes()), dtype=torch.uint8)
            images.append((pixels.view(SIZE, SIZE, 3).permute(2, 0, 1) / 255 - 0.5) / 0.5)
            label.append(k)
    return torch.stack(images), torch.tensor(label)


STATISTICS = ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]  # of `arrays`


def write_digits(root: Path, n_train: int = 30, n_test: int = 24) -> Path:
    """Class folders of digits; class k has fewer images by k than the first."""
    digits = load_digits()
    for k, name in enumerate(NAMES):
        of_class = digits.images[digits.target == k]
        for split, first, n in (("train", 0, n_train - k), ("test", n_train, n_test - k)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i, image in enumerate(of_class[first : first + n]):
                grey = Image.fromarray((image * 15.9).astype("uint8")).resize((SIZE, SIZE))
                grey.convert("RGB").save(folder / f"{i:02}.png")
    return root


def prefixed(prefix: str, state: State) -> State:
    """The same under longer names."""
    return {prefix + name: value for name, value in state.items()}


def averaged(state: State) -> State:
    """Other weights under the same names, as an average of them has."""
    return {name: value + 1 for name, value in state.items()}


def apart(state: State) -> dict[str, object]:
    """As Decoupling keeps the two parts of a network."""
    fc = [name for name in state if name.startswith(("fc.", "head."))]
    rest = {name: value for name, value in state.items() if name not in fc}
    classifier = prefixed("module.", {name: state[name] for name in fc})
    return {"state_dict_best": {"feat_model": prefixed("module.", rest), "classifier": classifier}}


OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(4)}}, "param_groups": [{"lr": 0.1}]}
WRAPPINGS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 90, "optimizer": OPTIMIZER},
    "model": lambda s: {"model": s, "best": 76.1},
    "module.": lambda s: {"state_dict": prefixed("module.", s)},
    "_orig_mod.": lambda s: prefixed("_orig_mod.", s),
    "Lightning's model.": lambda s: {
        "state_dict": prefixed("model.", s) | {"loss.weight": torch.ones(7)},
        "loops": {},
    },
    "Lightning's net.": lambda s: {"state_dict": prefixed("net.", s)},
    "state_dict_best": apart,
    "EMA beside": lambda s: {"state_dict": s, "state_dict_ema": averaged(s)},
    "EMA alone": lambda s: {"model_ema": prefixed("module.", s)},
}
