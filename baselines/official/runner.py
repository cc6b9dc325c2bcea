"""What all published systems share: code, environment, weights, and one command line per call."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

from baselines.official.checkout import Checkout
from baselines.official.definition import OWN, Common, load_definition
from faithdiff.config import Unit, parse
from faithdiff.data.artifacts import ARTIFACTS_FILE, Artifact, load_artifacts, quick_state
from faithdiff.data.images import sha256_file
from faithdiff.errors import UserError
from faithdiff.methods.external.command import CommandMethod, Task
from faithdiff.methods.external.environment import Environment
from faithdiff.methods.external.own import gpu_problem
from faithdiff.methods.external.process import Call
from faithdiff.methods.method import SetToRestore, Study
from faithdiff.study.plain import Json

# Weights are looked for where they are put, never fetched by a script in the middle of a run.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
Value = str | int | float | bool | Path


class Official(CommandMethod):
    """A published system. A subclass names its settings and how a call is made of them.

    Raises:
        ConfigError: The settings do not fit, or the definition does not.
    """

    method: ClassVar[str]
    schema: ClassVar[type[Common]]

    def __init__(self, settings: dict[str, Json], where: str) -> None:
        super().__init__()
        other = settings.get("definition")
        self.definition, self.file = load_definition(
            self.method, Path(str(other)) if other else None
        )
        # What the profile says stands above what was published; what it leaves out is as published.
        merged = {**self.definition.settings, **settings}
        self.chosen = parse(merged, self.schema, where)
        self.per = self.chosen.per or self.per_default()
        self.where = where
        # The key in the profile, which commands name; it need not be that of the system.
        self.name = where.partition("baselines.")[2].removesuffix(".settings") or self.method
        self.checkout = Checkout(self.method, self.definition.repository, self.definition.commit)
        requirements = self.file.parent / self.definition.requirements
        self.environment = Environment(requirements, self.definition.python)

    @abstractmethod
    def inputs(self, task: Task) -> dict[str, Value]:
        """The arguments that differ from call to call: folders, scale, seed."""

    def fixed(self) -> dict[str, Value]:
        """The arguments of every call: the settings, by the names that the script gives them."""
        return self.chosen.model_dump(exclude=set(OWN), exclude_none=True)

    def per_default(self) -> Unit:
        """What one call restores where the profile does not say."""
        return self.definition.per

    def configure(self, folder: Path) -> None:
        """Write what the script reads from files of its repository; nothing by default."""

    def arguments(self, task: Task) -> list[str]:
        """The command line after the script's name; true becomes a bare flag, false nothing."""
        line: list[str] = []
        for name, value in {**self.inputs(task), **self.fixed()}.items():
            if value is True:
                line.append(f"--{name}")
            elif value is not False:
                line += [f"--{name}", str(value)]
        return line

    def seed(self, task: Task) -> int:
        """The seed of a call."""
        fixed = self.chosen.fixed_seed
        return task.seed if fixed is None else fixed

    def call(self, task: Task) -> Call:
        log = task.folder / "log.txt"
        return self.python(self.definition.entry, *self.arguments(task), log=log)

    def python(self, *words: str, log: Path) -> Call:
        """A call of Python in the checkout, in the system's own environment."""
        variables = {**self.environment.variables(), **OFFLINE}
        command = ["python", "-u", *words]
        return Call(command, self.checkout.folder, variables, log, self.minutes)

    def settings(self, study: Study) -> dict[str, Json]:
        weights = study.profile.score.weights
        return {
            "repository": self.definition.repository,
            "commit": self.definition.commit,
            "arguments": {key: str(value) for key, value in sorted(self.fixed().items())},
            "fixed_seed": self.chosen.fixed_seed,
            "per": self.per,
            "environment": self.environment.identity(),
            "weights": {name: quick_state(a, weights) for name, (a, _) in self._weights.items()},
        }

    def needs(self, study: Study) -> list[str]:
        found = self._consent() + self.unprepared(study) + self._missing_weights(study)
        return found + gpu_problem(self.definition.gpu_gb) + self.more_needs()

    def unprepared(self, study: Study) -> list[str]:
        found = []
        prepare = f"faithdiff baseline prepare {self.name} --config {study.file}"
        if problem := self.checkout.problem():
            found.append(f"{problem}; get it with: {prepare}")
        if not self.environment.ready:
            found.append(f"its environment ({self.environment.source.name}) is not made: {prepare}")
        return found

    def _missing_weights(self, study: Study) -> list[str]:
        root = study.profile.score.weights
        missing = [a for a in self.artifacts() if not a.file(root).is_file()]
        if not missing:
            return []
        size = sum(artifact.megabytes for artifact in missing) / 1000
        return [
            f"weights are missing ({size:.2f} GB): {', '.join(a.name for a in missing)}; get them "
            f"with: faithdiff fetch --baseline {self.name} --config {study.file}"
        ]

    def more_needs(self) -> list[str]:
        """What else is missing, by the settings."""
        return []

    def _consent(self) -> list[str]:
        if not self.definition.consent or self.chosen.accept_licence:
            return []
        return [
            f"licence: {self.definition.licence}. If you accept it, write `accept_licence: true` "
            f"under {self.where}"
        ]

    def prepare(self, study: Study) -> dict[str, Json]:
        if problem := self._consent():
            raise UserError(f"{self.name}: {problem[0]}")
        self.checkout.make()
        self.environment.make()
        return {
            "repository": self.definition.repository,
            "commit": self.definition.commit,
            "licence": self.definition.licence,
            "packages": self.environment.packages(),
        }

    def restore_set(self, wanted: SetToRestore) -> dict[str, str]:
        # With something missing the call below says what, before anything is written.
        if not self.needs(wanted.study):
            self._link(wanted.study.profile.score.weights)
            self.configure(self.checkout.folder)
        return super().restore_set(wanted)

    def record(self) -> dict[str, Json]:
        return {**super().record(), "packages": self.environment.packages()}

    @cached_property
    def _weights(self) -> dict[str, tuple[Artifact, PurePosixPath]]:
        return self.definition.weights(load_artifacts(ARTIFACTS_FILE))

    def artifacts(self) -> list[Artifact]:
        """What `faithdiff fetch --baseline` brings."""
        return [artifact for artifact, _ in self._weights.values()]

    def _link(self, root: Path) -> None:
        """Show the script its weights where it looks for them."""
        for artifact, place in self._weights.values():
            target = self.checkout.folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            # Always anew: a file that the script fetched once, or a link to moved weights, would be
            # read without a word.
            target.unlink(missing_ok=True)
            target.symlink_to(artifact.file(root).absolute())

    def state(self, study: Study) -> Json:
        return [self.settings(study), sha256_file(self.file)]
