"""What the audit reads of a revision beside scores and manifest: the profile, and the tables.

``report/manifest.py`` writes the profile into the manifest, ``report/records.py`` the tables. A
commit may be older than this code: what it did not record has a default here.
"""

from __future__ import annotations

from pydantic import AliasChoices, ConfigDict, Field

from faithdiff.study.records import Record

# --- The profile, as a manifest holds it ----------------------------------------------------------


class RecordedVariant(Record):
    """One of `variants`."""

    label: str = ""
    recipe: str = ""
    pretrain: bool = False


class RecordedBaseline(Record):
    """One of `baselines`."""

    label: str = ""
    trained: bool = False
    denoises: bool = False
    implementation: str = ""
    checkpoint_of: str | None = None


class RecordedScore(Record):
    """The section `score`."""

    metrics: tuple[str, ...] = ()
    protocols_file: str = ""


class RecordedReport(Record):
    """The section `report`."""

    protocol: str | None = None


class RecordedPrior(Record):
    """The section `prior`."""

    source: str = ""


class RecordedTraining(Record):
    """The section `training`."""

    processes: int = 1


class RecordedConfig(Record):
    """What the audit asks of a profile. Its differences are found in the whole of it instead."""

    device: str = "cpu"
    shards: int = 1
    prior: RecordedPrior = RecordedPrior()
    variants: dict[str, RecordedVariant] = Field(default_factory=dict)
    baselines: dict[str, RecordedBaseline] = Field(default_factory=dict)
    score: RecordedScore = RecordedScore()
    report: RecordedReport = RecordedReport()
    training: RecordedTraining = RecordedTraining()

    @property
    def labels(self) -> dict[str, str]:
        """How each method is printed."""
        methods: dict[str, RecordedBaseline | RecordedVariant] = {**self.baselines, **self.variants}
        return {name: method.label or name for name, method in methods.items()}

    @property
    def trained(self) -> list[str]:
        """The methods that are trained here."""
        return [*(name for name, each in self.baselines.items() if each.trained), *self.variants]

    def samples_from_prior(self, method: str) -> bool:
        """Whether a method samples from the prior: a variant, or a design on the frozen prior."""
        baseline = self.baselines.get(method, RecordedBaseline())
        return method in self.variants or baseline.denoises or bool(baseline.checkpoint_of)

    def checkpoint_of(self, method: str) -> str:
        """The method whose checkpoint a method restores with."""
        return self.baselines.get(method, RecordedBaseline()).checkpoint_of or method


# --- tables/<table>.cells.json --------------------------------------------------------------------


class RecordedCell(Record):
    """A cell of a printed table: its statistics, and what names the rows behind it."""

    # In the order of the file, in which `plain` gives them back. What this version does not know
    # stays with the cell, so that an explanation of an old table is complete.
    model_config = ConfigDict(extra="allow")

    block: str
    datasets: tuple[str, ...]
    levels: tuple[str, ...]
    method: str
    label: str
    group: str = ""
    updates: int | None = None
    metric: str
    protocol: str
    higher_is_better: bool
    printed: str = ""
    status: str = ""
    reasons: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    n: int = 0
    pictures: int = 0
    expected: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    mark: str = ""
    compared_with: str | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    # Tables of commits before 2026-12 say `separated`.
    significant: bool | None = Field(
        default=None, validation_alias=AliasChoices("significant", "separated")
    )
    seed_sd: float | None = None
    against: str | None = None
    against_difference: float | None = None
    against_low: float | None = None
    against_high: float | None = None
    against_p_holm: float | None = None
    against_significant: bool | None = Field(
        default=None, validation_alias=AliasChoices("against_significant", "against_separated")
    )

    @property
    def column(self) -> tuple[str, str]:
        """Metric and protocol."""
        return self.metric, self.protocol


class RecordedTable(Record):
    """A printed table; the rows behind a cell are of the images under its protocol and metric."""

    scores: str = ""
    caption: str = ""
    unmeasured: str = ""
    notes: tuple[str, ...] = ()
    groups: dict[str, str] = Field(default_factory=dict)
    images: dict[str, dict[str, tuple[str, ...]]]
    cells: dict[str, RecordedCell]
