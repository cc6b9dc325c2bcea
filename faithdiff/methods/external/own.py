"""The user's own method: a folder of its outputs, or a command (docs/add-a-method.md)."""

from __future__ import annotations

import functools
import shlex
import string
import sys
from dataclasses import replace
from pathlib import Path

from faithdiff.config import OwnCommand, OwnOutputs, digest
from faithdiff.data.images import sha256_file
from faithdiff.data.outside import contents, files_in
from faithdiff.errors import ConfigError, UserError
from faithdiff.methods.external.command import CommandMethod, Task
from faithdiff.methods.external.environment import Environment, inherited
from faithdiff.methods.external.named import named_in
from faithdiff.methods.external.process import Call, gpu_memory
from faithdiff.methods.external.results import images_in, other_files, strangers, take
from faithdiff.methods.method import Item, Method, Place, SetToRestore, Study
from faithdiff.study.plain import Json

IN_OUTPUTS = ("dataset", "level", "seed")
IN_COMMAND = ("lq", "out", "seed", "scale", "captions")


def build(config: OwnOutputs | OwnCommand, where: str, name: str) -> Method:
    """Make the method of a section; `where` opens messages, as ``file: baselines.name``.

    Raises:
        ConfigError: A placeholder is unknown, or one is missing.
    """
    if isinstance(config, OwnOutputs):
        return Outputs(config, where)
    return Command(config, where, name)


class Outputs(Method):
    """Restored images that are there already."""

    whole_sets = True
    stops_without_needs = True
    given = True

    def __init__(self, config: OwnOutputs, where: str) -> None:
        self.config, self.where = config, where
        used = _placeholders(config.outputs, IN_OUTPUTS, f"{where}.outputs")
        if not used & {"dataset", "level"}:
            self.pattern = f"{config.outputs}/{{dataset}}/{{level}}"
        else:
            self.pattern = config.outputs

    def settings(self, study: Study) -> dict[str, Json]:
        return {"outputs": self.config.outputs}

    def keyed(self, place: Place, items: list[Item]) -> list[Item]:
        found = self._files(place, items)
        return [
            replace(item, key=digest(item.key, sha256_file(found[item.name])))
            if item.name in found
            else item
            for item in items
        ]

    def restore_set(self, wanted: SetToRestore) -> dict[str, str]:
        found = self._files(wanted.place, wanted.items)
        absent = f"no image in {self._folder(wanted.place)}"
        scale = wanted.study.profile.data.scale
        return take(found, wanted.missing, scale, wanted.keep, absent)

    def needs(self, study: Study) -> list[str]:
        folders = self._folders(study)
        return [f"{folder}: no such folder" for folder in folders if not folder.is_dir()]

    def state(self, study: Study) -> Json:
        files = [file for f in self._folders(study) for file in images_in(f, []).values()]
        return [[str(file), sha256] for file, sha256 in contents(files).items()]

    def _folders(self, study: Study) -> list[Path]:
        """All that are read in this study."""
        return sorted(
            {
                self._folder(Place(dataset, level, seed, Path()))
                for dataset, level in study.profile.data.places
                for seed in study.profile.seeds
            }
        )

    def _folder(self, place: Place) -> Path:
        parts = {"dataset": place.dataset, "level": place.level, "seed": place.seed}
        return Path(self.pattern.format(**parts))

    def _files(self, place: Place, items: list[Item]) -> dict[str, Path]:
        """The images given, by name; one that belongs to no LQ image is a mistake somewhere."""
        folder = self._folder(place)
        found = images_in(folder, items)
        if not found:
            raise UserError(
                f"{self.where}.outputs: {folder} holds no image{other_files(folder)}; "
                f"{len(items)} are expected, named as in its LQ folder, {items[0].lq.parent}"
            )
        if extra := strangers(found, items):
            raise UserError(
                f"{extra}; names are those of {items[0].lq.parent}; rename or remove it"
            )
        return found


class Command(CommandMethod):
    """A command that reads a folder of LQ images and writes a folder of results."""

    def __init__(self, config: OwnCommand, where: str, name: str) -> None:
        super().__init__()
        self.config, self.where, self.name, self.per = config, where, name, config.per
        place = f"{where}.command"
        used = _placeholders(config.command, IN_COMMAND, place)
        if missing := sorted({"lq", "out"} - used):
            raise ConfigError(f"{place}: has no {{{missing[0]}}}: the folder that it must use")
        try:
            self.words = shlex.split(config.command)
        except ValueError as error:
            raise ConfigError(f"{place}: {error}: {config.command}") from None
        self.environment = Environment(config.environment) if config.environment else None
        self.minutes = config.minutes

    def settings(self, study: Study) -> dict[str, Json]:
        return {
            "command": self.config.command,
            "per": self.per,
            "environment": self.environment.identity() if self.environment else None,
            "files": {str(path): _content(path) for path in self._depends()},
        }

    def _depends(self) -> list[Path]:
        """Files named in the command, and what `depends` adds: their content decides results."""
        for path in self.config.depends:
            if not path.exists():
                raise UserError(f"{self.where}.depends: {path} is not there")
        named = named_in(self.config.command)
        listed = {path.resolve() for path in self.config.depends}
        for word in [*named.unseen, *map(str, named.folders)]:
            path = Path(word).resolve()
            if not listed & {path, *path.parents} and path.name not in {p.name for p in listed}:
                _warn(
                    f"{self.where}.command: a change of {word} is not noticed: if its content "
                    "decides the results, list it under `depends`"
                )
        return sorted({*named.files, *self.config.depends})

    def call(self, task: Task) -> Call:
        values = {
            "lq": task.lq,
            "out": task.out,
            "seed": task.seed,
            "scale": task.scale,
            "captions": task.captions,
        }
        words = [word.format(**values) for word in self.words]
        variables = self.environment.variables() if self.environment else inherited()
        return Call(words, Path.cwd(), variables, task.folder / "log.txt", self.minutes)

    def needs(self, study: Study) -> list[str]:
        return self.unprepared(study) + gpu_problem(self.config.gpu_gb)

    def unprepared(self, study: Study) -> list[str]:
        if self.environment is None or self.environment.ready:
            return []
        return [
            f"its environment {self.environment.source} is not made; make it with: "
            f"faithdiff baseline prepare {self.name} --config {study.file}"
        ]

    def prepare(self, study: Study) -> dict[str, Json]:
        if self.environment is None:
            return {}
        self.environment.make()
        return {"packages": self.environment.packages()}


@functools.cache  # a plan asks several times
def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def gpu_problem(gigabytes: float) -> list[str]:
    """What stands against a method that needs so much GPU memory; empty if nothing does."""
    if not gigabytes:
        return []
    found = max(gpu_memory("memory.total"), default=0.0)
    # Cards are sold by a number that is a little more than what they report.
    if found < 0.95 * gigabytes:
        have = f"the largest here has {found:.0f} GB" if found else "none is here"
        return [f"it needs a GPU with {gigabytes:g} GB; {have}"]
    return []


def _placeholders(text: str, allowed: tuple[str, ...], where: str) -> set[str]:
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ConfigError(f"{where}: {error}: {text} (write {{{{ for a brace)") from None
    if unknown := sorted(used - set(allowed)):
        raise ConfigError(
            f"{where}: unknown placeholder {{{unknown[0]}}}; there are "
            + " ".join(f"{{{name}}}" for name in allowed)
        )
    return used


def _content(path: Path) -> str:
    """Hash of a file, or of all files below a folder."""
    hashes = contents(files_in(path))
    if path.is_file():
        return hashes[path]
    return digest([[str(file.relative_to(path)), sha256] for file, sha256 in hashes.items()])
