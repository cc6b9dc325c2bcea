"""Scores restored images: one row per image, metric and protocol, whatever came of it.

A value that could not be computed is a row with a status, never a blank, a zero or a guess.
Values already computed are kept by the hashes of what they depend on, so when the weights of one
more metric arrive, only its column is computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from faithdiff.config import Profile
from faithdiff.data.artifacts import ARTIFACTS_FILE, load_artifacts
from faithdiff.data.datasets import read_index
from faithdiff.data.images import sha256_file
from faithdiff.data.recorded import check_hq, hq_hashes, pictures
from faithdiff.errors import RunError, UserError
from faithdiff.restore.shards import Shard, read_records, write_record
from faithdiff.score.cache import ScoreCache
from faithdiff.score.metrics import Metric, prepare_all
from faithdiff.score.protocols import definitions_of
from faithdiff.score.rows import ScoreRow, write_rows
from faithdiff.score.scorer import Pair, ScoredValue, Scorer
from faithdiff.study.checksums import corrupted
from faithdiff.study.layout import Layout
from faithdiff.study.locks import claimed
from faithdiff.study.progress import ProgressBar
from faithdiff.study.restored import RestoredSet


@dataclass(frozen=True)
class RestoredFiles:
    """The images of one test set and level that a method left to score.

    Attributes:
        images: Image files by name.
        failures: Why the others were never restored, by name.
    """

    images: dict[str, Path]
    failures: dict[str, str]


Folders = dict[tuple[str, str], RestoredFiles]  # by (dataset, level)


@dataclass(frozen=True)
class ScoredSet:
    """What a folder of restored images is; the first columns of its rows."""

    method: str
    variant: str  # the method again where it is a variant of FaithDiff, else empty
    seed: int
    dataset: str
    level: str

    def row(
        self,
        image: str,
        picture: str,
        metric: Metric,
        key: tuple[str, str],
        outcome: ScoredValue,
        sha256: tuple[str, str],
    ) -> ScoreRow:
        """The row of one image on one metric.

        Args:
            key: ``(protocol, metric)``.
            sha256: Of the restored and of the HQ image; empty where there is none.
        """
        return ScoreRow(
            **asdict(self),
            image=image,
            picture=picture,
            metric=key[1],
            protocol=key[0],
            value=outcome.value,
            status=outcome.status,
            restored_sha256=sha256[0],
            hq_sha256=sha256[1],
            protocol_sha256=metric.digest,
        )


def score_folder(
    hq: Mapping[str, Path] | None,
    restored: Mapping[str, Path],
    scorer: Scorer,
    place: ScoredSet,
    advance: Callable[[], object] = lambda: None,
    pictures: Mapping[str, str] | None = None,
) -> list[ScoreRow]:
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
    # By name and never by position: two lists that are sorted alike but differ by one image pair
    # every later one with a stranger, and the mean still looks like a mean.
    if hq is not None and (odd := sorted(set(hq) ^ set(restored))):
        side = "restored" if odd[0] in hq else "HQ"
        raise UserError(f"{place.dataset}, level {place.level}: no {side} image for {odd[0]!r}")
    rows: list[ScoreRow] = []
    for name in sorted(restored):
        pair = Pair(restored[name], None if hq is None else hq[name])
        picture = (pictures or {}).get(name, name)
        # Unavailable and failed values get a row as well: a row that is missing looks like a metric
        # that nobody asked for.
        for key, outcome in scorer.score(pair).items():
            metric = scorer.metrics[key]
            rows.append(place.row(name, picture, metric, key, outcome, pair.sha256))
        advance()
    return rows


def failed_rows(
    failures: Mapping[str, str],
    hq: Path | None,
    scorer: Scorer,
    place: ScoredSet,
    pictures: Mapping[str, str] | None = None,
) -> list[ScoreRow]:
    """Rows of images that were never restored, one for each metric and protocol like all others.

    Args:
        failures: Why, by name.
        hq: Folder of the HQ images; None for real-world images.
        scorer: The metrics.
        place: The columns that say what was to be scored.
        pictures: As in :func:`score_folder`.
    """
    rows: list[ScoreRow] = []
    for name, why in sorted(failures.items()):
        # The HQ hash even without a restored image: it says which image has no result.
        reference = sha256_file(hq / f"{name}.png") if hq else ""
        picture = (pictures or {}).get(name, name)
        for key, metric in scorer.metrics.items():
            if hq is None and metric.definition.needs_reference:
                continue
            # As for the other images: a metric without weights says so of every one of them.
            unavailable = metric.unavailable and f"unavailable: {metric.unavailable}"
            outcome = ScoredValue("", unavailable or f"failed: {why}")
            rows.append(place.row(name, picture, metric, key, outcome, ("", reference)))
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
        RunError: A manifest is missing, or does not match the images or the dataset's index; or
            one of several shards is not finished.
        ConfigError: A protocol or a metric is not defined.
        UserError: The profile's device is not here.
    """
    read_records(layout, "score", method, seed, profile.shards)
    folders = _folders(profile, layout, method, seed, threads)
    of = profile.shards
    numbers = range(1, of + 1) if of > 1 else ()  # one job alone has no others to read from
    shared = [_values(layout, method, seed, number, of) for number in numbers]
    # Two jobs that grow one file of values would write their lines into one another.
    with claimed(layout.lock("score", method, seed), f"score {method} seed{seed}"):
        cache = ScoreCache(_values(layout, method, seed), shared)
        scorer = _scorer(profile, cache, artifacts_file)
        rows = _rows(profile, layout, method, seed, folders, scorer)
        write_scores(rows, layout.restored(method, seed) / "scores.csv")
    ok = sum(row.status == "ok" for row in rows)
    count = sum(len(files.images) for files in folders.values())
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
    """Compute the values of one shard of the images for :func:`score_job`, and record it."""
    folders = _folders(profile, layout, method, seed, threads)
    record = layout.shard("score", method, seed, shard.number, shard.of)
    with claimed(record.with_suffix(".lock"), f"score {method} seed{seed}"):
        cache = ScoreCache(_values(layout, method, seed, shard.number, shard.of))
        scorer = _scorer(profile, cache, artifacts_file)
        chosen: Folders = {}
        for place, files in folders.items():
            names = shard.select(sorted(files.images))
            chosen[place] = RestoredFiles({name: files.images[name] for name in names}, {})
        begun = time.perf_counter()
        _rows(profile, layout, method, seed, chosen, scorer)
        seconds = round(time.perf_counter() - begun, 3)
        write_record(record, {"all": {"made": scorer.computed, "seconds": seconds}})


def _values(layout: Layout, method: str, seed: int, number: int = 1, of: int = 1) -> Path:
    """The file of values that a job grows; each of several jobs has its own."""
    shard = "" if of == 1 else f"-{number}-of-{of}"
    return layout.cache / "scores" / f"{method}-seed{seed}{shard}.csv"


def _folders(profile: Profile, layout: Layout, method: str, seed: int, threads: int) -> Folders:
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda, but torch sees no GPU here; set device: cpu to score on CPU")
    torch.set_num_threads(threads)
    return {
        (dataset, level): _checked(layout, method, seed, dataset, level)
        for dataset, level in profile.data.places
    }


def _scorer(profile: Profile, cache: ScoreCache, artifacts_file: Path) -> Scorer:
    weights = profile.score.weights
    metrics = prepare_all(definitions_of(profile), weights, load_artifacts(artifacts_file))
    return Scorer(metrics, weights, profile.device, cache)


def _rows(
    profile: Profile, layout: Layout, method: str, seed: int, folders: Folders, scorer: Scorer
) -> list[ScoreRow]:
    variant = method if method in profile.variants else ""
    rows: list[ScoreRow] = []
    count = sum(len(files.images) for files in folders.values())
    with ProgressBar(total=count, unit="image", desc=f"score {method} seed{seed}") as bar:
        for (dataset, level), files in folders.items():
            restored, failures = files.images, files.failures
            folder = layout.dataset(dataset) / "hq"
            real = profile.data.is_real(dataset)
            # Real-world photographs have no HQ image, so reference metrics have no meaning for
            # them.
            hq = None if real else {name: folder / f"{name}.png" for name in restored}
            if not real:
                # An HQ image that changed on disk would change every score, and the methods get the
                # blame.
                recorded = hq_hashes(layout.dataset(dataset))
                for name in (*restored, *failures):
                    check_hq(folder / f"{name}.png", recorded)
            place = ScoredSet(method, variant, seed, dataset, level)
            known = pictures(layout.dataset(dataset))
            rows += score_folder(hq, restored, scorer, place, bar.update, known)
            rows += failed_rows(failures, None if real else folder, scorer, place, known)
    return rows


def write_scores(rows: Iterable[ScoreRow], file: Path) -> None:
    """Write rows, sorted by what they are of, whatever order they were computed in."""
    write_rows(
        # Caches and shards compute in any order, and equal studies must write equal bytes.
        sorted(rows, key=lambda r: (r.dataset, r.level, r.image, r.protocol, r.metric)),
        file,
    )


def _checked(layout: Layout, method: str, seed: int, dataset: str, level: str) -> RestoredFiles:
    """What there is to score, once all lists agree.

    The manifest, the disk and the index must name the same images: a mean over fewer of them would
    be of another test set.
    """
    folder = layout.restoration(method, seed, dataset, level)
    manifest = folder / "manifest.json"
    try:
        made = RestoredSet.read(manifest).images
    except OSError:
        raise RunError(
            f"{manifest}: is missing: the restoration is not finished; restore first"
        ) from None
    if not made:
        raise corrupted(manifest, "is not a manifest of restored images")
    failures = {name: image.failed for name, image in made.items() if image.failed}
    hashes = {name: image.sha256 for name, image in made.items() if not image.failed}
    files = {file.stem: file for file in folder.glob("*.png")}
    _same(manifest, hashes, set(files), f"PNGs in {folder}")
    index = layout.dataset(dataset) / "index.csv"
    names = set(read_index(layout.dataset(dataset))["name"])
    _same(manifest, made, names, f"images in {index}")
    for name, file in files.items():
        if sha256_file(file) != hashes[name]:
            raise corrupted(manifest, f"{name}: {file} has another sha256")
    return RestoredFiles(files, failures)


def _same(manifest: Path, listed: Collection[str], names: set[str], what: str) -> None:
    if odd := sorted(set(listed) ^ names):
        raise RunError(
            f"{manifest}: lists {len(listed)} images, there are {len(names)} {what}; "
            f"{odd[0]!r} is only in one of them; restore again"
        )
