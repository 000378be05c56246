import numpy as np

from finetune.confusion import confusing_classes, mean_scores


def test_scores_are_the_mean_softmax_of_each_true_class():
    generator = np.random.default_rng(0)
    label = np.array([0, 0, 1, 2, 2, 2])
    pooled = generator.normal(size=(6, 4)).astype(np.float32)
    weight, bias = generator.normal(size=(3, 4)), generator.normal(size=3)
    scores = mean_scores(pooled, weight, bias, label)
    for class_id in range(3):
        logits = pooled[label == class_id] @ weight.T + bias
        expected = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).mean(0)
        np.testing.assert_allclose(scores[class_id], expected, rtol=1e-6)


def test_confusing_classes_read_rows_not_columns():
    scores = np.array(
        [[0.5, 0.1, 0.4, 0.0], [0.3, 0.6, 0.0, 0.1], [0.2, 0.1, 0.4, 0.3], [0.9, 0.1, 0.0, 0.0]]
    )
    assert confusing_classes(scores, 2).tolist() == [[2, 1], [0, 3], [3, 0], [0, 1]]
    # the transposed matrix answers otherwise, so the test can tell
    assert confusing_classes(scores.T, 2).tolist() != confusing_classes(scores, 2).tolist()


def test_own_class_never_confuses_itself():
    scores = np.eye(5) + 0.01
    chosen = confusing_classes(scores, 4)
    assert all(class_id not in row for class_id, row in enumerate(chosen))
