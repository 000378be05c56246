"""A wrong implementation: one replacement in one file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """What is wrong, where, and which tests should detect it."""

    wrong: str
    path: str
    right_code: str
    wrong_code: str
    tests: str

    def applied_to(self, right: str) -> str:
        """A file's content with the mistake in it.

        Raises:
            ValueError: the code to replace is not there exactly once.
        """
        if right.count(self.right_code) != 1:
            raise ValueError(f"{self.path}: found {right.count(self.right_code)} times: {self.right_code}")
        return right.replace(self.right_code, self.wrong_code)
