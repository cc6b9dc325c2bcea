"""The study that a call of snakemake asks for: a profile, and what its options change of it.

`snakemake --config seeds=[0,1,2]` and `--configfile FILE` override keys of a profile. A study of
other settings is another study: it gets a name, and with it folders of its own, and a profile file
``config/<name>.yaml``, from which its jobs and every other command read it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from faithdiff.config import Profile, digest, load_profile
from faithdiff.config.yaml_file import Layer, Layers, dump_yaml, merge, plain_value, read_yaml
from faithdiff.errors import ConfigError
from faithdiff.methods.absent import FILE as ABSENT
from faithdiff.methods.absent import Absent
from faithdiff.methods.method import Study
from faithdiff.planning.missing import absent_from
from faithdiff.study.files import not_the_root, write_text_atomic
from faithdiff.study.layout import Layout

CONFIG = Path("config")
COMMAND_LINE = Path("--config")
# Keys of a call that are none of a profile: which profile, the name of a study with overrides, the
# minutes that a training may take, and whether to go on without what is missing.
OWN = ("profile", "name", "time_limit", "allow_missing")
OVERRIDABLE = tuple(key for key in Profile.model_fields if key not in OWN)
HEADER = (
    "# Written by snakemake for a study with other settings than the profile that it extends.\n"
)


@dataclass(frozen=True)
class Asked:
    """What a call of snakemake asks for.

    Attributes:
        study: The study with all overrides; its file may have to be written.
        base: The file of the profile whose settings are overridden, or the study's own.
        time_limit: Minutes that a training may take; None: as many as it takes.
        text: What the study's file has to say; None where nothing has to be written.
        absent: What the study goes on without; `study` is the one without it.
    """

    study: Study
    base: Path
    time_limit: float | None = None
    text: str | None = None
    absent: Absent = field(default_factory=Absent)

    @property
    def note(self) -> str | None:
        """What a person should know before the first job: where the results will be."""
        if self.study.file == self.base:
            return None
        return (
            f"{self.base} with other settings is the study {self.study.profile.profile!r}: its "
            f"profile is {self.study.file}, its results go to {self.study.layout.results}/. "
            "Another name: --config name=NAME"
        )

    @property
    def named(self) -> Study:
        """The study, called as its settings were given, for the messages of checks."""
        if self.study.file == self.base:
            return self.study
        return replace(self.study, file=Path(f"{self.base} with the settings of this call"))

    def write(self) -> None:
        """Write for the jobs to read: the profile of a study with overrides, and what is absent."""
        if self.text is not None:
            write_text_atomic(self.text, self.study.file)
        file = self.study.layout.results / ABSENT
        if self.absent:
            write_text_atomic(self.absent.text(), file)
        else:
            file.unlink(missing_ok=True)


def asked_for(
    command_line: Mapping[str, JsonValue], files: Sequence[Path], starting: bool = True
) -> Asked:
    """Resolve the options of a call of snakemake.

    Args:
        command_line: The entries of ``--config``, as Snakemake read them.
        files: Those of ``--configfile``, in the order given.
        starting: Whether this call begins a run; a job of a run goes on without what that found
            missing, whatever has come since.

    Raises:
        ConfigError: A key is unknown, a value does not fit, or the name belongs to another study.
    """
    layers = [_command_line(command_line), *(_config_file(file) for file in reversed(files))]
    own = {key: _first(key, layers) for key in OWN}
    base = profile_file(own["profile"])
    # A profile that is given as --configfile overrides nothing of itself.
    layers = [layer for layer in layers if layer.file.resolve() != base.resolve()]
    for layer in layers:
        _check_keys(layer)
    limit = _minutes(own["time_limit"])
    over = [Layer(layer.file, _without_own(layer.data)) for layer in layers]
    missing = _yes_or_no("allow_missing", own["allow_missing"])
    # Overrides that change nothing make no study of their own: its results would be twice on disk.
    plain = Study.whole(base)
    if own["name"] is None and load_profile(base, *over) == plain.profile:
        return _without_missing(Asked(plain, base, limit), missing, starting)
    changes: dict[str, JsonValue] = {}
    for layer in reversed(over):
        changes = merge(changes, layer.data, keep_nulls=True)
    # A digest of the changes: the same call finds its study again, and no other call does.
    if not isinstance(own["name"], str | None):
        # Snakemake made a number of it: 2025_01 would silently become 202501.
        raise ConfigError(
            f"--config name={own['name']}: was read as a number or a truth value; give the study a "
            "name with a letter, such as run-1"
        )
    name = str(own["name"] or "-".join([base.stem, *sorted(changes)[:3], digest(changes)[:6]]))
    profile = load_profile(base, Layer(Path("--config name"), {"profile": name}), *over)
    study = Study(profile, CONFIG / f"{name}.yaml", Layout(name))
    asked = Asked(study, base, limit, _to_write(study, base, changes))
    return _without_missing(asked, missing, starting)


def _without_missing(asked: Asked, allowed: bool, starting: bool) -> Asked:
    if starting:
        absent = absent_from(asked.study) if allowed else Absent()
    else:
        absent = Absent.read(asked.study.layout.results)
    return replace(asked, study=asked.study.without(absent), absent=absent)


def profile_file(name: object) -> Path:
    """The file of a profile by name; None is the default profile.

    Raises:
        ConfigError: There is none; names the one that may be meant.
    """
    file = CONFIG / f"{'mini' if name is None else name}.yaml"
    if file.is_file():
        return file
    # Other YAML files in the folder are no profiles: those have the key `profile`.
    if said := not_the_root():
        raise ConfigError(f"{file}: is not here: {said}")
    others = {
        other.stem: other.read_text(encoding="utf-8", errors="replace")
        for other in CONFIG.glob("*.yaml")
    }
    known = sorted(stem for stem, text in others.items() if "\nprofile:" in f"\n{text}")
    # Its file, as the option --config of `faithdiff` takes it, is the same name for sure.
    meant = Path(str(name)).stem
    hint = f"; did you mean {meant!r}?" if meant in known else _hint(str(name), known)
    raise ConfigError(
        f"profile={name}: there is no {file}{hint} (there are: {', '.join(known) or 'none'})"
    )


def _command_line(entries: Mapping[str, JsonValue]) -> Layer:
    """The entries of ``--config``."""
    for key, value in entries.items():
        if value is None:
            raise ConfigError(f"--config {key}=: has no value")
    return Layer(COMMAND_LINE, {key: _typed(value, key) for key, value in entries.items()})


def _typed(value: JsonValue, key: str) -> JsonValue:
    """A value of ``--config``: Snakemake leaves whatever stands in brackets a text."""
    if isinstance(value, Mapping):
        return {str(name): _typed(part, key) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_typed(part, key) for part in value]
    if isinstance(value, str):
        typed: JsonValue = plain_value(value, f"--config {key}")
        return typed
    return value


def _config_file(file: Path) -> Layer:
    """A file of ``--configfile``, named as seen from here."""
    here = Path.cwd()
    named = file.relative_to(here) if file.is_relative_to(here) else file
    content = Layers.read(named).layers
    data = content[0].data
    if not isinstance(data, dict):
        raise ConfigError(f"{named}: must be a group of keys, not {data!r}")
    # A file that extends another is a profile, and given here it would lose what it extends.
    home = CONFIG / f"{data.get('profile', named.stem)}.yaml"
    if len(content) > 1 and named.resolve() != home.resolve():
        raise ConfigError(
            f"{named}: is a profile, since it extends {content[1].file}; put it at {home} and run: "
            f"snakemake --config profile={home.stem}"
        )
    return content[0]


def _first(key: str, layers: Sequence[Layer]) -> JsonValue:
    return next((layer.data[key] for layer in layers if key in layer.data), None)


def _check_keys(layer: Layer) -> None:
    for key in layer.data:
        if key not in OWN and key not in OVERRIDABLE:
            raise ConfigError(
                f"{layer.file}: {key}: unknown key{_hint(str(key), [*OWN, *OVERRIDABLE])} "
                f"(allowed: {', '.join(OWN)}; and of the profile: {', '.join(OVERRIDABLE)})"
            )


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _without_own(data: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: value for key, value in data.items() if key not in OWN}


def _minutes(limit: JsonValue) -> float | None:
    if limit is None:
        return None
    # `time_limit=true` is a number to Python, and a slip of the pen here.
    if isinstance(limit, int | float) and not isinstance(limit, bool) and limit > 0:
        return limit
    raise ConfigError(f"--config time_limit={limit}: must be a number of minutes above 0")


def _yes_or_no(key: str, value: JsonValue) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise ConfigError(f"--config {key}={value}: must be true or false")


def _to_write(study: Study, base: Path, changes: dict[str, JsonValue]) -> str | None:
    """The text of the study's own profile, or None if it is there already.

    Raises:
        ConfigError: Another profile has this name.
    """
    # Only what differs: the study goes on following the profile that it extends.
    content = {"extends": base.name, "profile": study.profile.profile, **changes}
    if not study.file.exists():
        return HEADER + dump_yaml(content)
    if read_yaml(study.file.read_text(encoding="utf-8"), str(study.file)) == content:
        return None
    raise ConfigError(
        f"{study.file}: is there and has other settings than this call; give this study another "
        "name with: --config name=NAME, or run that profile as it is with: "
        f"--config profile={study.file.stem}"
    )
