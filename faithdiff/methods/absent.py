"""Test sets and baselines that a study goes on without, where a person asked for that.

They are written down beside the results when a run starts, so that every job and every later
command sees one study: the profile without them. :mod:`faithdiff.planning.missing` looks for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from faithdiff.config import Name, Profile, Section, load_yaml
from faithdiff.config.yaml_file import dump_yaml
from faithdiff.errors import ConfigError

FILE = "unavailable.yaml"  # in the folder of the results


class AbsentSet(Section):
    """A test set that is not there."""

    why: str
    levels: list[Name]  # at which it would be restored


class Absent(Section):
    """What a study goes on without, each with the reason and the way to get it."""

    datasets: dict[Name, AbsentSet] = Field(default_factory=dict)
    baselines: dict[Name, str] = Field(default_factory=dict)

    @classmethod
    def read(cls, results: Path) -> Absent:
        """What was written beside these results; nothing where they are of a whole study."""
        file = results / FILE
        return load_yaml(file, cls) if file.is_file() else cls()

    def __bool__(self) -> bool:
        return bool(self.datasets or self.baselines)

    def text(self) -> str:
        """The content of the file."""
        return (
            "# Written by snakemake for --config allow_missing=true: the study without these.\n"
            + dump_yaml(self.model_dump(mode="json"))
        )

    def taken_from(self, profile: Profile) -> Profile:
        """The profile without them.

        Raises:
            ConfigError: All else is compared with a method that is not there.
        """
        if profile.reference in self.baselines:
            raise ConfigError(
                f"report: every row is compared with {profile.reference}, which is not there: "
                f"{self.baselines[profile.reference]}"
            )
        test = {n: each for n, each in profile.data.test.items() if n not in self.datasets}
        rows = {
            table: [name for name in getattr(profile.report, table) if name not in self.baselines]
            for table in ("main", "ablation")
        }
        return profile.model_copy(
            update={
                "data": profile.data.model_copy(update={"test": test}),
                "baselines": {
                    n: each for n, each in profile.baselines.items() if n not in self.baselines
                },
                "report": profile.report.model_copy(update=rows),
            }
        )

    def lines(self) -> Iterator[str]:
        """A line for each, for the person who reads the end of a run."""
        for name, absent in self.datasets.items():
            yield f"test set {name}: unavailable: {absent.why}"
        for name, why in self.baselines.items():
            yield f"baseline {name}: unavailable: {why}"
