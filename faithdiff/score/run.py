"""Scores restored images: one row per image, metric and protocol, whatever came of it.

A value that could not be computed is a row with a status, never a blank, a zero or a guess.
Values already computed are kept by the hashes of what they depend on, so when the weights of one
more metric arrive, only its column is computed.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from faithdiff.config import Profile
from faithdiff.data.artifacts import ARTIFACTS_FILE, load_artifacts
from faithdiff.data.datasets import read_index
from faithdiff.data.images import sha256_file
from faithdiff.data.recorded import check_hq, hq_hashes, pictures
from faithdiff.errors import RunError, UserError
from faithdiff.restore.shards import Shard, read_records, write_record
from faithdiff.score.cache import Cache
from faithdiff.score.metrics import prepare_all
from faithdiff.score.protocols import COLUMNS, definitions_of
from faithdiff.score.scorer import Pair, Scorer
from faithdiff.study.checksums import corrupted, read_checked, write_summed
from faithdiff.study.layout import Layout
from faithdiff.study.locks import claimed

Row = dict[str, str | int]
# Of each test set and level: restored images by name, and why there is none of others.
Folders = dict[tuple[str, str], tuple[dict[str, Path], dict[str, str]]]


@dataclass(frozen=True)
class Place:
    """What a folder of restored images is; the first columns of its rows."""

    method: str
    variant: str  # the method again where it is a variant of FaithDiff, else empty
    seed: int
    dataset: str
    level: str


def score_folder(
    hq: Mapping[str, Path] | None,
    restored: Mapping[str, Path],
    scorer: Scorer,
    place: Place,
    advance: Callable[[], object] = lambda: None,
    pictures: Mapping[str, str] | None = None,
) -> list[Row]:
    """Score every restored image against the HQ image of the same name.

    Args:
        hq: Image files by name. None: real-world images without HQ, for which only no-reference
            metrics give rows.
        restored: Image files by name; the names must be the same.
        scorer: The metrics.
        place: The columns that say what was scored.
        advance: Called after each image.
        pictures: What each image was cut from, by its name; itself where it is not named.

    Returns:
        A row of ``COLUMNS`` per image, metric and protocol, in no promised order.

    Raises:
        UserError: The names differ: no image is scored against another's HQ, and none is left out.
    """
    if hq is not None and (odd := sorted(set(hq) ^ set(restored))):
        side = "restored" if odd[0] in hq else "HQ"
        raise UserError(f"{place.dataset}, level {place.level}: no {side} image for {odd[0]!r}")
    rows: list[Row] = []
    for name in sorted(restored):
        pair = Pair(restored[name], None if hq is None else hq[name])
        for (protocol, metric), (value, status) in scorer.score(pair).items():
            digest = scorer.metrics[protocol, metric].digest
            picture = (pictures or {}).get(name, name)
            values = (name, picture, metric, protocol, value, status, *pair.sha256, digest)
            rows.append({**asdict(place), **dict(zip(COLUMNS[5:], values, strict=True))})
        advance()
    return rows


def failed_rows(
    failures: Mapping[str, str],
    hq: Path | None,
    scorer: Scorer,
    place: Place,
    pictures: Mapping[str, str] | None = None,
) -> list[Row]:
    """Rows of images that were never restored, one for each metric and protocol like all others.

    Args:
        failures: Why, by name.
        hq: Folder of the HQ images; None for real-world images.
        scorer: The metrics.
        place: The columns that say what was to be scored.
        pictures: As in :func:`score_folder`.
    """
    rows: list[Row] = []
    for name, why in sorted(failures.items()):
        reference = sha256_file(hq / f"{name}.png") if hq else ""
        for (protocol, metric), prepared in scorer.metrics.items():
            if hq is None and prepared.definition.needs_reference:
                continue
            # As for the other images: a metric without weights says so of every one of them.
            status = (
                f"unavailable: {prepared.unavailable}" if prepared.unavailable else f"failed: {why}"
            )
            picture = (pictures or {}).get(name, name)
            values = (name, picture, metric, protocol, "", status, "", reference, prepared.digest)
            rows.append({**asdict(place), **dict(zip(COLUMNS[5:], values, strict=True))})
    return rows


def score_job(
    profile: Profile,
    layout: Layout,
    method: str,
    seed: int,
    threads: int = 1,
    artifacts_file: Path = ARTIFACTS_FILE,
) -> None:
    """Score all test sets and levels of one method and seed into its ``scores.csv``.

    One thread by default: sums over an image are then added in one order, and the values are the
    same bits in every run.

    Raises:
        RunError: A manifest is missing, or does not match the images or the data set's index; or
            one of several shards is not finished.
        ConfigError: A protocol or a metric is not defined.
        UserError: The profile's device is not here.
    """
    read_records(layout, "score", method, seed, profile.shards)
    folders = _folders(profile, layout, method, seed, threads)
    shared = [_values(layout, method, seed, number, profile.shards) for number in _all(profile)]
    with claimed(layout.lock("score", method, seed), f"score {method} seed{seed}"):
        cache = Cache(_values(layout, method, seed), shared)
        scorer = _scorer(profile, cache, artifacts_file)
        rows = _rows(profile, layout, method, seed, folders, scorer)
        write_scores(rows, layout.restored(method, seed) / "scores.csv")
    ok = sum(row["status"] == "ok" for row in rows)
    count = sum(len(images) for images, _ in folders.values())
    print(f"{method} seed{seed}: {count} images, {ok} of {len(rows)} values ok, "
          f"{scorer.computed} computed now")  # fmt: skip


def score_shard(
    profile: Profile,
    layout: Layout,
    method: str,
    seed: int,
    shard: Shard,
    threads: int = 1,
    artifacts_file: Path = ARTIFACTS_FILE,
) -> None:
    """Compute the values of a share of the images for :func:`score_job`, and record it."""
    folders = _folders(profile, layout, method, seed, threads)
    record = layout.shard("score", method, seed, shard.number, shard.of)
    with claimed(record.with_suffix(".lock"), f"score {method} seed{seed}"):
        cache = Cache(_values(layout, method, seed, shard.number, shard.of))
        scorer = _scorer(profile, cache, artifacts_file)
        shares: Folders = {}
        for place, (restored, _) in folders.items():
            names = shard.share(sorted(restored))
            shares[place] = ({name: restored[name] for name in names}, {})
        begun = time.perf_counter()
        _rows(profile, layout, method, seed, shares, scorer)
        seconds = round(time.perf_counter() - begun, 3)
        write_record(record, {"all": {"made": scorer.computed, "seconds": seconds}})


def _all(profile: Profile) -> range:
    """Numbers of the shards; none if one job does all."""
    return range(1, profile.shards + 1) if profile.shards > 1 else range(0)


def _values(layout: Layout, method: str, seed: int, number: int = 1, of: int = 1) -> Path:
    """The file of values that a job grows; each of several jobs has its own."""
    share = "" if of == 1 else f"-{number}-of-{of}"
    return layout.store / "scores" / f"{method}-seed{seed}{share}.csv"


def _folders(profile: Profile, layout: Layout, method: str, seed: int, threads: int) -> Folders:
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda, but torch sees no GPU here; set device: cpu to score on CPU")
    torch.set_num_threads(threads)
    return {
        (dataset, level): _checked(layout, method, seed, dataset, level)
        for dataset, level in profile.data.places
    }


def _scorer(profile: Profile, cache: Cache, artifacts_file: Path) -> Scorer:
    weights = profile.score.weights
    metrics = prepare_all(definitions_of(profile), weights, load_artifacts(artifacts_file))
    return Scorer(metrics, weights, profile.device, cache)


def _rows(
    profile: Profile, layout: Layout, method: str, seed: int, folders: Folders, scorer: Scorer
) -> list[Row]:
    variant = method if method in profile.variants else ""
    rows: list[Row] = []
    count = sum(len(images) for images, _ in folders.values())
    with tqdm(total=count, unit="image", desc=f"score {method} seed{seed}") as bar:
        for (dataset, level), (restored, failures) in folders.items():
            folder = layout.dataset(dataset) / "hq"
            real = profile.data.is_real(dataset)
            hq = None if real else {name: folder / f"{name}.png" for name in restored}
            if not real:
                recorded = hq_hashes(layout.dataset(dataset))
                for name in (*restored, *failures):
                    check_hq(folder / f"{name}.png", recorded)
            place = Place(method, variant, seed, dataset, level)
            known = pictures(layout.dataset(dataset))
            rows += score_folder(hq, restored, scorer, place, bar.update, known)
            rows += failed_rows(failures, None if real else folder, scorer, place, known)
    return rows


def write_scores(rows: list[Row], file: Path) -> None:
    """Write rows, sorted, in one step: a killed job leaves the old file or the new one."""
    order = ("dataset", "level", "image", "protocol", "metric")
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: tuple(row[column] for column in order)))
    write_summed(text.getvalue(), file)


def _checked(
    layout: Layout, method: str, seed: int, dataset: str, level: str
) -> tuple[dict[str, Path], dict[str, str]]:
    """Restored images by name, and the reasons of those that failed, once all lists agree.

    The manifest, the disk and the index must name the same images.
    """
    folder = layout.restoration(method, seed, dataset, level)
    manifest = folder / "manifest.json"
    hashes, failures = _manifest(manifest)
    files = {file.stem: file for file in folder.glob("*.png")}
    _same(manifest, hashes, set(files), f"PNGs in {folder}")
    index = layout.dataset(dataset) / "index.csv"
    names = set(read_index(layout.dataset(dataset))["name"])
    _same(manifest, {**hashes, **failures}, names, f"images in {index}")
    for name, file in files.items():
        if sha256_file(file) != hashes[name]:
            raise corrupted(manifest, f"{name}: {file} has another sha256")
    return files, failures


def _manifest(file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Hashes of the images by name, and of the others why there is none."""
    try:
        images = read_checked(file)["images"]
        failures = {name: str(e["failed"]) for name, e in images.items() if "failed" in e}
        done = {name: e["sha256"] for name, e in images.items() if name not in failures}
    except OSError:
        raise RunError(
            f"{file}: is missing: the restoration is not finished; restore first"
        ) from None
    except (KeyError, TypeError, AttributeError):
        raise corrupted(file, "is not a manifest of restored images") from None
    return done, failures


def _same(manifest: Path, hashes: Mapping[str, str], names: set[str], what: str) -> None:
    if odd := sorted(set(hashes) ^ names):
        raise RunError(
            f"{manifest}: lists {len(hashes)} images, there are {len(names)} {what}; "
            f"{odd[0]!r} is only in one of them; restore again"
        )
