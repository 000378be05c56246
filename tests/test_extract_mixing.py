"""Mixed images: what is mixed of what, in which shares, and that nothing but seed, epoch and step decides."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from made_training import resumed_to_the_bit

from extract.config import TrainConfig
from extract.images.augmentation.config import AugmentConfig
from extract.training.batch import Batch
from extract.training.mixing import Mixing, mixed_features
from extract.training.recorded import recorded
from store.errors import UserError

B, SIDE = 400, 12
COUNTS = np.array([300, 100, 50, 5])


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(B, 3, SIDE, SIDE, generator=generator)
    return Batch(images, torch.randint(4, (B,), generator=generator))


def mixed(batch: Batch, epoch: int = 0, step: int = 0, seed: int = 0, **options) -> Batch:
    return Mixing(AugmentConfig(**options), COUNTS, seed).mixed(batch, epoch, step)


def partners(before: Batch, after: Batch, share: torch.Tensor) -> torch.Tensor:
    """Which image each was mixed with, found from the pixels: the one that explains what was added."""
    added = after.images - share[:, None, None, None] * before.images
    rest = (1 - share)[:, None, None, None]
    fits = [(added - rest * before.images[j]).abs().amax(dim=(1, 2, 3)) < 1e-4 for j in range(B)]
    return torch.stack(fits, dim=1)


def test_nothing_is_mixed_unless_asked_for(batch):
    assert mixed(batch) is batch
    assert mixed(batch, mixup=0.0, cutmix=0.0) is batch


def test_mixup_is_the_weighted_mean_of_two_images_and_of_their_labels(batch):
    after = mixed(batch, mixup=1.0)
    fits = partners(batch, after, after.share)
    assert fits.any(dim=1).all()
    clear = (after.share < 0.95) & (after.share > 0.05)  # others look like anything
    partner = fits[clear].float().argmax(dim=1)
    assert torch.equal(after.others[clear], batch.labels[partner])
    assert torch.equal(after.labels, batch.labels)
    assert len(partner.unique()) == clear.sum()  # every image is the partner of one
    assert len(after.share.unique()) == B  # a share of its own for each image


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
@pytest.mark.parametrize("option", ["mixup", "mixup_features"])
def test_shares_are_drawn_from_a_beta_distribution(batch, option, alpha):
    shares = torch.cat([mixed(batch, step=step, **{option: alpha}).share for step in range(20)]).double()
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    assert 0 <= shares.min() <= shares.max() <= 1


@pytest.mark.parametrize("side", [(12, 12), (9, 14)])
def test_cutmix_takes_a_box_whose_area_is_the_partners_share(batch, side):
    """Every pixel says whose it is: the image's own number, or another's."""
    numbers = torch.arange(B, dtype=torch.float32)[:, None, None, None].expand(B, 3, *side)
    after = mixed(Batch(numbers.contiguous(), batch.labels), cutmix=1.0)
    foreign = after.images != numbers
    assert torch.equal(foreign[:, :1].expand_as(foreign), foreign)  # the same in all channels
    area = foreign[:, 0].sum(dim=(1, 2))
    torch.testing.assert_close(after.share, 1 - area / (side[0] * side[1]))
    rows, columns = foreign[:, 0].any(dim=2), foreign[:, 0].any(dim=1)
    assert torch.equal(rows.sum(dim=1) * columns.sum(dim=1), area)  # a box, in one piece:
    for along in (rows, columns):
        assert ((along[:, 1:] & ~along[:, :-1]).sum(dim=1) + along[:, 0] <= 1).all()
    for i in torch.nonzero(area).flatten().tolist():
        (partner,) = after.images[i][foreign[i]].unique().long().tolist()
        assert after.others[i] == batch.labels[partner]
    assert 0.2 < (area / (side[0] * side[1])).mean() < 0.5  # 1/2, less what the borders cut off
    assert all(along.any(dim=0).all() for along in (rows, columns))  # boxes reach every border


def test_either_of_two_is_drawn_for_a_whole_batch(batch):
    n_cut = 0
    for step in range(200):
        after = mixed(batch, step=step, mixup=1.0, cutmix=1.0)
        own = (after.images == batch.images).all(dim=1).float().mean(dim=(1, 2))  # pixels left as they were
        is_cut = (own - after.share).abs().median() < 1e-5  # not so where an image is its own partner
        n_cut += int(is_cut)
        assert is_cut or own.median() == 0
    assert 70 < n_cut < 130


def test_pooled_features_are_mixed_and_images_are_not(batch):
    after = mixed(batch, mixup_features=1.0)
    assert after.images is batch.images
    pooled = torch.randn(B, 7, generator=torch.Generator().manual_seed(1))
    partner, share = after.partner, after.share[:, None]
    torch.testing.assert_close(mixed_features(pooled, after), share * pooled + (1 - share) * pooled[partner])
    assert torch.equal(after.others, batch.labels[partner])
    assert mixed_features(pooled, batch) is pooled


@pytest.mark.parametrize("option", ["mixup", "cutmix", "mixup_features"])
def test_remix_gives_rare_classes_the_whole_label(batch, option):
    plain, after = (mixed(batch, **{option: 1.0}, remix=remix) for remix in (False, True))
    assert torch.equal(after.images, plain.images)
    seen = set()
    for own, other, share, label_share in zip(
        batch.labels.tolist(), plain.others.tolist(), plain.share.tolist(), after.share.tolist(), strict=True
    ):
        n_own, n_other = COUNTS[own], COUNTS[other]
        if n_own >= 3 * n_other and share < 0.5:
            expected = 0.0
        elif 3 * n_own <= n_other and 1 - share < 0.5:
            expected = 1.0
        else:
            expected = share
        seen.add(expected if expected in (0.0, 1.0) else "as drawn")
        assert label_share == expected
    assert seen == {0.0, 1.0, "as drawn"}
    if option == "mixup_features":  # features keep the share that was drawn
        assert torch.equal(after.feature_share, plain.share)


def test_draws_depend_on_seed_epoch_and_step_alone(batch):
    first = mixed(batch, 3, 4, mixup=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        again = mixed(batch, 3, 4, mixup=1.0)
    assert torch.equal(first.images, again.images)
    for other in ({"epoch": 4, "step": 4}, {"epoch": 3, "step": 5}, {"epoch": 3, "step": 4, "seed": 1}):
        assert not torch.equal(first.share, mixed(batch, mixup=1.0, **other).share)


def test_a_mixed_image_is_right_by_the_share_of_the_predicted_label():
    mixed_batch = Batch(
        torch.empty(3, 3, 1, 1),
        torch.tensor([0, 1, 2]),
        torch.tensor([1, 1, 0]),
        torch.tensor([0.75, 0.5, 0.25]),
    )
    assert mixed_batch.n_correct(torch.tensor([1, 1, 1])) == 0.25 + 1.0 + 0.0
    plain = Batch(mixed_batch.images, mixed_batch.labels)
    assert plain.n_correct(torch.tensor([0, 1, 0])) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mixup": -1.0}, "--mixup -1: must be from 0 to 100"),
        ({"cutmix": 101.0}, "--cutmix 101: must be from 0 to 100"),
        ({"mixup_features": float("nan")}, "--mixup-features nan: must be"),
        ({"mixup_features": 1.0, "cutmix": 1.0}, "instead of images; leave --cutmix out"),
        ({"remix": True}, "--remix: decides the labels of mixed images, and none are"),
        ({"remix": True, "mixup": 0.0}, "--remix: decides the labels of mixed images, and none are"),
    ],
)
def test_options_that_cannot_be_are_refused(options, says):
    with pytest.raises(UserError) as refused:
        TrainConfig(augmentation=AugmentConfig(**options)).resolved()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("loss", ["lifted", "range", "sla"])
def test_losses_that_compare_whole_images_take_no_mixed_ones(loss):
    config = TrainConfig()
    objective = type(config.objective)(loss=loss)
    with pytest.raises(UserError, match=f"--loss {loss}: cannot take mixed images"):
        TrainConfig(objective=objective, augmentation=AugmentConfig(mixup=1.0)).resolved()
    assert asdict(TrainConfig(objective=objective).resolved())["objective"]["loss"] == loss


@pytest.mark.parametrize("options", [{"mixup": 0.5, "cutmix": 1.0}, {"mixup_features": 1.0, "remix": True}])
def test_a_training_with_mixed_images_is_resumed_to_the_bit(tiny, options):
    """Interrupted in the middle of an epoch; and it does mix."""
    whole = resumed_to_the_bit(tiny, replace(tiny, augmentation=AugmentConfig(**options)))
    assert recorded(whole.config) == options
