"""Degrade a whole dataset at one level, and log every parameter that was drawn.

One line of ``degradation.jsonl`` suffices to remake its image on its own:
``apply(read_image(hq), json.loads(line)["parameters"])`` gives the bytes that were written.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from faithdiff.config import REAL
from faithdiff.data.datasets import check_names
from faithdiff.data.images import read_image, sha256_file, write_png
from faithdiff.data.recorded import LOG, check_hq
from faithdiff.degrade.draw import Drawn
from faithdiff.degrade.levels import Level
from faithdiff.degrade.pipeline import apply, draw
from faithdiff.errors import ImageError
from faithdiff.study import seeds
from faithdiff.study.checksums import check_file, check_summed, write_summed
from faithdiff.study.progress import ProgressBar

__all__ = ["LOG", "degrade_dataset", "log_real"]


def degrade_dataset(
    hq_dir: Path,
    index: Path,
    level_name: str,
    level: Level | Mapping[str, Level],
    scale: int,
    master_seed: int,
    dataset: str,
    out_dir: Path,
    progress: bool = True,
) -> None:
    """Write ``out_dir/<name>.png`` for each row of `index`, then ``degradation.jsonl``, last.

    Every image is seeded by (dataset, level, name), so order, subset and sharding change no byte.
    A killed run starts over: an image costs milliseconds, and without the log nothing counts.

    Args:
        hq_dir: Holds ``<name>.png``, uint8 RGB.
        index: CSV with a column ``name``.
        level_name: Key of `level` in levels.yaml; part of the seed and of each log line.
        level: What may be drawn; of a mixture each image draws one member.
        scale: HQ side / LQ side.
        master_seed: The ``seed`` of the profile.
        dataset: Name of the dataset; part of the seed.
        out_dir: Created where missing.
        progress: Show a bar with images per second on stderr.

    Raises:
        ImageError: The index names no image, one twice, or one that cannot be read, is too small,
            or was prepared for another scale.
        CorruptedError: The index or an HQ image is not what was prepared.
        RunError: The output cannot be written.
    """
    hashes = _hashes(index)
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / LOG).unlink(missing_ok=True)  # a log must never stand beside newer images
    lines = []
    for name in ProgressBar(
        hashes, desc=f"degrade {dataset} {level_name}", unit="img", disable=not progress
    ):
        seed = seeds.seed(master_seed, "degrade", dataset, level_name, name)
        source, target = hq_dir / f"{name}.png", out_dir / f"{name}.png"
        check_hq(source, hashes)
        drawn, member = _member(level, level_name, seed)
        parameters = _degrade(source, target, member, seed, scale)
        lines.append(
            {
                "name": name,
                "level": drawn,
                "seed": seed,
                "hq_sha256": sha256_file(source),
                "lq_sha256": sha256_file(target),
                "parameters": parameters,
            }
        )
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    write_summed(text, out_dir / LOG)


def log_real(index: Path, dataset: str, out_dir: Path) -> None:
    """Write ``degradation.jsonl`` of LQ images that came degraded: their hashes, no parameters.

    Raises:
        ImageError: The index names no image, or one that is not in `out_dir`.
    """
    lines = []
    for name, recorded in _hashes(index).items():
        file = out_dir / f"{name}.png"
        if not file.is_file():
            raise ImageError(f"{file}: is missing; run: faithdiff prepare --dataset {dataset}")
        check_file(file, recorded)
        lines.append(
            {"name": name, "level": REAL, "lq_sha256": sha256_file(file), "parameters": None}
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_summed(text, out_dir / LOG)


def _member(level: Level | Mapping[str, Level], name: str, seed: int) -> tuple[str, Level]:
    """The level of one image and its name."""
    if isinstance(level, Level):
        return name, level
    members = list(level)
    chosen = members[int(seeds.numpy_rng(seed, "member").integers(len(members)))]
    return chosen, level[chosen]


def _degrade(source: Path, target: Path, level: Level, seed: int, scale: int) -> Drawn:
    hq = read_image(source)
    height, width = hq.shape[:2]
    if height % scale or width % scale:
        # Restored, its LQ image would be larger than itself, and every score of it would fail.
        raise ImageError(
            f"{source}: of {width} x {height} px, not multiples of the scale {scale}: it was "
            "prepared for another scale; run `faithdiff prepare` for this dataset again"
        )
    try:
        parameters = draw(level, seed, (height, width), scale)
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from None
    write_png(apply(hq, parameters), target)
    return parameters


def _hashes(index: Path) -> dict[str, str]:
    """Hashes of the HQ images by name, sorted; empty where the index has none."""
    try:
        check_summed(index)
        with index.open(newline="", encoding="utf-8") as file:
            rows = sorted((row["name"], row.get("sha256") or "") for row in csv.DictReader(file))
    except OSError as error:
        raise ImageError(f"{index}: cannot be read ({error.strerror})") from None
    except KeyError:
        raise ImageError(f"{index}: has no column 'name'") from None
    names = [name for name, _ in rows]
    check_names(index, names)
    if not names:
        raise ImageError(f"{index}: lists no image; prepare the dataset first")
    twice = [name for name, following in pairwise(names) if name == following]
    if twice:
        raise ImageError(f"{index}: names {twice[0]!r} more than once")
    return dict(rows)
