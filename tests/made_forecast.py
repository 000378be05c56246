"""The figures of `store plan`."""

import json
from typing import Any

from bad_input import succeed

QUICK = ["--seconds", 0.02, "--device", "cpu"]
TINY = ["--arch", "resnet8", "--width", 4]


def planned(*arguments: object) -> dict[str, Any]:
    return json.loads(succeed("store", "plan", "--json", *QUICK, *arguments).stdout)


def chosen(content: dict[str, Any]) -> dict[str, Any]:
    (choice,) = (c for c in content["choices"] if c["chosen"])
    return choice
