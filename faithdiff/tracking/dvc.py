"""Records what a run made in DVC: Snakemake schedules, DVC remembers, neither repeats the other.

The stage ``study@<profile>`` of ``dvc.yaml`` names what is recorded. Recording runs no job and
changes no output: ``dvc.lock`` gets the hashes, DVC's cache gets copies.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from faithdiff.errors import CorruptedError, RunError, UserError
from faithdiff.study.files import left_by_git, write_text_atomic
from faithdiff.study.lockfile import LOCK, LockedStage, locked_stages, stage_name
from faithdiff.tracking.jobs import restore_jobs, save_jobs

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

Stamp = dict[str, JsonValue]  # what was recorded, or why nothing was
AGAIN = "then run snakemake again; finished jobs are kept"
NO_CHECKOUT = "this folder is not a Git checkout, and DVC tells versions apart by commit"
MEND = f"free space, or drop old versions with `dvc gc --workspace`, {AGAIN}"


def version_study(profile_name: str, root: Path, stamp: Path) -> None:
    """Write the hashes of a profile's outputs to ``dvc.lock`` and copies to DVC's cache.

    Where there is nothing to record in (no stage for the profile, no Git checkout), nothing is
    touched and the stamp says why.

    Args:
        profile_name: Profile whose stage is recorded.
        root: Folder of the run, which holds ``dvc.yaml``.
        stamp: JSON file that says what was recorded; written last.

    Raises:
        UserError: DVC is not initialised here, or ``dvc.yaml`` is corrupted.
        RunError: An output is missing, the disk is full, or DVC failed.
    """
    start = time.monotonic()
    name = stage_name(profile_name)
    _check_merged(root)
    if reason := _why_not(name, root):
        _skip(name, reason, stamp)
        return
    save_jobs(profile_name, root)
    # Set by DVC for the commands that it runs. It holds a lock, and hashes the outputs itself.
    if os.environ.get("DVC_STAGE") == name:
        _skip(name, "`dvc repro` runs this and records the outputs itself when it ends", stamp)
        return
    with _dvc(root) as repo:
        _check_present(_stage(repo, name), name)
        with _kept_on_failure(root / LOCK):
            # force: outputs that differ from dvc.lock are the point. relink would replace them by
            # copies from the cache, and so change their times.
            repo.commit(_target(repo, name), force=True, relink=False)
            _check_cached(_stage(repo, name))
    _write_stamp(stamp, _recorded(name, root) | {"seconds": round(time.monotonic() - start, 1)})


def pull_study(profile_name: str, root: Path, stamp: Path, remote: str | None = None) -> None:
    """Fetch the outputs that ``dvc.lock`` names, so that Snakemake has nothing left to do.

    Args:
        profile_name: Profile whose stage is fetched.
        root: Folder of the run, a Git checkout.
        stamp: The file that :func:`version_study` writes.
        remote: Name of a DVC remote; default: the default remote.

    Raises:
        UserError: There is nothing to fetch or no remote, or a result differs from ``dvc.lock``.
        RunError: The remote lacks a file, or cannot be read.
        CorruptedError: An object of DVC's cache is corrupted.
    """
    name = stage_name(profile_name)
    _check_merged(root)
    if reason := _why_not(name, root):
        raise UserError(f"{name}: cannot be pulled: {reason}")
    if name not in _locked(root):
        raise UserError(f"dvc.lock: has no {name}: its results were never committed")
    with _dvc(root) as repo:
        if remote is None and not repo.config["core"].get("remote"):
            raise UserError(
                "no DVC remote: name the folder or address where the data lies with: "
                "dvc remote add --default NAME ADDRESS"
            )
        repo.fetch(targets=[_target(repo, name)], remote=remote)
        # DVC trusts what its cache holds, unread, and would check out a corrupted object.
        for oid in {oid for out in _stage(repo, name).outs for oid in _objects(out)}:
            check_object(Path(repo.cache.local.oid_to_path(oid)), oid)
        repo.pull(targets=[_target(repo, name)], remote=remote)
        if changed := [out.def_path for out in _stage(repo, name).outs if out.status()]:
            raise UserError(
                f"{', '.join(changed)}: not what dvc.lock says; "
                "bring the committed version back with: git checkout, dvc checkout"
            )
    restored = restore_jobs(profile_name, root)
    _write_stamp(stamp, _recorded(name, root))
    print(f"{name}: {restored} outputs restored")


def object_folder(root: Path) -> Path | None:
    """Where DVC's cache keeps its objects; None where there is no DVC.

    Raises:
        RunError: DVC cannot open the folder, as where it is no Git checkout.
    """
    if not (root / ".dvc").is_dir():
        return None
    if not _is_checkout(root):
        raise RunError(NO_CHECKOUT)
    with _dvc(root) as repo:
        return Path(repo.cache.local.path)


def check_object(file: Path, oid: str) -> None:
    """Check a file of DVC's cache against its name; one that is not there is left out.

    Raises:
        CorruptedError: They differ.
    """
    if not file.is_file():
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != oid.removesuffix(".dir"):
        raise CorruptedError(
            f"{file}: is corrupted: md5 {found[:12]}..., its name says {oid[:12]}...; remove it "
            "with: faithdiff verify --repair, then get it again with: faithdiff pull, or from the "
            "study's own files with: faithdiff version-study"
        )


def _check_merged(root: Path) -> None:
    """Refuse files of DVC that hold both sides of a merge, of which DVC says only "corrupted"."""
    for file in (root / "dvc.yaml", root / LOCK):
        if file.is_file() and (said := left_by_git(file.read_bytes(), file.name)):
            raise UserError(f"{file}: {said}")


def _why_not(name: str, root: Path) -> str | None:
    """Why there is nothing to record in, or None."""
    if not (root / "dvc.yaml").is_file():
        return "there is no dvc.yaml in this folder"
    if not (root / ".dvc").is_dir():
        raise UserError(f"{root.resolve()}: DVC is not initialised; do it with: dvc init")
    from dvc.stage.exceptions import StageNotFound

    if not _is_checkout(root):
        return NO_CHECKOUT
    with _dvc(root) as repo:
        try:
            _stage(repo, name)
        except StageNotFound:
            return f"dvc.yaml has no stage {name}; to version it, name the profile there"
    return None


def _is_checkout(root: Path) -> bool:
    from dvc.scm import SCM, SCMError

    try:
        SCM(str(root.resolve()))
    except SCMError:
        return False
    return True


def _target(repo: Repo, name: str) -> str:
    # A bare name would be looked up in the dvc.yaml of the current directory.
    return f"{repo.root_dir}/dvc.yaml:{name}"


def _stage(repo: Repo, name: str) -> PipelineStage:
    (stage,) = repo.stage.collect(_target(repo, name))
    return stage


def _check_present(stage: PipelineStage, name: str) -> None:
    if missing := [out.def_path for out in stage.outs if not out.exists]:
        raise RunError(
            f"dvc.yaml: {name}: not there: {', '.join(missing)}; make it with: {stage.cmd}"
        )


def _check_cached(stage: PipelineStage) -> None:
    # DVC only logs that a file did not reach the cache, and writes the lock all the same.
    wanted = {oid for out in stage.outs if out.use_cache for oid in _objects(out)}
    cache = stage.repo.cache.local
    if missing := [oid for oid in wanted if not cache.exists(oid)]:
        free = shutil.disk_usage(cache.path).free / 1e6
        raise RunError(
            f"{cache.path}: {len(missing)} objects could not be written (see above; "
            f"{free:.1f} MB are free); dvc.lock is as before; {MEND}"
        )


def _objects(out: Output) -> Iterator[str]:
    yield out.hash_info.value
    if out.is_dir_checksum:
        yield from (info.value for _, _, info in out.get_obj() or ())


@contextmanager
def _kept_on_failure(lock: Path) -> Iterator[None]:
    """Put the file back as it was if the block fails; a rename, so a full disk is no obstacle."""
    before = lock.with_name(f".{lock.name}.partial")
    before.unlink(missing_ok=True)
    if lock.is_file():
        shutil.copyfile(lock, before)
    try:
        yield
    except BaseException:
        if before.is_file():
            before.replace(lock)
        else:
            lock.unlink(missing_ok=True)
        raise
    before.unlink(missing_ok=True)


@contextmanager
def _dvc(root: Path) -> Iterator[Repo]:
    """Open the repository; what DVC raises becomes one message of ours."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    try:
        with Repo(str(root.resolve())) as repo:
            yield repo
    except LockError:
        raise RunError(f"{root / '.dvc'}: another dvc command is running; wait, {AGAIN}") from None
    except (DvcException, OSError) as error:
        raise RunError(_explain(error, root)) from error


def _explain(error: BaseException, root: Path) -> str:
    from dvc.exceptions import CheckoutError, DownloadError

    # DVC counts what failed, and names it only by hash in its log above. A remote that lost a file
    # is not mended by `dvc push`, which believes that it is there.
    if isinstance(error, DownloadError | CheckoutError):
        return (
            "dvc: files of the study are neither in DVC's cache nor in the remote, or cannot be "
            "read there; is its disk mounted (dvc remote list)? If they were never pushed, do so "
            "where the study was made (dvc push), then pull again; or make them here: "
            "snakemake --cores all, which keeps what is there"
        )
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    if any(isinstance(c, OSError) and c.errno in (errno.ENOSPC, errno.EDQUOT) for c in causes):
        return f"{root.resolve()}: dvc could not write: the disk is full; {MEND}"
    if isinstance(error, OSError) and error.errno != errno.ENOSPC:
        return (
            f"dvc: {error.filename or root}: {error.strerror}; is the disk of DVC's cache mounted, "
            "and yours to write to (dvc cache dir)?"
        )
    return f"dvc: {error}"


def _locked(root: Path) -> dict[str, LockedStage]:
    lock = root / LOCK
    if not lock.is_file():
        return {}
    try:
        return locked_stages(lock.read_bytes())
    except ValueError as error:
        raise UserError(f"{lock}: {error}") from None


def _recorded(name: str, root: Path) -> Stamp:
    shown: dict[str, JsonValue] = {}
    for out in _locked(root)[name]["outs"]:
        files = f"{out['nfiles']} files, " if "nfiles" in out else ""
        print(f"{name}: {out['path']}: {files}{out['size'] / 1e6:.1f} MB, md5 {out['md5']}")
        shown[out["path"]] = {
            "md5": out["md5"],
            "size": out["size"],
            **({"nfiles": out["nfiles"]} if "nfiles" in out else {}),
        }
    return {"stage": name, "versioned": True, "outs": shown}


def _skip(name: str, reason: str, stamp: Path) -> None:
    _write_stamp(stamp, {"stage": name, "versioned": False, "reason": reason})
    print(f"{name}: not versioned: {reason}")


def _write_stamp(stamp: Path, content: Stamp) -> None:
    write_text_atomic(json.dumps(content, indent=1) + "\n", stamp)
