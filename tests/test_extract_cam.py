import pytest
import torch

from extract.cam import class_activation_maps


def test_cam_by_hand():
    # Two positions matter: the weights of class 1 are (2, -1), those of class 0 must not be used.
    feature_map = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [3.0, 2.0]]]])  # (1, 2, 2, 2)
    weight = torch.tensor([[5.0, 5.0], [2.0, -1.0]])
    cam = class_activation_maps(feature_map, weight, torch.tensor([1]))
    # raw: 2, -1, 1, 4; minus the minimum and over the span of 5
    torch.testing.assert_close(cam, torch.tensor([[[3 / 5, 0.0], [2 / 5, 1.0]]]))


def test_negative_activations_count():
    # A ReLU would make both of the lower positions 0.
    feature_map = torch.tensor([-4.0, -2.0, 0.0, 4.0]).reshape(1, 2, 2, 1)
    cam = class_activation_maps(feature_map, torch.ones(1, 1), torch.tensor([0]))
    torch.testing.assert_close(cam.flatten(), torch.tensor([0.0, 0.25, 0.5, 1.0]))


def test_each_image_uses_its_own_label_and_its_own_range():
    generator = torch.Generator().manual_seed(0)
    feature_map = torch.randn(5, 3, 4, 7, generator=generator)
    weight = torch.randn(6, 7, generator=generator)
    label = torch.tensor([3, 0, 5, 5, 1])
    cam = class_activation_maps(feature_map, weight, label)
    for n in range(5):
        raw = (feature_map[n] * weight[label[n]]).sum(-1)
        expected = (raw - raw.min()) / (raw.max() - raw.min())
        torch.testing.assert_close(cam[n], expected)
    assert (cam.amin((1, 2)) == 0).all()
    assert (cam.amax((1, 2)) == 1).all()


def test_constant_cam_is_zero_and_never_nan():
    feature_map = torch.ones(2, 3, 3, 4)
    feature_map[1] = 0
    cam = class_activation_maps(
        feature_map, torch.randn(2, 4, generator=torch.Generator()), torch.tensor([0, 1])
    )
    assert (cam == 0).all()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_map_constant_but_for_rounding_is_zero(batch):
    """Sums of equal positions may be made in another order at the end of a block."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        vector = torch.randn(batch, 1, 1, 515, generator=generator)
        feature_map = vector.expand(batch, 7, 7, 515).contiguous()
        nudged = feature_map.clone()
        nudged[:, 3, 3] *= 1 + 2e-7
        weight = torch.randn(2, 515, generator=generator)
        for maps in (feature_map, nudged):
            cam = class_activation_maps(maps, weight, torch.ones(batch, dtype=torch.int64))
            assert (cam == 0).all()


def test_half_precision_maps_are_summed_in_float32():
    feature_map = torch.full((1, 1, 2, 4096), 1.0, dtype=torch.float16)
    feature_map[0, 0, 1, 0] = 2.0  # one part in 4096: lost if the sum were rounded to float16
    cam = class_activation_maps(feature_map, torch.ones(1, 4096), torch.tensor([0]))
    assert cam.flatten().tolist() == [0.0, 1.0]
