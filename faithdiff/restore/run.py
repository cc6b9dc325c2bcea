"""Restores every test set and level with one trained method, and resumes at the image.

Finished images go into a cache outside the job's declared outputs, named by a key over input,
weights, settings, code and seed; the declared output is a manifest written last. So a killed job
continues where it was, and a stale image can never be taken for a new one.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from faithdiff.config import Data, digest
from faithdiff.data.captions import read_captions
from faithdiff.data.datasets import read_index
from faithdiff.data.images import png_is_whole, read_image, sha256_file, write_png
from faithdiff.data.recorded import check_lq, lq_hashes
from faithdiff.errors import CheckpointError, RunError, TooLargeError, UserError
from faithdiff.methods.method import Item, Keep, Method, Place, Restorer, SetToRestore, Study
from faithdiff.models.repeatable import compute_repeatably
from faithdiff.restore.arrays import to_image, to_tensor
from faithdiff.restore.memory import restore_in_memory
from faithdiff.restore.shards import Shard, ShardRecord, Spent, read_records, write_record
from faithdiff.study import seeds
from faithdiff.study.checkpoints import check_checkpoint
from faithdiff.study.checksums import with_checksum
from faithdiff.study.files import unwritable, write_text_atomic
from faithdiff.study.locks import claimed
from faithdiff.study.plain import Json
from faithdiff.study.progress import ProgressBar
from faithdiff.study.provenance import code_digest, folder_digest, hardware

# What decides every output of a method besides the image, as the manifest has it.
Identity = dict[str, Json]


class ImageEntry(TypedDict, total=False):
    """An image of a manifest: its hash and key, or why it failed."""

    sha256: str
    failed: str
    lq_sha256: str
    seed: int
    key: str


@dataclass(frozen=True)
class _Made:
    """The images of one test set and level, as they now lie in the cache."""

    dataset: str
    level: str
    items: list[Item]
    about: dict[str, object]  # identity, and what the method records of the run
    count: int  # made by this call
    seconds: float
    failures: Mapping[str, str] = field(default_factory=dict)


def restore_job(study: Study, method: Method, name: str, seed: int) -> None:
    """Restore all test sets and levels with one (method, seed).

    Writes, for each, ``<image>.png`` and then ``manifest.json``. Images that failed are in the
    manifest alone, with the reason.

    Raises:
        RunError: The profile has several shards, and one of them is not finished.
    """
    shards = 1 if method.whole_sets else study.profile.shards
    records = read_records(study.layout, "restore", name, seed, shards)
    # The orphan of a workflow that was killed may still be at the same images.
    with claimed(study.layout.lock("restore", name, seed), f"restore {name} seed{seed}"):
        for made in _made(study, method, name, seed):
            target = study.layout.restoration(name, seed, made.dataset, made.level)
            _publish(study, made, target, records)


def restore_shard(study: Study, method: Method, name: str, seed: int, shard: Shard) -> None:
    """Restore one shard of the images of one (method, seed) into the cache, and record it.

    Raises:
        UserError: The method takes a test set at a time.
    """
    if method.whole_sets:
        raise UserError(f"{name}: restores whole test sets; leave out --shard")
    record = study.layout.shard("restore", name, seed, shard.number, shard.of)
    places: dict[str, Spent] = {}
    with claimed(record.with_suffix(".lock"), f"restore {name} seed{seed}"):
        for made in _made(study, method, name, seed, shard):
            spent: Spent = {"made": made.count, "seconds": round(made.seconds, 3)}
            places[f"{made.dataset}/{made.level}"] = spent
        write_record(record, places)


def _made(
    study: Study, method: Method, name: str, seed: int, shard: Shard | None = None
) -> Iterator[_Made]:
    """Make what is missing of each test set and level."""
    compute_repeatably(study.profile)
    folder = study.layout.checkpoint(study.profile.checkpoint_of(name), seed)
    for scale, places in _by_scale(study.profile.data).items():
        scaled = study.at_scale(scale)
        identity = describe(scaled, method, name, folder)
        inside = _InProcess(scaled, method, folder)
        keep = partial(_keep, scaled)
        # A study goes on without a published system whose weights are not here.
        lacking = "" if method.stops_without_needs else "; ".join(method.needs(scaled))
        if lacking:
            print(f"restore {name}: {lacking}")
        for dataset, level in places:
            place = Place(dataset, level, seed, study.layout.outside(name, seed, dataset, level))
            items = method.keyed(place, list(_items(scaled, dataset, level, seed, identity)))
            if shard is not None:
                items = shard.select(items)
            missing = [item for item in items if not _is_whole(_cached(scaled, item.key))]
            title = f"{name} {dataset} {level}"
            in_process = partial(inside.restore, missing, keep, title)
            wanted = SetToRestore(scaled, place, items, missing, keep, in_process)
            loaded, begun = inside.loading, time.perf_counter()
            failures: dict[str, str] = {}
            if missing and lacking:
                failures = {item.name: lacking for item in missing}
            elif missing:
                failures = method.restore_set(wanted)
                for image, why in failures.items():
                    print(f"restore {title}: {image}: failed: {why}", flush=True)
            # Without the loading: seconds are compared by the image.
            seconds = time.perf_counter() - begun - (inside.loading - loaded)
            about: dict[str, object] = {**identity, **method.record()}
            made = len(missing) - len(failures)
            yield _Made(dataset, level, items, about, made, seconds, failures)


def _by_scale(data: Data) -> dict[int, list[tuple[str, str]]]:
    """Test sets and levels by their scale: a loaded method has one scale."""
    found: dict[int, list[tuple[str, str]]] = {}
    for dataset, level in data.places:
        found.setdefault(data.scale_of(dataset), []).append((dataset, level))
    return found


class _InProcess:
    """Restores with what :meth:`Method.load` gives, which is kept from one test set to the next."""

    def __init__(self, study: Study, method: Method, folder: Path) -> None:
        self.study, self.method, self.folder = study, method, folder
        self.restorer: Restorer | None = None
        self.loading = 0.0  # seconds

    def restore(self, items: list[Item], keep: Keep, title: str) -> dict[str, str]:
        """Restore and keep images; why there was not enough memory for some, by name."""
        if self.restorer is None:
            begun = time.perf_counter()
            self.restorer = self.method.load(self.study, self.folder)
            self.loading = time.perf_counter() - begun
        failures: dict[str, str] = {}
        bar = ProgressBar(total=len(items), desc=f"restore {title}", unit="image", mininterval=2)
        for batch in _batches(items, self.restorer.batch_size):
            failures |= _restore_batch(self.restorer, batch, keep, title)
            bar.update(len(batch))
        bar.close()
        return failures


def describe(study: Study, method: Method, name: str, folder: Path) -> Identity:
    """What decides every output of a method: settings, weights and code."""
    if method.trained and not folder.is_dir():
        raise CheckpointError(
            f"{folder}: is missing; make it with: "
            f"faithdiff train --config {study.file} --method {folder.parent.name} "
            f"--seed {folder.name[4:]}"
        )
    if method.trained:
        check_checkpoint(folder)
    # The code that makes pixels, with all that it imports. This module only moves files: an edit
    # here must not restore a study again.
    modules = ("faithdiff.restore.arrays", type(method).__module__)
    captioner = study.profile.captioner_of(name)
    others = folder.parent.parent / captioner / folder.name if captioner else None
    identity: Identity = {
        "method": name,
        "settings": method.settings(study),
        "weights": folder_digest(folder) if method.trained else None,
        "code": code_digest(*modules),
        "scale": study.profile.data.scale,
    }
    if others is not None:
        identity["captioner"] = folder_digest(others)
    return identity


def _items(study: Study, dataset: str, level: str, seed: int, identity: Identity) -> Iterator[Item]:
    recorded = lq_hashes(study.layout.lq(dataset, level))
    for name, caption in captions_of(study, dataset, level).items():
        lq = study.layout.lq(dataset, level) / f"{name}.png"
        if not lq.is_file():
            raise UserError(
                f"{lq}: is missing; make it with: faithdiff degrade --config {study.file} "
                f"--dataset {dataset} --level {level}"
            )
        check_lq(lq, recorded)
        sha256 = sha256_file(lq)
        # Not keyed by method: every method meets an image with the same noise, so that differences
        # between methods are paired and not drawn. Keyed by name: adding an image changes no other.
        noise = seeds.seed(study.profile.seed, "restore", dataset, level, name, seed)
        key = digest(identity, sha256, caption, noise)
        yield Item(name, lq, sha256, caption, noise, key)


def captions_of(study: Study, dataset: str, level: str) -> dict[str, str]:
    """Captions of a test set by name, in the order of its index: of each LQ image, or of the set.

    Raises:
        UserError: `faithdiff prepare` or `faithdiff caption` has not run, or not on these images.
    """
    index = read_index(study.layout.dataset(dataset))
    captions = dict(zip(index["name"], index["caption"], strict=True))
    if not study.profile.data.test[dataset].asks:
        return captions
    file = study.layout.captions(dataset, level)
    written = read_captions(file)
    if odd := sorted(set(written) ^ set(captions)):
        raise UserError(
            f"{file}: {odd[0]!r} is in it or in index.csv, not in both; make it again with: "
            f"faithdiff caption --config {study.file} --dataset {dataset}"
        )
    return {name: written[name] for name in captions}


def _cached(study: Study, key: str) -> Path:
    return study.layout.cached(key)


def _keep(study: Study, item: Item, image: NDArray[np.uint8]) -> None:
    write_png(image, _cached(study, item.key))


def _is_whole(file: Path) -> bool:
    """Whether a cached image is there and whole; otherwise it is made again."""
    return png_is_whole(file)


def _restore_batch(restorer: Restorer, batch: list[Item], keep: Keep, title: str) -> dict[str, str]:
    lq = torch.cat([to_tensor(read_image(item.lq)) for item in batch])
    captions, noise = [item.caption for item in batch], [item.seed for item in batch]
    try:
        restored = restore_in_memory(restorer, lq, captions, noise, f"restore {title}")
    except TooLargeError as error:
        if len(batch) == 1:
            return {batch[0].name: str(error)}
        alone = [_restore_batch(restorer, [item], keep, title) for item in batch]
        return {name: why for each in alone for name, why in each.items()}
    for item, image in zip(batch, restored, strict=True):
        # Clamping would hide NaN as some colour: fp16 that overflows must not become a score.
        if not torch.isfinite(image).all():
            raise RunError(
                f"{title}: {item.name}: the restored image holds NaN or infinity; where fp16 "
                "overflows, restore.precision: bf16 or fp32 in the profile helps"
            )
        keep(item, to_image(image))
    return {}


def _batches(items: list[Item], size: int) -> Iterator[list[Item]]:
    """Neighbours of equal size, at most `size` of them."""
    batch: list[Item] = []
    shape: tuple[int, ...] = ()
    for item in items:
        # Equal sizes only: padding an image to its neighbour's size would change its result.
        new = read_image(item.lq).shape if size > 1 else ()
        if batch and (len(batch) == size or new != shape):
            yield batch
            batch = []
        batch.append(item)
        shape = new
    if batch:
        yield batch


def _publish(study: Study, made: _Made, folder: Path, records: list[ShardRecord]) -> None:
    """Link the images under their own names, then write the manifest.

    An image that failed is listed without a hash, and is tried again by the next run.

    Args:
        records: Of the shards that came before, where there were several.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)  # never beside images of another run
    wanted = {f"{item.name}.png" for item in made.items if item.name not in made.failures}
    for stale in folder.glob("*.png"):
        if stale.name not in wanted:
            stale.unlink()
    images: dict[str, ImageEntry] = {}
    for item in made.items:
        about: ImageEntry = {"lq_sha256": item.lq_sha256, "seed": item.seed}
        # Without a hash, so that nothing can score it; the next run finds no image and tries again.
        if item.name in made.failures:
            images[item.name] = {"failed": made.failures[item.name], **about}
            continue
        target = folder / f"{item.name}.png"
        _link(_cached(study, item.key), target)
        images[item.name] = {"sha256": sha256_file(target), **about, "key": item.key}
    spent = [record["places"][f"{made.dataset}/{made.level}"] for record in records]
    manifest: dict[str, object] = {
        **made.about,
        "images": images,
        "made": made.count + sum(each["made"] for each in spent),
        "seconds": round(made.seconds + sum(each["seconds"] for each in spent), 3),
        "hardware": hardware(),
    }
    if records:
        manifest["shards"] = [{"hardware": record["hardware"]} for record in records]
    text = json.dumps(with_checksum(manifest), indent=1) + "\n"
    write_text_atomic(text, folder / "manifest.json")


def _link(source: Path, target: Path) -> None:
    # A hard link: a study has each image twice, and on disk once. A symbolic one would break when
    # the folder is copied to another place.
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        try:
            os.link(source, partial)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, partial)
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise unwritable(target, error) from None
