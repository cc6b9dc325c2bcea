"""What the jobs of a profile ask of a queue: memory and minutes by rule, from one file."""

from __future__ import annotations

from pathlib import Path

from pydantic import RootModel

from faithdiff.config import Positive, Section, load_yaml
from faithdiff.config.yaml_file import Layers

RESOURCES = Path("config", "resources.yaml")
COMMON = "mini"  # the section that holds for every profile
OTHER = "other"  # the key of the rules that have none of their own


class Size(Section):
    """What a job asks for at its first attempt."""

    mem_mb: Positive
    runtime: Positive  # minutes


class Resources(RootModel[dict[str, dict[str, Size]]]):
    """Sizes by the name of a profile's file and by rule."""


class Sizes:
    """The sizes of one profile."""

    def __init__(self, file: Path) -> None:
        """Read the sections of a profile's file and of those that it extends.

        Raises:
            ConfigError: ``config/resources.yaml`` does not fit its schema.
        """
        sections = load_yaml(RESOURCES, Resources).root
        self._rules: dict[str, Size] = {}
        for name in (COMMON, *(each.stem for each in reversed(Layers.read(file).files))):
            self._rules |= sections.get(name, {})

    def of(self, rule: str) -> Size:
        """The size of a rule's first attempt."""
        return self._rules.get(rule, self._rules[OTHER])
