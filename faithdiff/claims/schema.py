"""``config/claims.yaml``: what is claimed, where, how precisely, and what would count as a yes.

A claim is tested on *gains*: how much better one method is than another on the same pictures,
positive where it is better, whichever way the metric counts. What all claims share stands at the
top of the file: the smallest gain that matters in each metric, and which surrogates decide where a
metric of the paper was not measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from faithdiff.config import Name, Rate, Section, load_yaml
from faithdiff.report.cells import HELD_OUT

CLAIMS = Path("config", "claims.yaml")
Kind = Literal["published", "mechanism", "finding"]
Words = Annotated[list[str], Field(min_length=1)]
# all: the claim is of each contrast, and one that was not run keeps it from a verdict.
# present: of those contrasts whose methods the profile has; the others are named.
# agreement: the contrasts are readings of one question, open until all of them give one answer.
Need = Literal["all", "present", "agreement"]


class ClaimSource(Section):
    """Where the claim stands."""

    document: str
    table: str
    row: str
    confidence: Literal["high", "medium", "low"]  # that this is what the document says
    note: str = ""


class Scope(Section):
    """Test sets and levels; an empty list is all of the profile's."""

    datasets: tuple[Name, ...] = ()
    levels: tuple[Name, ...] = ()


class Expect(Section):
    """One metric and its two-sided rule: a printed value with a window, or a direction.

    A window refuses what is too good as well; against a direction, the other one is the refusal.
    """

    metric: str
    printed: Annotated[str, Field(pattern=r"^[+-]?\d+(\.\d+)?$")] | None = None
    within: Rate | None = None  # of the printed value, in its unit
    rule: Literal["better", "worse"] | None = None

    @property
    def value(self) -> float | None:
        """The printed value."""
        return None if self.printed is None else float(self.printed)

    @property
    def precision(self) -> float:
        """Half a unit of the last printed digit."""
        return 0.5 * 10.0 ** -len((self.printed or "").partition(".")[2])

    @model_validator(mode="after")
    def _one_rule(self) -> Expect:
        if (self.printed is None) != (self.within is None):
            raise ValueError("printed and within belong together")
        if (self.printed is None) == (self.rule is None):
            raise ValueError("give one of: printed with within, or rule")
        if self.within is not None and self.within < self.precision:
            raise ValueError(
                f"within {self.within:g} is finer than {self.printed} is printed "
                f"(half a unit: {self.precision:g})"
            )
        return self


class ValueTest(Section):
    """The mean of one method."""

    kind: Literal["value"]
    method: str


class GainTest(Section):
    """The gain of a method over each of the others, picture by picture."""

    kind: Literal["gain"]
    method: str
    over: Words
    need: Need = "all"


class TrendTest(Section):
    """The gain of a method over another at one level, beyond their gain at the other levels."""

    kind: Literal["trend"]
    method: str
    over: str
    at: Name
    beyond: Words


class SecondsTest(Section):
    """The time that a method takes; comparable on the same hardware alone."""

    kind: Literal["seconds"]
    method: str
    hardware: str
    measure: str  # the command that would measure it


Test = Annotated[ValueTest | GainTest | TrendTest | SecondsTest, Field(discriminator="kind")]


class Claim(Section):
    """One claim; see ``config/claims.yaml`` for what each key does."""

    id: Name
    kind: Kind
    statement: str
    source: ClaimSource
    protocol: Name
    data: Scope = Scope()
    test: Test
    expect: Annotated[list[Expect], Field(min_length=1)]
    second: tuple[Expect, ...] = ()  # surrogates with a verdict of their own, printed separately
    beside: tuple[str, ...] = ()
    # Where it is not what the file says for all claims.
    matters: dict[str, Rate] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Claim:
        metrics = [each.metric for each in (*self.expect, *self.second)]
        metrics += self.beside
        if twice := sorted({name for name in metrics if metrics.count(name) > 1}):
            raise ValueError(f"metric {twice[0]!r} is named twice")
        if self.kind == "published" and self.second:
            raise ValueError("second: no other metric speaks for a published number")
        if self.kind == "published" and not (self.data.datasets and self.data.levels):
            raise ValueError("data: a published claim names its datasets and levels")
        if isinstance(self.test, ValueTest | SecondsTest) and any(e.rule for e in self.expect):
            raise ValueError("expect: a value needs printed and within; a direction needs a gain")
        return self


class Claims(Section):
    """The whole file."""

    # Per metric, in its unit: a smaller gain is of no interest.
    matters: dict[str, Rate] = Field(default_factory=dict)
    # Of a metric that was not measured, in this order.
    surrogates: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    claims: Annotated[list[Claim], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Claims:
        ids = [claim.id for claim in self.claims]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"claims: the id {twice[0]!r} occurs twice")
        for claim in self.claims:
            for metric in self._directed(claim):
                if self.matters_of(claim, metric) is None:
                    raise ValueError(
                        f"claims: {claim.id}: say in `matters` which gain in {metric} matters"
                    )
        return self

    def _directed(self, claim: Claim) -> list[str]:
        """Metrics in which a claim may be decided by the direction of a tested gain."""
        if claim.kind == "published":
            return []
        named = [each.metric for each in (*claim.expect, *claim.second) if each.rule]
        found = named + [other for name in named for other in self.surrogates_of(claim, name)]
        return list(dict.fromkeys(found))

    def matters_of(self, claim: Claim, metric: str) -> float | None:
        """The smallest gain that matters; None for a metric that decides no direction."""
        return claim.matters.get(metric, self.matters.get(metric))

    def surrogates_of(self, claim: Claim, metric: str) -> tuple[str, ...]:
        """Metrics that decide in place of one; none where a published number is at stake."""
        return () if claim.kind == "published" else self.surrogates.get(metric, ())

    @property
    def surrogate_metrics(self) -> set[str]:
        """Metrics that speak for others: what they decide is no reproduction."""
        second = {each.metric for claim in self.claims for each in claim.second}
        return {HELD_OUT.metric} | second | {n for names in self.surrogates.values() for n in names}


def load_claims(file: Path = CLAIMS) -> Claims:
    """Read the claims.

    Raises:
        ConfigError: The file is missing or does not fit the schema; names file and field.
    """
    return load_yaml(file, Claims)
