"""What the scores say on one metric of a claim: per-image values, their interval, their test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from faithdiff.claims.schema import Claim, Expect, GainTest, TrendTest
from faithdiff.claims.verdict import Verdict, Window
from faithdiff.config import Profile
from faithdiff.report.cells import HELD_OUT, Column
from faithdiff.report.scores import KEY, Sample, ScoreBook
from faithdiff.report.statistics import paired_bootstrap, sign_flip_test
from faithdiff.score.protocols import load_protocols
from faithdiff.seeds import numpy_rng

Role = Literal["decides", "stands in", "beside"]


@dataclass(frozen=True)
class Contrast:
    """What is averaged: signed samples ``(sign, method, level)``; no level means all of them.

    Attributes:
        text: How it reads: ``FaithDiff over SeeSR``.
        paired: Whether it is a difference, and so has a direction.
    """

    text: str
    terms: tuple[tuple[int, str, str], ...]
    paired: bool


@dataclass(frozen=True)
class Measured:
    """One metric of one contrast.

    Attributes:
        value: Mean over images, with its 95% interval `low`, `high`; NaN where nothing was
            measured, and `reason` then says why.
        window: What would reproduce the claim, in the metric's unit; NaN without a rule.
        p: Of the sign-flip test; `p_holm` after correction over all claims.
        values: Per image.
        per_seed: Means of single trainings, where there are several.
        verdict: Of this metric alone.
    """

    contrast: Contrast
    column: Column
    role: Role
    printed: str = ""
    window: Window = (math.nan, math.nan)
    reason: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    seeds: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    per_seed: tuple[float, ...] = ()
    verdict: Verdict = "not run"

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def directed(self) -> bool:
        """Whether it is tested for a direction, and so belongs to the family of the correction."""
        return bool(self.values) and any(map(math.isinf, self.window))


class Meter:
    """Measures claims on the scores of a profile."""

    def __init__(self, scores: pd.DataFrame, profile: Profile) -> None:
        self.profile = profile
        ordered = scores.sort_values(KEY, ignore_index=True)  # sums of floats depend on the order
        self.book = ScoreBook(ordered)
        seeds = sorted({int(seed) for seed in ordered["seed"]})
        self._by_seed = {seed: ScoreBook(ordered[ordered["seed"] == seed]) for seed in seeds}
        self._protocols = load_protocols(profile.score.protocols_file)

    def method(self, name: str, published: bool) -> str | None:
        """Name in the profile of a method; published ones are known by their label alone.

        A controlled baseline is not the published system of that name.
        """
        labels = {each.label: key for key, each in self.profile.methods.items()}
        if published:
            return labels.get(name)
        return name if name in self.profile.methods else None

    def label(self, method: str) -> str:
        known = self.profile.methods.get(method)
        return known.label if known else method

    def column(self, metric: str, protocol: str) -> Column:
        """How a metric is printed and which way is better."""
        if metric == HELD_OUT.metric:
            return HELD_OUT
        known = self._protocols.get(protocol)
        found = known.metrics.get(metric) if known else None
        if found is None:
            return Column(metric, protocol, metric, "", 4, higher_is_better=True)
        return Column(
            metric, protocol, found.label, found.unit, found.decimals, found.higher_is_better
        )

    def places(self, claim: Claim) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Test sets and levels of a claim."""
        data = self.profile.data
        return tuple(claim.data.datasets or data.with_hq), tuple(claim.data.levels or data.levels)

    def measure(self, claim: Claim, contrast: Contrast, expect: Expect, role: Role) -> Measured:
        """Average a metric over images; no verdict yet, which needs the other claims' p."""
        column = self.column(expect.metric, claim.protocol)
        window = _window(expect)
        empty = Measured(contrast, column, role, expect.printed or "", window)
        found = self._values(self.book, claim, contrast, column)
        if isinstance(found, str):
            return replace(empty, reason=found)
        values, seeds = found
        array, key = values.to_numpy(dtype=float), self._key(claim, contrast, column)
        n = self.profile.report.bootstrap
        low, high = paired_bootstrap(
            array, n, numpy_rng(self.profile.seed, "claims-bootstrap", *key)
        )
        rng = numpy_rng(self.profile.seed, "claims-sign-flip", *key)
        return replace(
            empty,
            value=float(array.mean()),
            low=low,
            high=high,
            p=sign_flip_test(array, n, rng) if contrast.paired else math.nan,
            seeds=seeds,
            values=tuple(map(float, array)),
            per_seed=tuple(self._per_seed(claim, contrast, column, seeds)),
        )

    def _per_seed(
        self, claim: Claim, contrast: Contrast, column: Column, seeds: Sequence[int]
    ) -> Iterable[float]:
        for seed in seeds if len(seeds) > 1 else ():
            found = self._values(self._by_seed[seed], claim, contrast, column)
            if not isinstance(found, str):
                yield float(found[0].mean())

    def _values(
        self, book: ScoreBook, claim: Claim, contrast: Contrast, column: Column
    ) -> tuple[pd.Series, tuple[int, ...]] | str:
        """Per-image values of a contrast, positive where better; or why there are none."""
        datasets, levels = self.places(claim)
        sign = 1 if column.higher_is_better or not contrast.paired else -1
        total: pd.Series | None = None
        seeds: set[int] = set()
        for factor, method, level in contrast.terms:
            sample = book.sample(
                method, column.metric, column.protocol, datasets, (level,) if level else levels
            )
            if sample.status != "ok":
                return f"{self.label(method)}: {_why(sample, column)}"
            seeds |= set(sample.seeds)
            part = sign * factor * sample.values
            if total is not None and not total.index.equals(part.index):
                return f"{self.label(method)}: {column.label} is of other images"
            total = part if total is None else total + part
        assert total is not None
        return total, tuple(sorted(seeds))

    def _key(self, claim: Claim, contrast: Contrast, column: Column) -> tuple[str, ...]:
        datasets, levels = self.places(claim)
        terms = (f"{factor}/{method}/{level}" for factor, method, level in contrast.terms)
        return (*datasets, *levels, column.metric, column.protocol, *terms)


def contrasts(claim: Claim, meter: Meter) -> list[Contrast] | str:
    """What a claim averages; or which of its methods the profile lacks."""
    published, test = claim.kind == "published", claim.test
    names = [test.method, *_others(test)]
    found = {name: meter.method(name, published) for name in names}
    if missing := [name for name, key in found.items() if key is None]:
        kind = "labelled" if published else "named"
        return f"the profile has no method {kind} {' and none '.join(map(repr, missing))}"
    key = {name: str(each) for name, each in found.items()}
    label = {name: meter.label(key[name]) for name in names}
    own = key[test.method]
    if isinstance(test, TrendTest):
        other, over = key[test.over], f"{label[test.method]} over {label[test.over]}"
        return [
            Contrast(
                f"{over}, Level {test.at} beyond Level {level}",
                ((1, own, test.at), (-1, other, test.at), (-1, own, level), (1, other, level)),
                paired=True,
            )
            for level in test.beyond
        ]
    if isinstance(test, GainTest):
        return [
            Contrast(
                f"{label[test.method]} over {label[name]}",
                ((1, own, ""), (-1, key[name], "")),
                paired=True,
            )
            for name in test.over
        ]
    return [Contrast(label[test.method], ((1, own, ""),), paired=False)]


def _others(test: object) -> list[str]:
    if isinstance(test, GainTest):
        return test.over
    return [test.over] if isinstance(test, TrendTest) else []


def _window(expect: Expect) -> Window:
    if expect.value is not None and expect.within is not None:
        return expect.value - expect.within, expect.value + expect.within
    return (0.0, math.inf) if expect.rule == "better" else (-math.inf, 0.0)


def _why(sample: Sample, column: Column) -> str:
    if sample.status == "not run":
        return f"no rows of {column.metric}@{column.protocol} in scores.csv"
    if sample.status == "unavailable":
        return f"{column.label} unavailable: {'; '.join(sample.reasons)}"
    lost = sample.expected - sample.usable
    why = f" ({sample.reasons[0]})" if sample.reasons else ""
    verb = "failed" if sample.status == "failed" else "missing"
    return f"{column.label} {verb} for {lost} of {sample.expected} images{why}"
