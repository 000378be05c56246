"""Wrong implementations of heads that are not one FC layer; see mutants.py."""

from mutant import Mutant

FURTHER_HEADS = [
    Mutant(
        "reachability by the farthest centroid",
        "extract/heads/kinds.py",
        "of_all.amin(dim=1",
        "of_all.amax(dim=1",
        "test_finetune_further_heads",
    ),
    Mutant(
        "a confidence that moves the scale alone",
        "extract/heads/kinds.py",
        "confidence * (unmoved * self.logit_scale + self.logit_shift)",
        "(confidence * unmoved * self.logit_scale + self.logit_shift)",
        "test_finetune_further_heads",
    ),
    Mutant(
        "centroids trained along",
        "finetune/heads/differentiated.py",
        '("weight", "memory_weight"',
        '("weight", "centroids", "memory_weight"',
        "test_finetune_further_heads",
    ),
    Mutant(
        "rare classes attended to in their own episode",
        "finetune/heads/few_shot.py",
        "masked_fill(is_rare, -torch.inf)",
        "masked_fill(is_rare, 0.0)",
        "test_finetune_few_shot",
    ),
    Mutant(
        "weights of rare classes from their first rows alone",
        "finetune/heads/few_shot.py",
        "range(0, len(self._rare), ROWS_AT_ONCE)",
        "range(0, min(len(self._rare), 2), ROWS_AT_ONCE)",
        "test_finetune_few_shot",
    ),
]
