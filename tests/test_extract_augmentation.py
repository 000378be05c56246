"""Images changed at random: each by its own draws, in batches as alone, and nothing unless asked for."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_training import resumed_to_the_bit
from made_views import splitmix
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from extract.config import TrainConfig
from extract.device import Compute
from extract.images.augmentation.boxes import ERASING_DRAWS, covered, erased, squares
from extract.images.augmentation.changes import N_DRAWS, Changes, changed
from extract.images.augmentation.config import AugmentConfig
from extract.images.augmentation.jitter import ORDERS, jittered
from extract.images.augmentation.policies import operations
from extract.images.batches import training_batches
from extract.images.image_set import EVALUATION, ImageSet
from extract.images.transforms import Transform, augment_batch, normalise, training_image, view_batch
from extract.images.views import view_seeds
from extract.train import train
from extract.training.recorded import recorded
from store.errors import UserError

POLICIES = ("autoaugment", "randaugment", "trivialaugment")
EVERYTHING = {"augment": "randaugment", "jitter": 0.4, "cutout": 7, "erasing": 0.5}
FILL = (120, 110, 100)


def smooth(n: int, height: int = 32, width: int = 32) -> torch.Tensor:
    """Images with large shapes in them, uint8 (n, 3, H, W)."""
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    return (255 * torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")).to(torch.uint8)


def uniform(n: int, n_draws: int = N_DRAWS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, n_draws))


def by_torchvision(image: torch.Tensor, name: str, magnitude: float) -> torch.Tensor:
    """One operation on one image, by torchvision's functions."""
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], "fill": list(FILL)}
    degrees = float(np.degrees(np.arctan(magnitude)))
    return {
        "Identity": lambda: image,
        "ShearX": lambda: TF.affine(image, **still | {"shear": [degrees, 0.0]}, center=[0, 0]),
        "ShearY": lambda: TF.affine(image, **still | {"shear": [0.0, degrees]}, center=[0, 0]),
        "TranslateX": lambda: TF.affine(image, **still | {"translate": [int(magnitude), 0]}),
        "TranslateY": lambda: TF.affine(image, **still | {"translate": [0, int(magnitude)]}),
        "Rotate": lambda: TF.rotate(image, magnitude, fill=list(FILL)),
        "Brightness": lambda: TF.adjust_brightness(image, 1 + magnitude),
        "Color": lambda: TF.adjust_saturation(image, 1 + magnitude),
        "Contrast": lambda: TF.adjust_contrast(image, 1 + magnitude),
        "Sharpness": lambda: TF.adjust_sharpness(image, 1 + magnitude),
        "Posterize": lambda: TF.posterize(image, int(magnitude)),
        "Solarize": lambda: TF.solarize(image, 255 * magnitude),
        "AutoContrast": lambda: TF.autocontrast(image),
        "Equalize": lambda: TF.equalize(image),
        "Invert": lambda: TF.invert(image),
    }[name]()


@pytest.mark.parametrize("augment", POLICIES)
@pytest.mark.parametrize("side", [(32, 32), (24, 30)])
def test_images_in_a_batch_are_what_torchvision_makes_of_each_alone(augment, side):
    images, draws = smooth(300, *side), uniform(300)
    before = images.clone()
    shown = changed(images, Changes(augment), draws, FILL)
    assert torch.equal(images, before)
    n_changed, names = 0, set()
    for row, image in enumerate(images):
        expected = image
        for operation in operations(augment, draws[row].tolist()[:7], *side):
            if operation is not None:
                names.add(operation[0])
                expected = by_torchvision(expected, *operation)
        assert torch.equal(shown[row], expected), row
        n_changed += not torch.equal(expected, image)
    assert n_changed > 150
    assert len(names) >= 12  # CIFAR-10's policy has no ShearX


@pytest.mark.parametrize(
    ("augment", "kind"),
    list(zip(POLICIES, ("AutoAugment", "RandAugment", "TrivialAugmentWide"), strict=True)),
)
@pytest.mark.parametrize("side", [32, 96])
def test_operations_come_as_often_as_in_torchvision(augment, kind, side, monkeypatch):
    """Of its own class, asked image by image, we note what it applies; counts of 3,000 images agree."""
    policy = v2.AutoAugmentPolicy.CIFAR10 if side <= 64 else v2.AutoAugmentPolicy.IMAGENET
    theirs = getattr(v2, kind)(*([policy] if augment == "autoaugment" else []))
    noted = []
    monkeypatch.setattr(
        theirs, "_apply_image_or_video_transform", lambda image, *o, **k: noted.append(o) or image
    )
    n, blank = 3000, torch.zeros(3, side, side, dtype=torch.uint8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(n):
            theirs(blank)
    ours = [o for row in uniform(n, 7).tolist() for o in operations(augment, row, side, side) if o]
    counts = [
        dict(
            zip(
                *np.unique([repr((name, round(float(m), 4) + 0.0)) for name, m in found], return_counts=True),
                strict=True,
            )
        )
        for found in (noted, ours)
    ]
    kinds = counts[0].keys() | counts[1].keys()
    a, b = (np.array([count.get(kind, 0) for kind in kinds]) for count in counts)
    assert ((a - b) ** 2 / (a + b)).sum() < len(kinds) + 5 * np.sqrt(2 * len(kinds))


def test_squares_have_their_size_and_every_centre_and_are_cut_off_at_borders():
    for side in (1, 6, 7, 20):
        boxes = squares(side, uniform(5000, 2), 20, 12)
        images = covered(torch.zeros(5000, 3, 20, 12, dtype=torch.uint8), boxes, (255, 1, 2))
        assert set(images[:, 1].unique().tolist()) <= {0, 1}
        inside = images[:, 0] == 255
        top, bottom, left, right = boxes.T
        area = torch.from_numpy((bottom - top) * (right - left))
        assert torch.equal(inside.sum(dim=(1, 2)), area)
        whole = (top > 0) & (bottom < 20) & (left > 0) & (right < 12)
        assert (area[torch.from_numpy(whole)] == side * side).all()
        assert area.min() >= max(1, (side // 2) ** 2)
        by_centre = [
            sum(0 <= at - centre + side // 2 < side for centre in range(length)) / length
            for length in (20, 12)
            for at in range(length)
        ]
        expected = torch.tensor(by_centre[:20])[:, None] * torch.tensor(by_centre[20:])
        assert (inside.float().mean(dim=0) - expected).abs().max() < 0.035  # 5 standard errors


def test_boxes_are_erased_as_often_and_as_large_as_torchvision_does():
    n, side = 4000, 40
    boxes = erased(0.25, uniform(n, ERASING_DRAWS), side, side)
    top, bottom, left, right = boxes.T
    tall, wide = bottom - top, right - left
    some = tall > 0
    assert some.mean() == pytest.approx(0.25, abs=0.03)
    assert (boxes >= 0).all()
    assert (boxes <= side).all()
    theirs = v2.RandomErasing(p=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = [theirs.make_params([torch.zeros(3, side, side)]) for _ in range(1000)]
    for ours, name in ((tall, "h"), (wide, "w"), (top, "i"), (left, "j")):
        expected = np.array([one[name] for one in made])
        assert ours[some].mean() == pytest.approx(expected.mean(), rel=0.07), name
        assert ours[some].std() == pytest.approx(expected.std(), rel=0.1), name
    never = erased(0.0, uniform(50, ERASING_DRAWS), side, side)
    assert (never[:, 0] == never[:, 1]).all()


def test_jitter_is_torchvisions_to_a_rounding_and_saturation_leaves_grey_images_alone():
    images, draws = smooth(60), uniform(60, 4)
    shown = jittered(images, 0.4, draws)
    grey = images[:, :1].repeat(1, 3, 1, 1)
    draws_of_saturation = np.column_stack([draws[:, 0], np.full((60, 2), 0.5), draws[:, 3]])
    assert torch.equal(jittered(grey, 0.4, draws_of_saturation), grey)
    adjust = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)
    for row, image in enumerate(images):
        expected = image
        for number in ORDERS[int(draws[row, 0] * 6)]:
            expected = adjust[number](expected, float(0.6 + 0.8 * draws[row, 1 + number]))
        apart = (shown[row].int() - expected.int()).abs()
        assert apart.max() <= 5  # torchvision rounds down after each
        assert apart.float().mean() < 3
    assert len({tuple(image.flatten().tolist()) for image in shown}) == 60


def test_crops_and_mirrors_are_the_same_with_and_without_changes():
    images, seeds = smooth(40), view_seeds(3, np.arange(40), np.array([1]))
    seeds[::7] = EVALUATION
    plain, with_all = Transform(32), Transform(32, **EVERYTHING)
    never = Transform(32, erasing=1e-300)  # draws, and changes nothing
    for made in (
        lambda transform: augment_batch(images, transform, torch.Generator().manual_seed(0)),
        lambda transform: view_batch(images, transform, seeds),
        lambda transform: training_image(images[0], transform, 5)[None],
    ):
        assert torch.equal(made(plain), made(never))
        assert not torch.equal(made(plain), made(with_all))
        assert torch.equal(made(with_all), made(with_all))


@pytest.mark.parametrize(
    "changes", [{"augment": "autoaugment"}, {"jitter": 0.5}, {"cutout": 9}, {"erasing": 1.0}]
)
def test_every_image_has_draws_of_its_own_and_a_view_is_the_same_in_any_batch(changes):
    same = smooth(1).expand(50, -1, -1, -1)
    transform = Transform(32, **changes)
    drawn = changed(same, transform.changes, uniform(50), FILL)
    assert len({tuple(image.flatten().tolist()) for image in drawn}) > 10
    images, seeds = smooth(50), view_seeds(3, np.arange(50), np.array([1]))
    seeds[::7] = EVALUATION
    views = view_batch(images, transform, seeds)
    alone = [view_batch(images[i : i + 1], transform, seeds[i : i + 1]) for i in range(50)]
    assert torch.equal(views, torch.cat(alone))
    assert torch.equal(views[::7], images[::7])  # evaluation
    row, seed = 1, int(seeds[1])  # by the draws that docs/store-format.md documents
    drawn = [[splitmix(seed, 3 + k) % 2**53 / 2**53 for k in range(36)]]
    crop = view_batch(images[row : row + 1], Transform(32), seeds[row : row + 1])
    fill = tuple(round(255 * value) for value in transform.mean)
    assert torch.equal(views[row], changed(crop, transform.changes, np.array(drawn), fill)[0])


def test_large_files_are_changed_alike_by_workers_and_after_a_resumption(tmp_path):
    side, paths = 72, [tmp_path / f"{i}.png" for i in range(10)]
    for path, image in zip(paths, smooth(10, 80, 90), strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    split = ImageSet(paths, np.arange(10) % 3, np.arange(10))

    def epoch(n_workers: int, n_taken: int = 0, **changes) -> list[torch.Tensor]:
        compute, generator = Compute(torch.device("cpu"), "fp32", 4, n_workers), torch.Generator()
        taken, transform = (n_taken, None), Transform(side, **changes)
        batches = training_batches(split, transform, generator.manual_seed(0), compute, taken)
        return [images for images, _ in batches]

    whole, by_workers, resumed = (epoch(*how, **EVERYTHING) for how in ((0,), (2,), (2, 1)))
    assert len(whole) == 3
    assert torch.equal(torch.cat(whole), torch.cat(by_workers))
    assert torch.equal(torch.cat(whole[1:]), torch.cat(resumed))
    plain = torch.cat(epoch(0))
    assert (plain != torch.cat(whole)).flatten(1).any(dim=1).all()  # every image was changed


def test_what_is_covered_is_0_after_normalisation():
    transform = Transform(32, cutout=32)
    images = normalise(augment_batch(smooth(30), transform, torch.Generator().manual_seed(0)), transform)
    assert (images.abs() < 0.01).flatten(2).float().mean() > 0.4


def test_checkpoints_without_changes_have_the_fields_that_they_had():
    assert Transform(32).saved().keys() == asdict(Transform(32)).keys() - {
        "augment",
        "jitter",
        "cutout",
        "erasing",
    }
    transform = Transform(32, cutout=8)
    assert Transform(**transform.saved()) == transform


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cutout": -1}, "--cutout -1: must be 0"),
        ({"cutout": 9}, "--cutout 9: larger than the images of 8 pixels"),
        ({"erasing": 1.5}, "--erasing 1.5: must be from 0 to 1"),
        ({"erasing": float("nan")}, "--erasing nan: must be"),
        ({"jitter": 2.0}, "--jitter 2: must be from 0 to 1"),
        ({"jitter": -0.1}, "--jitter -0.1: must be from 0 to 1"),
    ],
)
def test_changes_that_cannot_be_are_refused(options, says, tiny, quiet):
    with pytest.raises(UserError) as refused:
        train(replace(tiny, augmentation=AugmentConfig(**options)), quiet)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Path(tiny.out).exists()


def test_a_training_with_changes_is_resumed_to_the_bit(tiny):
    """Interrupted in the middle of an epoch; and it does change images."""
    options = EVERYTHING | {"augment": "autoaugment", "cutout": 3}
    whole = resumed_to_the_bit(tiny, replace(tiny, augmentation=AugmentConfig(**options)))
    assert recorded(whole.config) == options
    assert {name: whole.transform[name] for name in options} == options
    assert TrainConfig(augmentation=AugmentConfig()).resolved().augmentation == AugmentConfig()
