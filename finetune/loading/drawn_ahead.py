"""Plans of many iterations, of which windows are cut.

For a GPU, on which a draw of a thousand iterations takes hardly longer than a draw of one.
"""

import torch

from finetune.heads.cuda_graph import RECORDING
from finetune.loading.residency import HeldMaps, Maps
from finetune.sampling.arrays import cut
from finetune.sampling.plan import Draw, Plan, PlanInputs

ITERATIONS = 1024  # drawn at once: of Philox's 500 small operations, a microsecond or two is left for each
NUMBERS = 2**23  # random numbers at once; up to 30 bytes for each live during a draw


class DrawnAhead:
    """The same plans as a draw makes, one window after the other, drawn for many windows at a time.

    Called like the draw itself, by one thread. No bit changes: a plan does not depend on where it starts.
    """

    def __init__(self, draw: Draw):
        self._draw, self._drawn, self._plan = draw, range(0), None

    def __call__(self, inputs: PlanInputs, start: int, stop: int) -> Plan:
        """The plan of iterations `start` to `stop` (exclusive)."""
        if start < self._drawn.start or stop > self._drawn.stop or self._plan is None:
            self._plan = None  # free the old one first
            self._drawn = range(start, max(stop, start + iterations_at_once(inputs)))
            with RECORDING:
                self._plan = self._draw(inputs, self._drawn.start, self._drawn.stop)
        return cut(self._plan, start - self._drawn.start, stop - self._drawn.start)


def iterations_at_once(inputs: PlanInputs) -> int:
    """Iterations that are drawn together: fewer where each takes many random numbers."""
    return max(1, min(ITERATIONS, NUMBERS // inputs.numbers_per_iteration))


def draws_on_device(draw: Draw, device: torch.device, maps: Maps | None) -> bool:
    """Whether plans are drawn where heads are trained: on a GPU that holds all that a window needs.

    A CPU draws faster with numpy.
    """
    there = maps is None or (isinstance(maps, HeldMaps) and maps.device.type == "cuda")
    return device.type == "cuda" and there and getattr(draw, "anywhere", False)
