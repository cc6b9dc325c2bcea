"""What the jobs of a profile ask of a queue: memory and minutes by rule, from one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import RootModel

from faithdiff.config import Positive, Section, load_yaml

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
        for name in (COMMON, *reversed(list(_names(file)))):
            self._rules |= sections.get(name, {})

    def of(self, rule: str) -> Size:
        """The size of a rule's first attempt."""
        return self._rules.get(rule, self._rules[OTHER])


def _names(file: Path) -> Iterator[str]:
    """Names of a profile's file and of those that it extends, nearest first."""
    yield file.stem
    base = yaml.safe_load(file.read_text(encoding="utf-8")).get("extends")
    if base is not None:
        yield from _names(file.parent / str(base))
