"""What is known of a published system: ``baselines/official/<method>.yaml``, and its settings."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field

from faithdiff.config import Name, Section, Unit, load_yaml
from faithdiff.data.artifacts import Artifact
from faithdiff.study.plain import JsonObject

FOLDER = Path(__file__).parent


class Definition(Section):
    """Repository, environment, weights and published settings of one system."""

    method: Name
    repository: str  # address for git
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    licence: str
    consent: bool = False  # the licence restricts use: `accept_licence: true` in the profile
    python: str  # version of the environment
    requirements: Path  # a lock, or a conda file; relative to the definition
    entry: str  # script, relative to the repository
    per: Unit  # what one call restores, as determinism demands; a profile may say otherwise
    gpu_gb: float  # smallest memory that users or authors report; 0: runs on a CPU as well
    artifacts: dict[str, PurePosixPath]  # of config/artifacts.yaml -> where the script looks for it
    settings: JsonObject  # published

    def weights(self, artifacts: dict[str, Artifact]) -> dict[str, tuple[Artifact, PurePosixPath]]:
        """The files it needs by name, with their places; a folder stands for all of its files."""
        found = {}
        for wanted, place in self.artifacts.items():
            for name, artifact in artifacts.items():
                if name == wanted:
                    found[name] = (artifact, place)
                elif name.startswith(f"{wanted}/"):
                    found[name] = (artifact, place / name.removeprefix(f"{wanted}/"))
        return found


class Common(Section):
    """Settings of every published system, beside those of its script."""

    definition: Path | None = None  # another file than ours, e.g. of a fork
    accept_licence: bool = False
    per: Unit | None = None
    fixed_seed: int | None = None  # the same for every image; None: keyed as everywhere else


class KeptCommon(Common):
    """And of those whose models can stay loaded from one image to the next."""

    # Where `per` is image: one process for all. False: a process for each, with the same results.
    keep_loaded: bool = True


OWN = frozenset(KeptCommon.model_fields)


def load_definition(method: str, file: Path | None) -> tuple[Definition, Path]:
    """Read a definition; the one of the suite where `file` is None."""
    path = file or FOLDER / f"{method}.yaml"
    return load_yaml(path, Definition), path
