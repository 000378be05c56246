import numpy as np

from finetune.sampling.masks import generic_positions, specific_positions


def members(sets, row):
    return sorted(sets.order[row, : sets.count[row]].tolist())


def test_mask_pair_by_hand():
    cam = np.array([[[0.0, 0.05], [0.71, 1.0]], [[0.0, 0.7], [0.1, 1.0]]], dtype=np.float32)
    specific, generic = specific_positions(cam, 0.7), generic_positions(cam, 0.1)
    assert members(specific, 0) == [2, 3]
    assert members(generic, 0) == [0, 1]


def test_thresholds_are_strict():
    cam = np.array([[[0.0, 0.25], [0.75, 1.0]]])
    assert members(specific_positions(cam, 0.75), 0) == [3]
    assert members(generic_positions(cam, 0.25), 0) == [0]


def test_threshold_is_not_rounded_to_the_cams_precision():
    stored = np.float16(0.7)  # 0.70019…, above 0.7, but equal to it in float16
    cam = np.array([[[0.0, stored]]], dtype=np.float16)
    assert members(specific_positions(cam, 0.7), 0) == [1]


def test_empty_set_falls_back_to_all_positions_and_says_so():
    constant = np.zeros((1, 2, 2), dtype=np.float16)
    specific = specific_positions(constant, 0.7)
    assert members(specific, 0) == [0, 1, 2, 3]
    assert specific.was_empty.tolist() == [True]
    assert generic_positions(constant, 0.1).was_empty.tolist() == [False]
