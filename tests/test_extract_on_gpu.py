"""Phase I on a GPU: images lie there, and no step waits for it; as far as possible told on the CPU."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from extract.config import NetworkConfig, TrainConfig
from extract.device import Compute, make_deterministic
from extract.images import resident as resident_images
from extract.images.augmentation.config import AugmentConfig
from extract.images.batches import evaluation_batches, training_batches
from extract.images.image_set import ImageSet
from extract.images.resident import resident
from extract.images.transforms import Transform
from extract.training.batch import Batch
from extract.training.layer_draws import layer_draws
from extract.training.losses.config import LossConfig
from extract.training.losses.objective import objective_of_epoch
from extract.training.mixing import Mixing
from extract.training.optimisation.config import OptimConfig
from extract.training.start import start_training
from extract.training.step import take_step
from extract.training.together.ranks import ONE_PROCESS

COUNTS = np.array([14, 7, 3])
GPU = pytest.param("cuda:0", marks=pytest.mark.cuda)
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")
OPTIONS = {
    "plain": {},
    "mixup": {"augmentation": AugmentConfig(mixup=1.0, remix=True)},
    "CutMix": {"augmentation": AugmentConfig(cutmix=1.0)},
    "mixup of features": {"augmentation": AugmentConfig(mixup_features=1.0)},
    "AutoAugment": {"augmentation": AugmentConfig(augment="autoaugment", cutout=4)},
    "jitter": {"augmentation": AugmentConfig(jitter=0.4, erasing=0.5)},
    "SAM": {"optimisation": OptimConfig(sam=0.05, ema_decay=0.9)},
    "clipped": {"optimisation": OptimConfig(clip_gradient=1.0, nesterov=True, decoupled_decay=True)},
    "no decay on norms": {"optimisation": OptimConfig(decay_on_norms=False, classifier_lr=0.5)},
}
LOSSES = (
    "focal",
    "class-balanced",
    "balanced-softmax",
    "ldam",
    "label-aware-smoothing",
    "lifted",
    "range",
    "sla",
)


class NoWaiting(TorchDispatchMode):
    """Refuses what a GPU would have to be waited for: a value on the host, or a shape that values decide."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.name().removeprefix("aten::").split(".")[0]
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        assert name not in WAITS, f"{name} waits for the GPU"
        assert not by_mask, "an index by a mask waits for the GPU"
        return operation(*args, **(kwargs or {}))


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    if device.type == "cpu":
        with NoWaiting():
            yield
        return
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.fixture(params=["cpu", GPU])
def compute(request) -> Compute:
    make_deterministic()
    return Compute(torch.device(request.param), "fp32", 8, 0)


def made_images() -> ImageSet:
    label = np.repeat(np.arange(3), COUNTS)
    pixels = np.random.default_rng(0).integers(0, 256, (len(label), 3, 16, 16), np.uint8)
    return ImageSet(torch.from_numpy(pixels), label, np.arange(len(label)))


@pytest.mark.parametrize(
    "options",
    [pytest.param(options, id=name) for name, options in OPTIONS.items()]
    + [pytest.param({"objective": LossConfig(loss=loss)}, id=loss) for loss in LOSSES],
)
def test_no_batch_and_no_step_waits_for_the_gpu(compute, options):
    network = NetworkConfig("resnet8", 4)
    config = TrainConfig(network=network, image_size=16, epochs=2, batch_size=8, **options).resolved()
    training = start_training(config, COUNTS, None, compute, ONE_PROCESS)
    training.objective = objective_of_epoch(config, COUNTS, 1, training.network.train().classifier)
    mixing, augmentation = Mixing(config.augmentation, COUNTS, 0), config.augmentation
    changes = {name: getattr(augmentation, name) or 0 for name in ("jitter", "cutout", "erasing")}
    transform = Transform(16, **changes, augment=augmentation.augment or "none")
    images = resident(made_images(), compute.device)
    for epoch in (0, 1):  # in the first, what is made once may be waited for
        batches = iter(training_batches(images, transform, torch.Generator().manual_seed(0), compute))
        for step in range(3):
            with layer_draws(0, 0, step, compute.device):
                if epoch == 0:
                    take_step(training, mixing.mixed(Batch(*next(batches)), 0, step), 0.01, 0.5, compute)
                    continue
                with no_waiting(compute.device):
                    batch = mixing.mixed(Batch(*next(batches)), 0, step)
                    take_step(training, batch, 0.01, 0.5, compute)
    assert training.epoch_state.step == 6
    assert training.epoch_state.loss.isfinite()


def test_a_value_on_the_host_is_noticed(compute):
    values = torch.arange(4.0, device=compute.device)
    for look in (lambda: values.sum().item(), lambda: values[values > 1], lambda: bool(values.any())):
        with pytest.raises((AssertionError, RuntimeError)), no_waiting(compute.device):
            look()


def test_batches_are_the_same_wherever_images_lie(compute):
    images, transform = made_images(), Transform(16, augment="randaugment")
    there = resident(images, compute.device)
    assert there.images.device == compute.device
    on_host = replace(compute, device=torch.device("cpu"))

    def seen(split: ImageSet, where: Compute) -> list[torch.Tensor]:
        trained = training_batches(split, transform, torch.Generator().manual_seed(3), where)
        return [tensor.cpu() for batch in trained for tensor in batch]

    for found, expected in zip(seen(there, compute), seen(images, on_host), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)  # rotations round on the device
    evaluated = zip(*(evaluation_batches(s, transform, compute) for s in (there, images)), strict=True)
    for (found, _), (expected, _) in evaluated:
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("free", "moves"), [(4 * 24 * 768, True), (4 * 24 * 768 - 1, False)])
def test_images_lie_on_a_gpu_if_they_fit_beside_the_network(monkeypatch, free, moves):
    images = made_images()
    moved = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**40))
    monkeypatch.setattr(resident_images, "replace", lambda split, images: moved.append(images) or split)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: (tensor, device))
    resident(images, torch.device("cuda:1"))
    assert bool(moved) == moves
    if moves:
        assert moved[0][1] == torch.device("cuda:1")
