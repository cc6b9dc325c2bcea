"""A table while it is put together: samples first, then comparisons, then cells.

Comparisons come before cells because Holm's correction needs the p-values of the whole table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from faithdiff.config import Profile
from faithdiff.report.cells import HELD_OUT, Block, Cell, Column, Comparison, Mark, Row, Table
from faithdiff.report.scores import Sample, ScoreBook
from faithdiff.report.statistics import ALPHA, holm, paired_bootstrap, sign_flip_test
from faithdiff.seeds import numpy_rng

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
        self.marks: dict[Place, Mark] = {}
        self.footnotes: list[str] = []

    def compare_leaders(self, among: Sequence[str]) -> None:
        """Compare the best with the runner-up of each column, and mark the two.

        Args:
            among: The methods that take part.
        """
        pairs = [pair for b in range(len(self.blocks)) for pair in self._leaders(b, among)]
        self._compare(pairs)
        for best, second in pairs:
            separated = self.comparisons[best].separated
            self.marks[best], self.marks[second] = (
                ("best", "second") if separated else ("tie", "tie")
            )

    def compare_with_first(self) -> None:
        """Compare each row with the first one."""
        first = self.methods[0]
        places = [place for place in self.samples if place[1] != first]
        pairs = [(place, (place[0], first, place[2])) for place in places]
        self._compare([pair for pair in pairs if all(self._ok(place) for place in pair)])

    def _ok(self, place: Place) -> bool:
        return self.samples[place].status == "ok"

    def _leaders(self, block: int, among: Sequence[str]) -> Iterator[tuple[Place, Place]]:
        for c, column in enumerate(self.columns):
            places = [(block, method, c) for method in among]
            sign = -1 if column.higher_is_better else 1
            ranked = sorted(
                filter(self._ok, places), key=lambda place: sign * self.samples[place].array.mean()
            )
            if len(ranked) > 1:
                yield ranked[0], ranked[1]

    def _compare(self, pairs: Sequence[tuple[Place, Place]]) -> None:
        found = [self._comparison(*pair) for pair in pairs]
        adjusted = holm([comparison.p for comparison in found])
        for (place, _), comparison, p in zip(pairs, found, adjusted, strict=True):
            self.comparisons[place] = replace(comparison, p_holm=p)

    def _comparison(self, place: Place, other: Place) -> Comparison:
        difference = self.samples[place].array - self.samples[other].array
        n = self.profile.report.bootstrap
        low, high = paired_bootstrap(difference, n, self._rng("bootstrap", place, other[1]))
        p = sign_flip_test(difference, n, self._rng("sign-flip", place, other[1]))
        return Comparison(other[1], float(difference.mean()), low, high, p)

    # Keyed by what is resampled, so that adding a row or a column changes no other number.
    def _rng(self, purpose: str, place: Place, *key: str) -> np.random.Generator:
        block, method, c = place
        column = self.columns[c]
        where = (*self.blocks[block].datasets, *self.blocks[block].levels)
        cell = (column.metric, column.protocol, method, *key)
        return numpy_rng(self.profile.seed, purpose, *where, *cell)

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
        n = self.profile.report.bootstrap
        low, high = paired_bootstrap(sample.array, n, self._rng("bootstrap", place))
        return replace(
            counts,
            mean=float(sample.array.mean()),
            low=low,
            high=high,
            mark=self.marks.get(place, ""),
            comparison=self.comparisons.get(place),
        )

    def _footnote(self, place: Place) -> int:
        text = _reason(self.samples[place], self.columns[place[2]])
        if text not in self.footnotes:
            self.footnotes.append(text)
        return self.footnotes.index(text) + 1

    def counts(self) -> str:
        """Say how many images there are, for the caption."""
        sizes: dict[str, list[str]] = {}
        for c, column in enumerate(self.columns):
            for b, block in enumerate(self.blocks):
                n = self.samples[b, self.methods[0], c].expected
                what = f"for the {column.label}" if column == HELD_OUT else ""
                where = block.group if len(block.datasets) == 1 else ""
                part = " ".join(part for part in (str(n), where, what) if part)
                if n and part not in sizes.setdefault(what, []):
                    sizes[what].append(part)
        parts = [part for what in sorted(sizes) for part in sizes[what]]
        seeds = {len(sample.seeds) for sample in self.samples.values() if sample.status == "ok"}
        averaged = "; seeds averaged per image first" if max(seeds, default=0) > 1 else ""
        return f"n = {', '.join(parts) or '0'}{averaged}"

    def rule(self, tests: str) -> str:
        """Say what `separated` means in this table."""
        return (
            f"a 95% paired bootstrap interval without 0 ({self.profile.report.bootstrap:,} "
            f"resamples) and a sign-flip p < {ALPHA:.2g} after Holm's correction over the "
            f"{len(self.comparisons)} {tests}"
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


def _reason(sample: Sample, column: Column) -> str:
    lost = f"{sample.expected - sample.usable} of {sample.expected} images"
    why = "; ".join(sample.reasons)
    if sample.status == "not run":
        return f"not run: no row of {column.metric} under {column.protocol} in scores.csv"
    if sample.status == "incomplete":
        return f"{lost} lack rows in scores.csv: finish the run, then collect again"
    if sample.status == "unavailable" and sample.usable == 0:
        return f"unavailable: {why}"
    return f"{sample.status} on {lost}: {why}"
