"""A table while it is put together: samples first, then comparisons, then cells.

Comparisons come before cells because Holm's correction needs the p-values of the whole table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from faithdiff.config import Profile
from faithdiff.report.cells import (
    HELD_OUT,
    Block,
    Cell,
    Column,
    Comparison,
    Mark,
    Row,
    Table,
    number,
)
from faithdiff.report.scores import Sample, ScoreBook, difference
from faithdiff.report.statistics import ALPHA, Draws, Estimate, estimate, holm, smallest_p

Place = tuple[int, str, int]  # block, method, column


class Draft:
    """Samples and comparisons of a table while it is put together."""

    def __init__(
        self,
        name: str,
        scores: pd.DataFrame,
        profile: Profile,
        columns: Sequence[Column],
        blocks: Sequence[Block],
        methods: Sequence[str],
    ) -> None:
        self.name, self.profile = name, profile
        self.columns, self.blocks, self.methods = columns, blocks, methods
        self.book = ScoreBook(scores)
        self.samples: dict[Place, Sample] = {
            (b, method, c): self.book.sample(
                method, column.metric, column.protocol, block.datasets, block.levels
            )
            for b, block in enumerate(blocks)
            for method in methods
            for c, column in enumerate(columns)
        }
        self.comparisons: dict[Place, Comparison] = {}
        self.against: dict[Place, Comparison] = {}
        self.marks: dict[Place, Mark] = {}
        self.shared_marks = False  # whether several rows are the runner-up of a column
        self.footnotes: list[str] = []

    def compare_leaders(self, among: Sequence[str]) -> None:
        """Compare the best with the runner-up of each column, and mark the two.

        Rows whose mean prints like that of the runner-up have its mark: nobody could tell from the
        table why one has it and the other has not.

        Args:
            among: The methods that take part.
        """
        pairs = [pair for b in range(len(self.blocks)) for pair in self._leaders(b, among)]
        self.comparisons = self._compare(pairs)
        for best, second in pairs:
            significant = self.comparisons[best].significant
            alike = [place for place in self._alike(second, among) if place != best]
            self.marks |= dict.fromkeys(alike, "second" if significant else "tie")
            self.marks[best] = "best" if significant else "tie"
            self.shared_marks |= len(alike) > 1

    def compare_with_first(self) -> None:
        """Compare each row with the first one."""
        self.compare(dict.fromkeys(self.methods[1:], self.methods[0]))

    def compare(self, references: Mapping[str, str]) -> None:
        """Compare rows with others.

        Args:
            references: The method that each one is compared with.
        """
        pairs = [
            (place, (place[0], references[place[1]], place[2]))
            for place in self.samples
            if place[1] in references
        ]
        # A comparison with a method that lacks images would be over fewer pictures than its
        # neighbours in the table, under the same caption.
        self.comparisons = self._compare([p for p in pairs if all(map(self._ok, p))])

    def compare_with_reference(self) -> None:
        """Compare each row with ``report.reference``, beside the comparison of the leaders.

        Corrected over the rivals of a column and not over the whole table: with ten pictures, no
        difference could be significant among its hundred and more comparisons.
        """
        if self.profile.reference not in self.methods:
            return
        pairs = self._with(self.profile.reference)
        # A reader asks of one column at a time which rivals fall behind, so that is the family.
        for column in dict.fromkeys((place[0], place[2]) for place, _ in pairs):
            self.against |= self._compare([p for p in pairs if (p[0][0], p[0][2]) == column])

    def _with(self, method: str) -> list[tuple[Place, Place]]:
        places = [place for place in self.samples if place[1] != method]
        pairs = [(place, (place[0], method, place[2])) for place in places]
        return [pair for pair in pairs if all(self._ok(place) for place in pair)]

    def _ok(self, place: Place) -> bool:
        return self.samples[place].status == "ok"

    def _leaders(self, block: int, among: Sequence[str]) -> Iterator[tuple[Place, Place]]:
        for c, column in enumerate(self.columns):
            places = [(block, method, c) for method in among]
            sign = -1 if column.higher_is_better else 1
            # Only the best two are tested. Testing all pairs would ask a question that bold print
            # does not answer, and pay for it in the correction.
            ranked = sorted(
                filter(self._ok, places), key=lambda place: sign * self.samples[place].array.mean()
            )
            if len(ranked) > 1:
                yield ranked[0], ranked[1]

    def _alike(self, place: Place, among: Sequence[str]) -> list[Place]:
        """The cells of a column that print the mean of this one; itself is one of them."""
        block, _, c = place
        places = filter(self._ok, ((block, method, c) for method in among))
        printed = {p: number(self.samples[p].array.mean(), self.columns[c]) for p in places}
        return [p for p in printed if printed[p] == printed[place]]

    def _compare(self, pairs: Sequence[tuple[Place, Place]]) -> dict[Place, Comparison]:
        found = [self._comparison(*pair) for pair in pairs]
        # Holm and not Bonferroni: the same guarantee under any dependence, and never less power.
        # Not Benjamini-Hochberg: one false bold cell is a false statement about a method.
        adjusted = holm([comparison.p for comparison in found])
        return {
            place: replace(comparison, p_holm=p)
            for (place, _), comparison, p in zip(pairs, found, adjusted, strict=True)
        }

    def _comparison(self, place: Place, other: Place) -> Comparison:
        found = self._estimate(place, difference(self.samples[place], self.samples[other]))
        return Comparison(
            other[1], found.mean, found.low, found.high, found.p,
            pictures=found.pictures, trainings=found.trainings,
        )  # fmt: skip

    def _estimate(self, place: Place, values: NDArray[np.float64]) -> Estimate:
        block, _, c = place
        where = (*self.blocks[block].datasets, *self.blocks[block].levels)
        # The place without the method: both rows of a comparison, and the same column of another
        # table, meet the same resamples, so equal differences print equal intervals.
        key = (*where, self.columns[c].protocol, self.columns[c].metric)
        report = self.profile.report
        return estimate(values, Draws(report.bootstrap, self.profile.seed, key))

    def finish(self) -> list[Block]:
        """Return the blocks with their rows; call after the comparisons."""
        return [
            replace(
                block,
                rows=tuple(
                    Row(
                        method,
                        self.profile.methods[method].label,
                        tuple(self._cell((b, method, c)) for c in range(len(self.columns))),
                    )
                    for method in self.methods
                ),
            )
            for b, block in enumerate(self.blocks)
        ]

    def _cell(self, place: Place) -> Cell:
        sample = self.samples[place]
        counts = Cell(
            sample.status, usable=sample.usable, expected=sample.expected, seeds=sample.seeds,
            reasons=sample.reasons,
        )  # fmt: skip
        if sample.status != "ok":
            return replace(counts, footnote=self._footnote(place))
        # The interval of the mean itself, for readers; two of them must not be compared by eye, as
        # the pictures are shared. What is tested is the paired difference above.
        found = self._estimate(place, sample.matrix)
        spread = sample.matrix.mean(axis=1)
        # What is not trained here is the same under every seed: its spread of 0 says nothing.
        trained = self.profile.updates_of(place[1]) is not None
        return replace(
            counts,
            mean=found.mean,
            low=found.low,
            high=found.high,
            mark=self.marks.get(place, ""),
            comparison=self.comparisons.get(place),
            against=self.against.get(place),
            pictures=sample.pictures,
            seed_sd=float(np.std(spread, ddof=1)) if trained and len(spread) > 1 else math.nan,
        )

    def _footnote(self, place: Place) -> int:
        text = _reason(self.samples[place], self.columns[place[2]])
        if text not in self.footnotes:
            self.footnotes.append(text)
        return self.footnotes.index(text) + 1

    def counts(self) -> str:
        """Say how many source pictures there are, for the caption."""
        sizes: dict[str, list[str]] = {}
        several_sets = len({block.datasets for block in self.blocks}) > 1
        for c, column in enumerate(self.columns):
            for b, block in enumerate(self.blocks):
                n = self._pictures(b, c)
                what = f"for the {column.label}" if column == HELD_OUT else ""
                where = block.group if several_sets and len(block.datasets) == 1 else ""
                part = " ".join(part for part in (str(n), where, what) if part)
                if n and part not in sizes.setdefault(what, []):
                    sizes[what].append(part)
        parts = [part for what in sorted(sizes) for part in sizes[what]]
        seeds = {len(sample.seeds) for sample in self.samples.values() if sample.status == "ok"}
        several = max(seeds, default=0)
        averaged = f"; {several} trainings, averaged per picture first" if several > 1 else ""
        return f"n = {', '.join(parts) or '0'}{averaged}"

    def _pictures(self, block: int, c: int) -> int:
        """Pictures of a column in a block, of whichever method has them all."""
        return max(self.samples[block, method, c].pictures for method in self.methods)

    def rule(self, tests: str, comparisons: Mapping[Place, Comparison] | None = None) -> str:
        """Say what `significant` means in this table; by default for the leaders' comparisons."""
        made = self.comparisons if comparisons is None else comparisons
        several = any(comparison.trainings > 1 for comparison in made.values())
        means = "crossed test over trainings and pictures" if several else "sign-flip test"
        return (
            f"a 95% paired interval without 0 ({self.profile.report.bootstrap:,} resamples) and "
            f"p < {ALPHA:.2g} of a {means} after Holm's correction over the {len(made)} {tests}"
            f"{out_of_reach(made, self.profile.report.bootstrap, len(made))}"
        )

    def table(self, caption: str, blocks: Sequence[Block], differences: bool) -> Table:
        """Put the table together; `blocks` come from :meth:`finish`."""
        images = {
            f"{column.protocol}/{column.metric}": {
                f"{dataset}/{level}": self.book.images(
                    column.metric, column.protocol, dataset, level
                )
                for block in self.blocks
                for dataset in block.datasets
                for level in block.levels
            }
            for column in self.columns
        }
        return Table(
            self.name, self.profile.profile, caption, tuple(self.columns), tuple(blocks),
            tuple(self.footnotes), images, differences,
        )  # fmt: skip


def out_of_reach(made: Mapping[Place, Comparison], draws: int, tests: int) -> str:
    """Say where there are too few pictures for a difference to survive the correction.

    Args:
        draws: Sign patterns that are drawn where they are not all counted.
        tests: Comparisons that the correction is over.
    """
    reached = {c.pictures: smallest_p(c.pictures, draws) for c in made.values()}
    few = [f"{p:.2g} at n = {n}" for n, p in sorted(reached.items()) if p * tests >= ALPHA]
    return f"(so few pictures limit p, before the correction, to {', '.join(few)})" if few else ""


def _reason(sample: Sample, column: Column) -> str:
    lost = f"{sample.expected - sample.usable} of {sample.expected} images"
    why = "; ".join(sample.reasons)
    if sample.status == "not run":
        return f"not run: no row of {column.metric} under {column.protocol} in scores.csv"
    if sample.status == "incomplete":
        return f"{lost} have no rows in scores.csv: finish the run, then collect again"
    if sample.status == "unavailable" and sample.usable == 0:
        return f"unavailable: {why}"
    return f"{sample.status} on {lost}: {why}"
