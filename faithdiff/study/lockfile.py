"""``dvc.lock``: the hashes of the outputs that DVC recorded, and the settings that made them."""

from __future__ import annotations

from typing import TypedDict

import yaml
from pydantic import JsonValue

from faithdiff.study.files import left_by_git

LOCK = "dvc.lock"


class LockedOutput(TypedDict, total=False):
    """An output of a stage; a folder has `nfiles` and a hash that ends with ``.dir``."""

    path: str
    md5: str
    size: int
    nfiles: int


class LockedStage(TypedDict, total=False):
    """A stage; `params` are values by file and dotted key."""

    params: dict[str, dict[str, JsonValue]]
    outs: list[LockedOutput]


def stage_name(profile: str) -> str:
    """Name of the stage in ``dvc.yaml`` that lists the outputs of a profile."""
    return f"study@{profile}"


def locked_stages(content: bytes) -> dict[str, LockedStage]:
    """Read the stages of a lock file, by name.

    Raises:
        ValueError: It is not a lock file of DVC; with the way out.
    """
    try:
        # The C loader is ten times faster, and a lock file has thousands of lines.
        stages = yaml.load(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
        outputs = [output for stage in stages.values() for output in stage.get("outs", [])]
        whole = all({"path", "md5"} <= output.keys() for output in outputs)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(
            left_by_git(content, LOCK)
            or f"is not a lock file of DVC; get it back with: git checkout {LOCK}"
        )
    return stages
