"""Restores every test set and level with one trained method, and resumes at the image.

Finished images go into a store outside the job's declared outputs, named by a key over input,
weights, settings, code and seed; the declared output is a manifest written last. So a killed job
continues where it was, and a stale image can never be taken for a new one.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from faithdiff import seeds
from faithdiff.config import Data, digest
from faithdiff.data.captions import read_captions
from faithdiff.data.datasets import read_index
from faithdiff.data.images import read_image, sha256_file, write_png
from faithdiff.errors import CheckpointError, ImageError, RunError, UserError
from faithdiff.files import write_text_atomic
from faithdiff.methods import Foreign, Item, Method, Place, Restorer, Study
from faithdiff.provenance import code_digest, folder_digest, hardware
from faithdiff.restore.arrays import to_image, to_tensor


def restore_job(study: Study, method: Method, name: str, seed: int) -> None:
    """Restore all test sets and levels with one (method, seed).

    Writes, for each, ``<image>.png`` and then ``manifest.json``. Images that a method outside of
    this process failed on are in the manifest alone, with the reason.
    """
    torch.set_num_threads(1)
    folder = study.layout.checkpoint(name, seed)
    for scale, places in _by_scale(study.profile.data).items():
        _restore_places(study.at_scale(scale), method, name, seed, folder, places)


def _by_scale(data: Data) -> dict[int, list[tuple[str, str]]]:
    """Test sets and levels by their scale: a loaded method has one scale."""
    found: dict[int, list[tuple[str, str]]] = {}
    for dataset, level in data.places:
        found.setdefault(data.scale_of(dataset), []).append((dataset, level))
    return found


def _restore_places(
    study: Study,
    method: Method,
    name: str,
    seed: int,
    folder: Path,
    places: list[tuple[str, str]],
) -> None:
    identity = describe(study, method, name, folder)
    if isinstance(method, Foreign):
        for dataset, level in places:
            _restore_outside(study, method, identity, seed, dataset, level)
        return
    restorer: Restorer | None = None
    for dataset, level in places:
        items = list(_items(study, dataset, level, seed, identity))
        missing = [item for item in items if not _is_whole(_stored(study, item.key))]
        if missing and restorer is None:
            restorer = method.load(study, folder)
        begun = time.perf_counter()
        if restorer is not None:
            _restore(study, restorer, missing, f"{name} {dataset} {level}")
        seconds = time.perf_counter() - begun
        target = study.layout.restoration(name, seed, dataset, level)
        _publish(study, items, target, identity, len(missing), seconds)


def _restore_outside(
    study: Study, method: Foreign, identity: dict[str, Any], seed: int, dataset: str, level: str
) -> None:
    """Let a method outside of this process restore what is missing; its failures are recorded."""
    name = identity["method"]
    place = Place(dataset, level, seed, study.layout.outside(name, seed, dataset, level))
    items = method.keyed(place, list(_items(study, dataset, level, seed, identity)))
    missing = [item for item in items if not _is_whole(_stored(study, item.key))]
    begun = time.perf_counter()
    failures: dict[str, str] = {}
    if missing:
        failures = method.restore_folder(
            study,
            place,
            items,
            missing,
            lambda item, image: write_png(image, _stored(study, item.key)),
        )
    for image, why in failures.items():
        print(f"restore {name} {dataset} {level}: {image}: failed: {why}")
    seconds = time.perf_counter() - begun
    target = study.layout.restoration(name, seed, dataset, level)
    made = len(missing) - len(failures)
    _publish(study, items, target, identity | method.record(), made, seconds, failures)


def describe(study: Study, method: Method, name: str, folder: Path) -> dict[str, Any]:
    """What decides every output of a method: settings, weights and code."""
    if method.trained and not folder.is_dir():
        raise CheckpointError(
            f"{folder}: is missing; make it with: "
            f"faithdiff train --config {study.file} --method {name} --seed {folder.name[4:]}"
        )
    modules = ("faithdiff.restore.arrays", type(method).__module__)
    return {
        "method": name,
        "settings": method.settings(study),
        "weights": folder_digest(folder) if method.trained else None,
        "code": code_digest(*modules),
        "scale": study.profile.data.scale,
    }


def _items(
    study: Study, dataset: str, level: str, seed: int, identity: dict[str, Any]
) -> Iterator[Item]:
    for name, caption in captions_of(study, dataset, level).items():
        lq = study.layout.lq(dataset, level) / f"{name}.png"
        if not lq.is_file():
            raise UserError(
                f"{lq}: is missing; make it with: faithdiff degrade --config {study.file} "
                f"--dataset {dataset} --level {level}"
            )
        sha256 = sha256_file(lq)
        # Not keyed by method: every method meets an image with the same noise.
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


def _stored(study: Study, key: str) -> Path:
    return study.layout.store / key[:2] / f"{key}.png"


def _is_whole(file: Path) -> bool:
    """Whether a stored image is there and can be decoded; a damaged one is made again."""
    try:
        read_image(file)
    except ImageError:
        return False
    return True


def _restore(study: Study, restorer: Restorer, items: list[Item], title: str) -> None:
    bar = tqdm(total=len(items), desc=f"restore {title}", unit="image", mininterval=2)
    for batch in _batches(items, restorer.batch_size):
        lq = torch.cat([to_tensor(read_image(item.lq)) for item in batch])
        restored = restorer.restore(lq, [i.caption for i in batch], [i.seed for i in batch])
        for item, image in zip(batch, restored, strict=True):
            if not torch.isfinite(image).all():
                raise RunError(f"{title}: {item.name}: the restored image holds NaN or infinity")
            write_png(to_image(image), _stored(study, item.key))
        bar.update(len(batch))
    bar.close()


def _batches(items: list[Item], size: int) -> Iterator[list[Item]]:
    """Neighbours of equal size, at most `size` of them."""
    batch: list[Item] = []
    shape: tuple[int, ...] = ()
    for item in items:
        new = read_image(item.lq).shape if size > 1 else ()
        if batch and (len(batch) == size or new != shape):
            yield batch
            batch = []
        batch.append(item)
        shape = new
    if batch:
        yield batch


def _publish(
    study: Study,
    items: list[Item],
    folder: Path,
    identity: dict[str, Any],
    made: int,
    seconds: float,
    failures: Mapping[str, str] | None = None,
) -> None:
    """Link the images under their own names, then write the manifest.

    Args:
        failures: Why there is no image, by name; such an image is listed without a hash, and is
            tried again by the next run.
    """
    failures = failures or {}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)  # never beside images of another run
    wanted = {f"{item.name}.png" for item in items if item.name not in failures}
    for stale in folder.glob("*.png"):
        if stale.name not in wanted:
            stale.unlink()
    images: dict[str, dict[str, Any]] = {}
    for item in items:
        if item.name in failures:
            why = {"failed": failures[item.name], "lq_sha256": item.lq_sha256, "seed": item.seed}
            images[item.name] = why
            continue
        target = folder / f"{item.name}.png"
        _link(_stored(study, item.key), target)
        images[item.name] = {
            "sha256": sha256_file(target),
            "lq_sha256": item.lq_sha256,
            "seed": item.seed,
            "key": item.key,
        }
    manifest = {
        **identity,
        "images": images,
        "made": made,
        "seconds": round(seconds, 3),
        "hardware": hardware(),
    }
    write_text_atomic(json.dumps(manifest, indent=1) + "\n", folder / "manifest.json")


def _link(source: Path, target: Path) -> None:
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
        raise RunError(f"{target}: cannot be written: {error.strerror}") from None
