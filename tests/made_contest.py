"""A contest of three entries."""

from finetune.contest.entries import Entry

FEW = {
    "crt": Entry("crt", {"lr": (0.01, 0.1), "weight_decay": (0.0005, 0.01)}),
    "logit-adjustment": Entry("logit-adjustment", {"tau": tuple(n / 4 for n in range(11))}),
    "fsa": Entry("fsa", {"lr": (0.001, 0.01)}),
}
