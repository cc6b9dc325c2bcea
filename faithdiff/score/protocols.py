"""Protocols: named, complete definitions of how each metric is computed.

The same pair of images has a PSNR of 30.6, 34.1 or 35.4 dB on RGB, the Y of YIQ or the Y of YCbCr,
and papers seldom say which; so the definitions are data, in ``config/protocols.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from faithdiff.config import Name, Natural, Positive, Profile, Section, load_yaml
from faithdiff.data.artifacts import ARTIFACTS_FILE, Artifact, load_artifacts, quick_state, select
from faithdiff.errors import ConfigError

# What does not change a value: how it is printed, and what is said about it.
_PRESENTATION = {"label", "unit", "decimals", "higher_is_better"}


class MetricDefinition(Section):
    """How one metric is computed and printed; see the comments in ``config/protocols.yaml``."""

    library: Literal["pyiqa", "basicsr"] = "pyiqa"
    network: str
    options: dict[str, JsonValue]  # arguments of the library's own, whatever those are
    # constructor argument -> the artifact whose path it receives
    files: dict[str, Name] = Field(default_factory=dict)
    crop_border: Natural
    # Of the saved PNG: a float image scores otherwise than the file that anybody can look at.
    rounding: Literal["uint8"]
    # Too small is `unavailable` and not resized: a resized image is another image.
    min_size: Positive
    higher_is_better: bool
    needs_reference: bool
    artifacts: list[Name]
    label: str
    unit: str
    decimals: Natural

    @model_validator(mode="after")
    def _files_are_artifacts(self) -> MetricDefinition:
        if odd := sorted(set(self.files.values()) - set(self.artifacts)):
            raise ValueError(f"files: {odd[0]!r} is not among the artifacts")
        return self

    def computation(self) -> dict[str, JsonValue]:
        """The part that decides the value: equal computations are done once.

        Defaults are left out, so that a key which is new here changes no older value's digest.
        """
        # Not how it is printed: a new label must not throw away an hour of values.
        return self.model_dump(mode="json", exclude=_PRESENTATION, exclude_defaults=True)


class Protocol(Section):
    """Definitions by metric name."""

    description: str
    metrics: Annotated[dict[str, MetricDefinition], Field(min_length=1)]


class _ProtocolsFile(Section):
    protocols: dict[Name, Protocol]


def load_protocols(path: Path) -> dict[str, Protocol]:
    """Read the protocols, by name.

    Raises:
        ConfigError: The file does not fit the schema.
    """
    return load_yaml(path, _ProtocolsFile).protocols


def choose(
    protocols: dict[str, Protocol], names: Iterable[str], metrics: Iterable[str]
) -> dict[tuple[str, str], MetricDefinition]:
    """Pick the definitions of a profile: ``(protocol, metric) -> definition``.

    Raises:
        ConfigError: A protocol, or a metric in a protocol, is not defined.
    """
    chosen, wanted = {}, list(metrics)
    for name in names:
        if name not in protocols:
            raise ConfigError(f"score.protocols: {name!r} is not one of {', '.join(protocols)}")
        defined = protocols[name].metrics
        for metric in wanted:
            if metric not in defined:
                raise ConfigError(
                    f"score.metrics: protocol {name} has no {metric!r}; it has {', '.join(defined)}"
                )
            chosen[name, metric] = defined[metric]
    return chosen


def definitions_of(
    profile: Profile, metrics: Iterable[str] | None = None
) -> dict[tuple[str, str], MetricDefinition]:
    """What a profile computes (or would, of `metrics`): ``(protocol, metric) -> definition``."""
    protocols = load_protocols(profile.score.protocols_file)
    wanted = profile.score.metrics if metrics is None else metrics
    return choose(protocols, profile.score.protocols, wanted)


def weights_needed(
    profile: Profile, metrics: Iterable[str] | None = None, artifacts_file: Path = ARTIFACTS_FILE
) -> list[Artifact]:
    """The weights that a profile's metrics (or those of `metrics`) read."""
    definitions = definitions_of(profile, metrics).values()
    names = {name for definition in definitions for name in definition.artifacts}
    return select(load_artifacts(artifacts_file), names)


def files_needed(profile: Profile, artifacts_file: Path = ARTIFACTS_FILE) -> list[Artifact]:
    """What a profile needs from outside: the files listed for it, and what its metrics read."""
    listed = [a for a in load_artifacts(artifacts_file).values() if profile.profile in a.profiles]
    read = weights_needed(profile, artifacts_file=artifacts_file)
    return list({artifact.name: artifact for artifact in [*listed, *read]}.values())


def weights_state(profile: Profile, artifacts_file: Path = ARTIFACTS_FILE) -> dict[str, str]:
    """Tell a workflow which weights are here: ``artifact -> state``.

    The state is ``missing`` or the sha256; it changes when weights arrive, so that scoring runs
    again and fills in what was `unavailable`.
    """
    needed = weights_needed(profile, artifacts_file=artifacts_file)
    return {artifact.name: quick_state(artifact, profile.score.weights) for artifact in needed}
