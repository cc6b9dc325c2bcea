"""What the scores say on one metric of a claim: its mean, interval and test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from faithdiff.claims.schema import Claim, Expect, GainTest, Kind, TrendTest
from faithdiff.claims.verdict import Verdict, Window
from faithdiff.config import Profile
from faithdiff.report.cells import HELD_OUT, Column
from faithdiff.report.scores import KEY, Sample, ScoreBook, difference
from faithdiff.report.statistics import CONFIDENCE, Draws, Estimate, Floats, estimate, quantile
from faithdiff.score.protocols import load_protocols

# surrogate: decides in place of a metric that was not measured. second: has a verdict of its own.
Role = Literal["decides", "surrogate", "second", "beside"]


@dataclass(frozen=True)
class Contrast:
    """What is averaged: samples ``(method, level)``; no level means all of them.

    One is a value, two are a difference, four a difference of two differences.

    Attributes:
        text: How it reads: ``FaithDiff over SeeSR``.
        paired: Whether it is a difference, and so has a direction.
        missing: Why it cannot be run in this profile; empty where it can.
        updates: Of the training of each method, by its label; None where nothing trains it.
    """

    text: str
    terms: tuple[tuple[str, str], ...]
    paired: bool
    missing: str = ""
    updates: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """One metric of one contrast.

    Attributes:
        speaks_for: The expected metrics that it decides.
        rule: The direction that the claim states; empty where it prints a value.
        window: What would reproduce a printed value, in the metric's unit; NaN without one.
        matters: The smallest gain of interest; NaN without a direction.
        reason: Why nothing was measured; empty where something was.
        value: Mean over pictures; of a published number over images, as it is published.
        low: Bounds of its 95% interval, with `high`; of a published number over seeds. NaN where
            nothing is known of the spread.
        found: The estimate of a gain whose direction is tested; None of what is published, which is
            of a fixed test set.
        p_holm: Its p after correction over all claims.
        singly: The same of each training alone, by seed, where there are several.
        per_seed: Means of single trainings, where there are several.
        verdict: Of this metric alone.
    """

    contrast: Contrast
    column: Column
    role: Role
    speaks_for: tuple[str, ...] = ()
    printed: str = ""
    rule: str = ""
    window: Window = (math.nan, math.nan)
    matters: float = math.nan
    reason: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    found: Estimate | None = None
    p_holm: float = math.nan
    n: int = 0
    seeds: tuple[int, ...] = ()
    singly: Mapping[int, Estimate] = field(default_factory=dict)
    per_seed: tuple[float, ...] = ()
    verdict: Verdict = "not run"

    @property
    def measured(self) -> bool:
        """Whether there is a value."""
        return self.n > 0

    @property
    def tested(self) -> bool:
        """Whether it is tested for a direction, and so belongs to the family of the correction."""
        return self.found is not None and self.role != "beside"


class Meter:
    """Measures claims on the scores of a profile."""

    def __init__(self, scores: pd.DataFrame, profile: Profile) -> None:
        self.profile = profile
        ordered = scores.sort_values(KEY, ignore_index=True)  # sums of floats depend on the order
        self._by_picture = ScoreBook(ordered)
        # Papers average over images; a mean over pictures would be another number than the printed.
        self._by_image = ScoreBook(ordered, by="image")
        self._protocols = load_protocols(profile.score.protocols_file)

    def method(self, name: str, kind: Kind) -> str | None:
        """Name in the profile of a method; None where the profile has no such one.

        A published claim names systems by their labels, which a controlled baseline does not have;
        a mechanism names methods that are trained here, and no published system of that name; a
        finding of our own may name both.
        """
        labels = {each.label: key for key, each in self.profile.methods.items()}
        if kind == "published":
            return labels.get(name)
        known = self.profile.methods.get(name)
        hidden = kind == "mechanism" and known is not None and known.published
        return None if known is None or hidden else name

    def label(self, method: str) -> str:
        """How a method is printed; its name where the profile lacks it."""
        known = self.profile.methods.get(method)
        return known.label if known else method

    def updates(self, methods: Sequence[str]) -> dict[str, int | None]:
        """Updates of the training of each method, by its label."""
        return {self.label(name): self.profile.updates_of(name) for name in dict.fromkeys(methods)}

    def column(self, metric: str, protocol: str) -> Column:
        """How a metric is printed and which way is better."""
        if metric == HELD_OUT.metric:
            return HELD_OUT
        known = self._protocols.get(protocol)
        found = known.metrics.get(metric) if known else None
        if found is None:  # never measured: which way is better is not known either
            return Column(metric, protocol, metric, "", 4, higher_is_better=True)
        return Column(
            metric, protocol, found.label, found.unit, found.decimals, found.higher_is_better
        )

    def _defines(self, protocol: str, metric: str) -> bool:
        known = self._protocols.get(protocol)
        return known is not None and metric in known.metrics

    def places(self, claim: Claim) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Test sets and levels of a claim."""
        data = self.profile.data
        return tuple(claim.data.datasets or data.with_hq), tuple(claim.data.levels or data.levels)

    def measure(
        self, claim: Claim, contrast: Contrast, expect: Expect, role: Role, matters: float | None
    ) -> Measured:
        """Average a metric; no verdict yet, which needs the other claims' p."""
        column = self.column(expect.metric, claim.protocol)
        empty = Measured(
            contrast, column, role, (expect.metric,), expect.printed or "", expect.rule or "",
            _window(expect), math.nan if matters is None else matters, contrast.missing,
        )  # fmt: skip
        if contrast.missing:
            return empty
        # Never by a protocol that is merely similar: RGB and Y alone differ by 3 to 5 dB.
        if column != HELD_OUT and not self._defines(claim.protocol, expect.metric):
            return replace(empty, reason=f"protocol {claim.protocol} has no {expect.metric}")
        # A published mean is of the images of a fixed test set, whatever they were cut from.
        fixed = claim.kind == "published" or not expect.rule
        book = self._by_image if fixed else self._by_picture
        values = self._values(book, claim, contrast, column)
        if isinstance(values, str):
            return replace(empty, reason=values)
        array, seeds = values
        # One mean per training; what they differ by is all that a fixed test set leaves to chance.
        means = array.mean(axis=1)
        per_seed = tuple(map(float, means)) if len(means) > 1 else ()
        known = replace(
            empty, value=float(array.mean(axis=0).mean()), n=array.shape[1], seeds=seeds,
            per_seed=per_seed,
        )  # fmt: skip
        if fixed:
            low, high = _over_seeds(means)
            return replace(known, low=low, high=high)
        draws = self._draws(claim, column)
        found = estimate(array, draws)
        singly = {
            seed: estimate(row[None], draws)
            for seed, row in zip(seeds, array, strict=False)
            if len(array) > 1
        }
        return replace(known, low=found.low, high=found.high, found=found, singly=singly)

    def _values(
        self, book: ScoreBook, claim: Claim, contrast: Contrast, column: Column
    ) -> tuple[Floats, tuple[int, ...]] | str:
        """``(trainings, pictures)`` of a contrast, positive where better; or why there are none."""
        datasets, levels = self.places(claim)
        samples = []
        for method, level in contrast.terms:
            sample = book.sample(
                method, column.metric, column.protocol, datasets, (level,) if level else levels
            )
            if sample.status != "ok":
                return f"{self.label(method)}: {_why(sample, column)}"
            samples.append(sample)
        pairs = list(zip(samples[::2], samples[1::2], strict=False))
        try:
            parts = [difference(*pair) for pair in pairs] or [samples[0].matrix]
        except ValueError as error:
            return f"{contrast.text}: {column.label}: {error}"
        # A trend is a difference of differences on the same pictures: whether the gain grows with
        # the degradation, and not whether one of two gains passes a test and the other does not.
        total = parts[0] - parts[1] if len(parts) > 1 else parts[0]
        # Turned so that a gain is positive in every metric, and one rule judges them all.
        sign = 1 if column.higher_is_better or not contrast.paired else -1
        seeds = next((s.seeds for s in samples if len(s.seeds) == len(total)), samples[0].seeds)
        return sign * total, seeds

    def _draws(self, claim: Claim, column: Column) -> Draws:
        datasets, levels = self.places(claim)
        # Keyed by place and not by claim: a claim that is added changes no number of another.
        key = ("claims", *datasets, *levels, column.protocol, column.metric)
        return Draws(self.profile.report.bootstrap, self.profile.seed, key)


def contrasts(claim: Claim, meter: Meter) -> list[Contrast]:
    """What a claim averages; a contrast whose methods the profile lacks says so."""
    published, test = claim.kind == "published", claim.test
    names = [test.method, *_others(test)]
    found = {name: meter.method(name, claim.kind) for name in names}
    kind = "labelled" if published else "named"

    def contrast(text: str, terms: Sequence[tuple[str, str]]) -> Contrast:
        used = dict.fromkeys(name for name, _ in terms)
        if absent := [name for name in used if found[name] is None]:
            missing = f"the profile has no method {kind} {' and none '.join(map(repr, absent))}"
            if theirs := [name for name in absent if name in meter.profile.methods]:
                missing += f" that is trained here ({theirs[0]!r} is a published system)"
            return Contrast(text, (), len(used) > 1, missing)
        keys = {name: str(found[name]) for name in used}
        resolved = tuple((keys[name], level) for name, level in terms)
        updates = meter.updates(list(keys.values()))
        return Contrast(text, resolved, len(used) > 1, updates=updates)

    label = {name: meter.label(found[name] or name) for name in names}
    own = test.method
    if isinstance(test, TrendTest):
        return [
            contrast(
                f"{label[own]} over {label[test.over]}, Level {test.at} beyond Level {level}",
                [(own, test.at), (test.over, test.at), (own, level), (test.over, level)],
            )
            for level in test.beyond
        ]
    if isinstance(test, GainTest):
        return [
            contrast(f"{label[own]} over {label[name]}", [(own, ""), (name, "")])
            for name in test.over
        ]
    return [contrast(label[own], [(own, "")])]


def _others(test: object) -> list[str]:
    if isinstance(test, GainTest):
        return test.over
    return [test.over] if isinstance(test, TrendTest) else []


def _window(expect: Expect) -> Window:
    """What is accepted around a printed value, which is itself rounded."""
    if expect.value is None or expect.within is None:
        return math.nan, math.nan
    # The printed value stands for all that round to it, so half a digit belongs to the window.
    room = expect.within + expect.precision
    return expect.value - room, expect.value + room


def _over_seeds(means: Floats) -> Window:
    """Interval of a mean over repetitions: degradations, samplers and trainings drawn anew."""
    k = len(means)
    if k < 2:
        return math.nan, math.nan
    # Student's t and not a normal quantile: of three seeds the spread itself is hardly known, and
    # 1.96 would make the interval less than half as wide as it has to be (4.30).
    reach = quantile(0.5 + CONFIDENCE / 2, k) * float(np.std(means, ddof=1)) / k**0.5
    return float(means.mean()) - reach, float(means.mean()) + reach


def _why(sample: Sample, column: Column) -> str:
    if sample.status == "not run":
        return f"no rows of {column.metric}@{column.protocol} in scores.csv"
    if sample.status == "unavailable":
        return f"{column.label} unavailable: {'; '.join(sample.reasons)}"
    lost = sample.expected - sample.usable
    why = f" ({sample.reasons[0]})" if sample.reasons else ""
    verb = "failed" if sample.status == "failed" else "missing"
    return f"{column.label} {verb} for {lost} of {sample.expected} images{why}"
