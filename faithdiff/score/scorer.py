"""Turns a pair of images into values: each computation once, each value kept.

A value that could not be computed has a status instead, never a blank, a zero or a guess.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from faithdiff.data.images import read_result, sha256_file
from faithdiff.score.cache import ScoreCache
from faithdiff.score.metrics import Measure, Metric, load


class Pair:
    """A restored image and its HQ image, if it has one; each is read once, and only if needed."""

    def __init__(self, restored: Path, hq: Path | None) -> None:
        self.has_reference = hq is not None
        self._files = restored, hq
        self.sha256 = sha256_file(restored), sha256_file(hq) if hq else ""

    @cached_property
    def images(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Restored and HQ, ``(1, 3, H, W)`` in ``[0, 1]``."""
        restored, hq = self._files
        return _tensor(restored), _tensor(hq) if hq else None

    @property
    def sizes(self) -> tuple[str, str]:
        """Restored and HQ size, as ``WxH``; the same twice where there is no HQ image."""
        restored, hq = self.images
        return _size(restored), _size(restored if hq is None else hq)

    @property
    def shorter_side(self) -> int:
        """Of the restored image, in pixels."""
        return min(self.images[0].shape[-2:])


def _size(image: torch.Tensor) -> str:
    return f"{image.shape[-1]}x{image.shape[-2]}"


def _tensor(file: Path) -> torch.Tensor:
    pixels = torch.from_numpy(read_result(file))
    return pixels.permute(2, 0, 1).unsqueeze(0).float() / 255


class ScoredValue(NamedTuple):
    """A value, or why there is none.

    Attributes:
        value: Of a float, in all digits; empty unless `status` is ok.
    """

    value: str
    status: str


class Scorer:
    """Computes metrics of image pairs, each distinct computation once.

    Args:
        metrics: ``(protocol, metric) -> prepared metric``; equal digests share their value.
        weights: The folder of metric weights.
        device: ``cpu`` or ``cuda``.
        cache: Values of earlier runs; grows as values are computed.
    """

    def __init__(
        self,
        metrics: Mapping[tuple[str, str], Metric],
        weights: Path,
        device: str = "cpu",
        cache: ScoreCache | None = None,
    ) -> None:
        self.metrics = dict(metrics)
        self.computed = 0  # values that were not in the cache
        self._weights, self._device = weights, device
        self._cache = cache or ScoreCache()
        self._loaded: dict[str, Measure | str] = {}

    def score(self, pair: Pair) -> dict[tuple[str, str], ScoredValue]:
        """What each metric says of a pair, by ``(protocol, metric)``.

        Without an HQ image there is nothing to say of a metric that needs one, not even a status.
        """
        wanted = {
            key: metric
            for key, metric in self.metrics.items()
            if pair.has_reference or not metric.definition.needs_reference
        }
        outcomes: dict[str, ScoredValue] = {}
        for metric in wanted.values():
            # By digest: two protocols often define one metric alike, and a network is run once for
            # both.
            if metric.digest not in outcomes:
                outcomes[metric.digest] = self._outcome(metric, pair)
        return {key: outcomes[metric.digest] for key, metric in wanted.items()}

    def _outcome(self, metric: Metric, pair: Pair) -> ScoredValue:
        key = (metric.digest, *pair.sha256)
        # Before the images are read: a run that finds all values kept does not decode a pixel.
        if kept := self._cache.get(key):
            return ScoredValue(kept, "ok")
        if problem := _problem(metric, pair):
            return ScoredValue("", problem)
        value, problem = self._compute(metric, pair)
        if problem:
            return ScoredValue("", f"failed: {problem}")
        # As repr, the shortest text that reads back as the same float.
        self._cache.put(key, repr(value))
        return ScoredValue(repr(value), "ok")

    def _compute(self, metric: Metric, pair: Pair) -> tuple[float, str]:
        measure = self._measure(metric)
        if isinstance(measure, str):
            return math.nan, measure
        self.computed += 1
        try:
            value = measure(*pair.images)
        except Exception as error:  # noqa: BLE001 - a metric may raise anything; the other columns go on
            return math.nan, _summary(error) + _of_one_colour(pair)
        # A NaN or an infinite value would carry over into the mean of the method.
        return value, "" if math.isfinite(value) else f"value is {value}{_of_one_colour(pair)}"

    def _measure(self, metric: Metric) -> Measure | str:
        if metric.digest not in self._loaded:
            try:
                self._loaded[metric.digest] = load(metric, self._weights, self._device)
            except Exception as error:  # noqa: BLE001 - weights from outside may fail in any way
                self._loaded[metric.digest] = f"cannot be loaded: {_summary(error)}"
        return self._loaded[metric.digest]


def _problem(metric: Metric, pair: Pair) -> str | None:
    if metric.unavailable:
        return f"unavailable: {metric.unavailable}"
    restored, hq = pair.sizes
    # Never resized to fit: what resizing does to PSNR is larger than most differences here.
    if restored != hq:
        return f"failed: size {restored} != {hq}"
    # After the crop, as that is what the metric's window or network has to fit into.
    needed, side = metric.definition.min_size, pair.shorter_side - 2 * metric.definition.crop_border
    if side < needed:
        return f"unavailable: needs {needed} px on the shorter side, the image has {side}"
    return None


def _of_one_colour(pair: Pair) -> str:
    """Why a metric may have no value, for the end of a message: contrast is what it measures."""
    restored = pair.images[0]
    if bool((restored == restored[..., :1, :1]).all()):
        return "; all pixels of the restored image are equal"
    return ""


def _summary(error: Exception) -> str:
    """The first line of an error, short enough for a table."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"
