"""The schema of ``config/levels.yaml``: what each degradation level may draw.

The vocabulary is Real-ESRGAN's second-order pipeline (Wang et al., ICCVW 2021): blur, resize,
noise and JPEG, once or twice, then a tail. :mod:`faithdiff.degrade.pipeline` draws and applies.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from faithdiff.config import Probability, Section, load_yaml

KernelFamily = Literal[
    "iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"
]


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"lowest {pair[0]} is above highest {pair[1]}")
    return pair


def _odd(pair: tuple[int, int]) -> tuple[int, int]:
    if pair[0] % 2 == 0 or pair[1] % 2 == 0:
        raise ValueError(f"kernel sides must be odd, got {list(pair)}")
    return pair


def _spans_one(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] <= 1 <= pair[1]:
        raise ValueError(f"{list(pair)} must contain 1, where its lower and upper halves meet")
    return pair


def _sums_to_one(probabilities: dict[KernelFamily, float]) -> dict[KernelFamily, float]:
    total = sum(probabilities.values())
    if not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ValueError(f"probabilities sum to {total:g}, not to 1")
    return probabilities


Width = Annotated[float, Field(gt=0)]
WidthRange = Annotated[tuple[Width, Width], AfterValidator(_ordered)]
BetaRange = Annotated[tuple[Width, Width], AfterValidator(_spans_one)]
Side = Annotated[int, Field(ge=1, le=99)]
SideRange = Annotated[tuple[Side, Side], AfterValidator(_ordered), AfterValidator(_odd)]
Factor = Annotated[float, Field(ge=0.1, le=10)]
FactorRange = Annotated[tuple[Factor, Factor], AfterValidator(_spans_one)]
NoiseLevel = Annotated[float, Field(ge=0)]
NoiseRange = Annotated[tuple[NoiseLevel, NoiseLevel], AfterValidator(_ordered)]
Quality = Annotated[int, Field(ge=1, le=100)]
QualityRange = Annotated[tuple[Quality, Quality], AfterValidator(_ordered)]
KernelMix = Annotated[dict[KernelFamily, Probability], AfterValidator(_sums_to_one)]


class Blur(Section):
    """One blur: a mixture of kernel families, or a sinc filter in their place."""

    prob: Probability
    kernels: KernelMix
    size: SideRange
    sigma: WidthRange
    sinc_prob: Probability
    beta_generalized: BetaRange | None = None
    beta_plateau: BetaRange | None = None

    @model_validator(mode="after")
    def _beta_where_used(self) -> Blur:
        for name in ("generalized", "plateau"):
            used = any(family.startswith(name) for family in self.kernels)
            if used and getattr(self, f"beta_{name}") is None:
                raise ValueError(f"kernels list a {name} family, so beta_{name} must be given")
        return self


class Resize(Section):
    """A random resize: enlarge, shrink or keep."""

    up: Probability
    down: Probability
    keep: Probability
    range: FactorRange

    @model_validator(mode="after")
    def _certain(self) -> Resize:
        total = self.up + self.down + self.keep
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"up + down + keep is {total:g}, not 1")
        return self


class Noise(Section):
    """Gaussian noise or, otherwise, Poisson noise; coloured or gray."""

    gaussian_prob: Probability
    gaussian_sigma: NoiseRange
    poisson_scale: NoiseRange
    gray_prob: Probability


class Stage(Section):
    """One order of degradation: blur, resize, noise, JPEG."""

    blur: Blur
    resize: Resize
    noise: Noise
    jpeg: QualityRange


class Tail(Section):
    """How a two-order level ends: resize to the LQ size and sinc, before or after its JPEG."""

    sinc_prob: Probability
    sinc_size: SideRange
    resize_first_prob: Probability


class Level(Section):
    """One degradation level, of one order or two."""

    description: str
    first: Stage
    second: Stage | None = None
    tail: Tail | None = None

    @model_validator(mode="after")
    def _tail_with_second(self) -> Level:
        if (self.second is None) != (self.tail is None):
            raise ValueError("second and tail go together: give both or neither")
        return self


class _LevelsFile(Section):
    levels: Annotated[dict[str, Level], Field(min_length=1)]
    mixtures: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _members_exist(self) -> _LevelsFile:
        for name, members in self.mixtures.items():
            if name in self.levels:
                raise ValueError(f"mixtures.{name}: a level has this name")
            if unknown := [member for member in members if member not in self.levels]:
                raise ValueError(
                    f"mixtures.{name}: {unknown[0]!r} is not one of {list(self.levels)}"
                )
        return self


def load_levels(path: Path) -> dict[str, Level]:
    """Read ``levels.yaml``: level name to :class:`Level`, in the file's order.

    Raises:
        ConfigError: The file is missing or does not fit; the message names file and field.
    """
    return load_yaml(path, _LevelsFile).levels


def load_choices(path: Path) -> dict[str, dict[str, Level]]:
    """What each name stands for: one level, or a mixture whose images draw one of its members."""
    file = load_yaml(path, _LevelsFile)
    single = {name: {name: level} for name, level in file.levels.items()}
    mixed = {name: {m: file.levels[m] for m in members} for name, members in file.mixtures.items()}
    return {**single, **mixed}
