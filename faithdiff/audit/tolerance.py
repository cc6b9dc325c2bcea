"""How much worse is still accepted: ``0.05``, ``1%``, ``psnr=0.1`` or ``lpips=2%``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from faithdiff.audit.compare import Change
from faithdiff.errors import UserError

_FORM = re.compile(r"(?:(?P<metric>[^=]+)=\s*)?(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<percent>%?)")


@dataclass(frozen=True)
class Amount:
    """An absolute amount, or a share of the old mean."""

    number: float
    relative: bool

    def of(self, old: float) -> float:
        """The amount in the unit of the metric."""
        # Of the old mean: a percentage is said of what there was.
        return abs(old) * self.number / 100 if self.relative else self.number


@dataclass(frozen=True)
class Tolerance:
    """What is accepted of each metric; nothing where it says nothing."""

    default: Amount = Amount(0.0, False)
    metrics: dict[str, Amount] = field(default_factory=dict)

    def exceeded(self, change: Change) -> bool:
        """Whether a cell regressed: significantly worse by more than is accepted, or failing."""
        # No number can be within a tolerance.
        if change.verdict == "newly failing":
            return True
        # Significant and larger than accepted: with many pictures the smallest change is
        # significant, and with few a large one may be chance.
        amount = self.metrics.get(change.column.metric, self.default)
        return change.verdict == "worse" and -change.gain > amount.of(change.old)


def parse_tolerance(texts: Iterable[str]) -> Tolerance:
    """Read tolerances as typed on the command line.

    Raises:
        UserError: One is of none of the four forms.
    """
    default, metrics = Tolerance().default, {}
    for text in texts:
        # The whole text: of "0.05dB" the first part would do, and the rest be ignored.
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise UserError(
                f"--tolerance: {text!r} is not a number, a percentage, metric=number or "
                "metric=percentage"
            )
        amount = Amount(float(match["number"]), bool(match["percent"]))
        if match["metric"]:
            metrics[match["metric"].strip()] = amount
        else:
            default = amount
    return Tolerance(default, metrics)
