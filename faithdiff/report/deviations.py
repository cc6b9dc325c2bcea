"""Lists the settings of a profile that differ from the published ones: ``docs/deviations.md``.

Reasons stand in the profile under `deviations`, beside the values that they explain; a setting
without its reason, or a reason without its setting, is an error, so the page cannot fall behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from faithdiff.config import Profile, load_profile
from faithdiff.errors import ConfigError
from faithdiff.study.plain import JsonObject

# What the paper and its code say of the method; sizes of models and data are `mini` itself.
COMPARED = ("data.train_level", "prior.prediction_type", "alignment", "training", "restore")
# Ours alone, and without effect on a result.
OURS = (
    "training.precision",
    "training.channels_last",
    "training.gradient_checkpointing",
    "training.processes",
    "training.shard_model",
    "training.shard_optimiser",
    "training.launcher",
    "training.prefetch",
    "training.heldout",
    "training.log_every",
    "training.checkpoint_every",
    "training.validation_every",
    "restore.batch_size",
    "restore.tile_batch",
    "restore.channels_last",
    "restore.compile",
)

FIGURE = re.compile(r"results/[\w/-]+\.png")  # that a reason names: it stands below the table

PAGE = """# Where `{profile}` differs from the published settings

Written by `faithdiff deviations --config {file}`.
The published values are those of {paper}. The reasons are at the end of the profile (`deviations`);
change them there. Shapes of the prior, datasets and numbers of images are not listed;
they are all smaller.

| setting | published | {profile} | why |
|---|---|---|---|
"""


def deviation_table(profile_file: Path, paper_file: Path) -> str:
    """A Markdown page of ``docs/`` with one row for each setting that is not the published one.

    Figures that a reason names by their path (``results/...png``) are shown below the table.

    Raises:
        ConfigError: A deviation has no reason, or a reason has no deviation; lists all of them.
    """
    profile, paper = load_profile(profile_file), load_profile(paper_file)
    ours, published = _settings(profile), _settings(paper)
    different = [path for path in ours if ours[path] != published[path]]
    _check(profile_file, paper_file, different, profile.deviations)
    rows = [
        f"| `{path}` | {_text(published[path])} | {_text(ours[path])} "
        f"| {profile.deviations[path].replace('|', '&#124;')} |\n"
        for path in different
    ]
    files = {"file": profile_file.as_posix(), "paper": paper_file.as_posix()}
    named = dict.fromkeys(f for path in different for f in FIGURE.findall(profile.deviations[path]))
    figures = [f"\n![{figure}](../{figure})\n" for figure in named]
    return PAGE.format(profile=profile.profile, **files) + "".join(rows + figures)


def _check(file: Path, paper: Path, different: list[str], reasons: Mapping[str, str]) -> None:
    unexplained = [
        f"{file}: {path} is not as in {paper}; say why under deviations.{path}"
        for path in different
        if path not in reasons
    ]
    needless = [
        f"{file}: deviations.{path}: is as in {paper}, or no compared setting; remove the reason"
        for path in reasons
        if path not in different
    ]
    if unexplained or needless:
        raise ConfigError("\n".join(unexplained + needless))


def _settings(profile: Profile) -> JsonObject:
    """Compared settings by dotted path, in the order of the profile."""
    flat = dict(_flat("", profile.model_dump(mode="json")))
    return {
        path: value
        for path, value in flat.items()
        if _below(path, COMPARED) and not _below(path, OURS)
    }


def _flat(path: str, value: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for key, part in value.items():
        yield from _flat(f"{path}.{key}".lstrip("."), part)


def _below(path: str, sections: tuple[str, ...]) -> bool:
    return any(path == section or path.startswith(f"{section}.") for section in sections)


def _text(value: JsonValue) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
