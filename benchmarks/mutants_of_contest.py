"""Wrong implementations of the contest; see mutants.py."""

from mutant import Mutant

CONTEST = [
    Mutant(
        "configurations chosen on the test set",
        "finetune/contest/field.py",
        'score = f"{self._config.select_on}_{SCORES',
        'score = f"test_{SCORES',
        "test_finetune_contest",
    ),
    Mutant(
        "held-out images of the folds in another order",
        "finetune/cross_validation/scores.py",
        "for fold in range(self._n_folds)]",
        "for fold in reversed(range(self._n_folds))]",
        "test_finetune_contest",
    ),
    Mutant(
        "the worst third goes on",
        "finetune/contest/rounds.py",
        "key=lambda name: -mean[name]",
        "key=lambda name: mean[name]",
        "test_finetune_contest",
    ),
    Mutant(
        "heads of another contest kept",
        "finetune/contest/folder.py",
        '[] if resumed else (path / DONE).glob("*")',
        "[]",
        "test_finetune_contest_folder",
    ),
    Mutant(
        "the winner's run of another contest kept",
        "finetune/contest/taken.py",
        "e.name in TABLES or RUN.fullmatch(e.name)",
        "e.name in TABLES",
        "test_finetune_contest_folder",
    ),
    Mutant(
        "resumed on another store",
        "finetune/contest/folder.py",
        "digests, marker.parent)) is not None:",
        "digests, marker.parent)) is ...:",
        "test_finetune_contest_folder",
    ),
    Mutant(
        "a narrower interval",
        "finetune/contest/standings.py",
        "INTERVAL = (2.5, 97.5)",
        "INTERVAL = (10, 90)",
        "test_finetune_contest_standings",
    ),
    Mutant(
        "the interval of the first store",
        "finetune/contest/standings.py",
        "np.percentile(np.mean(differences, axis=0)",
        "np.percentile(differences[0]",
        "test_finetune_contest_standings",
    ),
    Mutant(
        "the interval of another accuracy",
        "finetune/contest/standings.py",
        "resampled_accuracies(label, right, rank_by, seed=seed)",
        'resampled_accuracies(label, right, "balanced", seed=seed)',
        "test_finetune_contest_standings",
    ),
    Mutant(
        "other images resampled alike",
        "finetune/contest/standings.py",
        "rank_by, seed=seed)",
        "rank_by, seed=0)",
        "test_finetune_contest_standings",
    ),
    Mutant(
        "heads resampled each by itself",
        "analysis/bootstrap.py",
        "(drawn @ of_images / n_images - mean)",
        "(generator.permutation(drawn) @ of_images / n_images - mean)[:, generator.permutation(len(right))]",
        "test_analysis_bootstrap",
    ),
    Mutant(
        "stores of other tails averaged",
        "finetune/contest/comparable.py",
        "if _groups(one, config) != _groups(first, config):",
        "if False:",
        "test_finetune_contest",
    ),
]
