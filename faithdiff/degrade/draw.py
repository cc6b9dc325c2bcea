"""Draw the degradation of one image from a level: every number, nothing applied yet.

The distributions are Real-ESRGAN's (Wang et al., ICCVW 2021) as basicsr's dataset and DASR's
preparation scripts draw them, with one generator per image in place of three global ones.
"""

from __future__ import annotations

import math
from typing import Literal, NotRequired, TypedDict

import numpy as np

from faithdiff.config import MIN_SIDE
from faithdiff.degrade.levels import Blur, Level, Noise, Resize, Stage, Tail
from faithdiff.errors import ImageError

Size = tuple[int, int]

# --- What is drawn, as a line of degradation.jsonl holds it ---------------------------------------

StageName = Literal["first", "second", "tail"]
Mode = Literal["area", "bilinear", "bicubic"]


class BlurStep(TypedDict):
    """One filter: a sinc has a `cutoff`, every other family `sigma` and `theta`."""

    stage: StageName
    op: Literal["blur"]
    kernel: str
    size: int  # side in pixels, as used
    size_drawn: int  # before the cap
    sigma: NotRequired[list[float]]
    theta: NotRequired[float]
    beta: NotRequired[float]
    cutoff: NotRequired[float]


class ResizeStep(TypedDict):
    """One resize; `of` says whether the factor is relative to the input or to the LQ size."""

    stage: StageName
    op: Literal["resize"]
    mode: Mode
    factor: float
    of: Literal["input", "lq"]
    size: list[int]


class GaussianStep(TypedDict):
    """Additive noise; the seed is that of its pixels."""

    stage: StageName
    op: Literal["gaussian"]
    sigma: float
    gray: bool
    seed: int


class PoissonStep(TypedDict):
    """Shot noise; the seed is that of its pixels."""

    stage: StageName
    op: Literal["poisson"]
    scale: float
    gray: bool
    seed: int


class JpegStep(TypedDict):
    """One compression."""

    stage: StageName
    op: Literal["jpeg"]
    quality: int


Step = BlurStep | ResizeStep | GaussianStep | PoissonStep | JpegStep


class Drawn(TypedDict):
    """Everything that makes an LQ image from its HQ image."""

    hq_size: list[int]
    scale: int
    steps: list[Step]


# --- Drawing --------------------------------------------------------------------------------------

MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")  # equally likely, as in all sources
NARROW_KERNEL = 13  # px; smaller sinc kernels cannot hold the slow ripples of low cut-offs


def draw(level: Level, seed: int, hq_size: Size, scale: int) -> Drawn:
    """Draw every parameter of one image's degradation.

    The draws depend on `level` and `seed`; `hq_size` enters through sizes in pixels and through
    the cap on kernel sides: a kernel never reaches past a reflected image, and where the cap
    bites, ``size`` (used) is below ``size_drawn``.

    Args:
        level: What may be drawn.
        seed: From :func:`faithdiff.study.seeds.seed`.
        hq_size: Height and width of the HQ image, each at least 32 px.
        scale: HQ side / LQ side.

    Returns:
        JSON-able ``{"hq_size", "scale", "steps"}``; `steps` in order of application, each with an
        ``op`` (blur, resize, gaussian, poisson, jpeg) and its ``stage`` (first, second, tail).

    Raises:
        ImageError: The image is too small.
    """
    if min(hq_size) < MIN_SIDE:
        raise ImageError(
            f"HQ image is {hq_size[1]} x {hq_size[0]} px; each side needs {MIN_SIDE} px"
        )
    padded = (ceil_to(hq_size[0], scale), ceil_to(hq_size[1], scale))
    lq_size = (padded[0] // scale, padded[1] // scale)
    drawer = _Drawer(seed, padded)
    drawer.order("first", level.first, None)
    drawer.jpeg("first", level.first.jpeg)
    if level.second is None or level.tail is None:
        drawer.resize_to("tail", lq_size)
    else:
        drawer.order("second", level.second, lq_size)
        drawer.tail(level.tail, level.second, lq_size)
    return {"hq_size": list(hq_size), "scale": scale, "steps": drawer.steps}


class _Drawer:
    """Draws steps one after another and follows the size of the image through them."""

    def __init__(self, seed: int, size: Size) -> None:
        self.rng = np.random.default_rng(seed)
        self.size = size
        self.steps: list[Step] = []

    def order(self, name: StageName, stage: Stage, lq_size: Size | None) -> None:
        """Blur, resize and noise; `lq_size` where factors are relative to it."""
        if self.happens(stage.blur.prob):
            self.blur(name, stage.blur)
        self.resize_by(name, stage.resize, lq_size)
        self.noise(name, stage.noise)

    def tail(self, tail: Tail, second: Stage, lq_size: Size) -> None:
        """Resize to LQ and sinc, with the second stage's JPEG after or before the two."""
        resize_first = self.happens(tail.resize_first_prob)
        if not resize_first:
            self.jpeg("second", second.jpeg)
        self.resize_to("tail", lq_size)
        if self.happens(tail.sinc_prob):
            self.sinc("tail", self.side(tail.sinc_size), math.pi / 3)
        if resize_first:
            self.jpeg("second", second.jpeg)

    def blur(self, name: StageName, blur: Blur) -> None:
        side = self.side(blur.size)
        if self.happens(blur.sinc_prob):
            self.sinc(name, side, math.pi / 3 if side < NARROW_KERNEL else math.pi / 5)
            return
        chances = np.array(list(blur.kernels.values()))
        family = list(blur.kernels)[self.rng.choice(len(chances), p=chances / chances.sum())]
        sigma = [self.uniform(blur.sigma)] * 2
        theta = 0.0
        if family.endswith("aniso"):
            sigma[1], theta = self.uniform(blur.sigma), self.uniform((-math.pi, math.pi))
        step = BlurStep(
            stage=name,
            op="blur",
            kernel=family,
            size=self.capped(side),
            size_drawn=side,
            sigma=sigma,
            theta=theta,
        )
        if family.startswith("generalized") and blur.beta_generalized:
            step["beta"] = self.around_one(blur.beta_generalized)
        elif family.startswith("plateau") and blur.beta_plateau:
            step["beta"] = self.around_one(blur.beta_plateau)
        self.steps.append(step)

    def sinc(self, name: StageName, side: int, lowest_cutoff: float) -> None:
        cutoff = self.uniform((lowest_cutoff, math.pi))
        self.steps.append(
            BlurStep(
                stage=name,
                op="blur",
                kernel="sinc",
                size=self.capped(side),
                size_drawn=side,
                cutoff=cutoff,
            )
        )

    def resize_by(self, name: StageName, resize: Resize, lq_size: Size | None) -> None:
        point = self.rng.random() * (resize.up + resize.down + resize.keep)
        if point < resize.up:
            factor = self.uniform((1.0, resize.range[1]))
        elif point < resize.up + resize.down:
            factor = self.uniform((resize.range[0], 1.0))
        else:
            factor = 1.0
        base = lq_size or self.size
        self.size = (max(1, int(base[0] * factor)), max(1, int(base[1] * factor)))
        self.resized(name, factor, "lq" if lq_size else "input")

    def resize_to(self, name: StageName, size: Size) -> None:
        self.size = size
        self.resized(name, 1.0, "lq")

    def resized(self, name: StageName, factor: float, of: Literal["input", "lq"]) -> None:
        size = list(self.size)
        self.steps.append(
            ResizeStep(stage=name, op="resize", mode=self.mode(), factor=factor, of=of, size=size)
        )

    def noise(self, name: StageName, noise: Noise) -> None:
        gaussian = self.happens(noise.gaussian_prob)
        amount = self.uniform(noise.gaussian_sigma if gaussian else noise.poisson_scale)
        gray, seed = self.happens(noise.gray_prob), int(self.rng.integers(2**32))
        if gaussian:
            self.steps.append(
                GaussianStep(stage=name, op="gaussian", sigma=amount, gray=gray, seed=seed)
            )
        else:
            self.steps.append(
                PoissonStep(stage=name, op="poisson", scale=amount, gray=gray, seed=seed)
            )

    def jpeg(self, name: StageName, quality: tuple[int, int]) -> None:
        low, high = quality
        drawn = int(self.rng.integers(low, high, endpoint=True))
        self.steps.append(JpegStep(stage=name, op="jpeg", quality=drawn))

    def happens(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def uniform(self, range_: tuple[float, float]) -> float:
        return float(self.rng.uniform(*range_))

    def around_one(self, range_: tuple[float, float]) -> float:
        """Below or above 1 with equal chance, whatever the lengths of the halves (as basicsr)."""
        halves = (range_[0], 1.0), (1.0, range_[1])
        return self.uniform(halves[self.rng.integers(2)])

    def mode(self) -> Mode:
        return MODES[self.rng.integers(len(MODES))]

    def side(self, range_: tuple[int, int]) -> int:
        return int(range_[0] + 2 * self.rng.integers((range_[1] - range_[0]) // 2, endpoint=True))

    def capped(self, side: int) -> int:
        # Reflection needs a radius below the image's side: radius <= side - 1.
        return min(side, 2 * min(self.size) - 1)


def ceil_to(side: int, multiple: int) -> int:
    """Round a side in pixels up to a multiple."""
    return -(-side // multiple) * multiple
