"""Files from outside: what they are, whether they are here and whole, and how they come.

The list is ``config/artifacts.yaml``. Only :func:`fetch` uses the network; it resumes a download
that was cut off, verifies it, and never leaves a half file under its final name.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Callable, Iterable
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.error import HTTPError, URLError

from pydantic import Field, model_validator
from tqdm import tqdm

from faithdiff.config import Name, Section, load_yaml
from faithdiff.data.images import sha256_file
from faithdiff.errors import CheckpointError, ConfigError, RunError, UserError
from faithdiff.files import write_text_atomic
from faithdiff.provenance import folder_digest

ARTIFACTS_FILE = Path("config/artifacts.yaml")

RECORD = "recorded.json"  # name -> hash and size of what was fetched, beside the files
_BLOCK = 1 << 20  # bytes

Opener = Callable[[urllib.request.Request], Any]


class Artifact(Section):
    """One external file; see the comments in ``config/artifacts.yaml``."""

    name: Name
    address: Annotated[str, Field(pattern=r"^https?://")]
    path: PurePosixPath
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    sha256_prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{4,64}$")] | None
    size_mb: Annotated[float, Field(gt=0)]
    licence: str
    profiles: list[Name]

    @model_validator(mode="after")
    def _consistent(self) -> Artifact:
        if self.path.is_absolute() or ".." in self.path.parts:
            raise ValueError(f"path {self.path} leaves the folder of the artifacts")
        if self.sha256 and not self.sha256.startswith(self.sha256_prefix or ""):
            raise ValueError(f"sha256_prefix {self.sha256_prefix} is not how sha256 begins")
        return self

    def file(self, root: Path) -> Path:
        """Where the file lies under `root`."""
        return root / self.path


class Shipped(Section):
    """Weights that come with the repository: what made them, and what they must hash to."""

    name: Name
    path: Path
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # provenance.folder_digest
    size_mb: Annotated[float, Field(gt=0)]
    licence: str
    command: str
    seed: int
    commit: str


class _File(Section):
    artifacts: list[Artifact]
    shipped: list[Shipped] = []


def check_shipped(folder: Path, path: Path = ARTIFACTS_FILE) -> None:
    """Check weights that ship with the repository against ``artifacts.yaml``.

    Raises:
        CheckpointError: The folder is missing, or is listed there and differs.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: is missing; run from the root of the repository")
    for shipped in load_yaml(path, _File).shipped:
        if shipped.path == folder and folder_digest(folder) != shipped.digest:
            raise CheckpointError(
                f"{folder}: is not the {shipped.name} of {path} (damaged, or changed); get it back "
                f"with: git checkout {folder}"
            )


def load_artifacts(path: Path) -> dict[str, Artifact]:
    """Read the list of artifacts, by name.

    Raises:
        ConfigError: The file does not fit the schema, or a name comes twice.
    """
    listed = load_yaml(path, _File).artifacts
    artifacts = {artifact.name: artifact for artifact in listed}
    for artifact in listed:
        if artifacts[artifact.name] is not artifact:
            raise ConfigError(f"{path}: artifacts: the name {artifact.name!r} comes twice")
    return artifacts


def select(artifacts: dict[str, Artifact], names: Iterable[str]) -> list[Artifact]:
    """Pick artifacts by name, each once, in the order of the list.

    Raises:
        ConfigError: There is none of that name.
    """
    wanted = set(names)
    if unknown := sorted(wanted - set(artifacts)):
        raise ConfigError(f"no artifact is named {unknown[0]!r}; there are {', '.join(artifacts)}")
    return [artifact for name, artifact in artifacts.items() if name in wanted]


def state(artifact: Artifact, root: Path) -> str:
    """Look at the file: ``ok``, ``missing`` or ``corrupt: <why>``. Reads and hashes all of it."""
    return check(artifact, root)[0]


def check(artifact: Artifact, root: Path) -> tuple[str, str]:
    """As :func:`state`, with the file's sha256 (empty where it is missing)."""
    file = artifact.file(root)
    if not file.is_file():
        return "missing", ""
    found = sha256_file(file)
    expected = _expected(artifact, root)
    if found.startswith(expected):
        return "ok", found
    return f"corrupt: sha256 {found[:12]}..., expected {expected[:12]}...", found


def quick_state(artifact: Artifact, root: Path) -> str:
    """Tell versions of the file apart without reading it: ``missing``, its hash, or ``size:N``.

    The hash is the recorded one, as long as the size is still the recorded size. Cheap enough for
    every dry run of a workflow, and free of time stamps, which copying changes.
    """
    file = artifact.file(root)
    if not file.is_file():
        return "missing"
    size = file.stat().st_size
    entry = _recorded(root).get(artifact.name, {})
    return str(entry["sha256"]) if entry.get("size") == size else f"size:{size}"


def fetch_all(
    artifacts: Iterable[Artifact],
    root: Path,
    say: Callable[[str], None] = print,
    opener: Opener = urllib.request.urlopen,
) -> None:
    """Fetch what is missing or corrupt; says first how many GB it will take.

    Raises:
        RunError: A download failed; what had arrived is kept for the next try.
    """
    wanted, todo = list(artifacts), []
    for artifact in wanted:
        found, sha256 = check(artifact, root)
        if found == "ok":
            _record(artifact, root, sha256)
        else:
            todo.append(artifact)
    total = sum(artifact.size_mb for artifact in todo) / 1000
    say(f"{len(wanted) - len(todo)} of {len(wanted)} files are in {root} already")
    if todo:
        say(f"fetching {len(todo)} files, about {total:.2f} GB, into {root}")
    for artifact in todo:
        say(f"{artifact.name}: {artifact.address} ({artifact.licence})")
        fetch(artifact, root, opener)


def fetch(artifact: Artifact, root: Path, opener: Opener = urllib.request.urlopen) -> Path:
    """Download one artifact, resuming ``<file>.part`` where there is one, and verify it.

    Args:
        artifact: What to fetch.
        root: The folder that its path is relative to.
        opener: Opens a request as :func:`urllib.request.urlopen` does.

    Returns:
        The file, whole and verified; its hash is recorded in ``recorded.json``.

    Raises:
        RunError: The address does not answer, the transfer ends early, or the hash is wrong.
    """
    file = artifact.file(root)
    found, sha256 = check(artifact, root)
    if found != "ok":
        _make_room(artifact, file)
        part = file.with_name(file.name + ".part")
        _download(artifact, part, opener)
        sha256 = _verify(artifact, root, part)
        os.replace(part, file)
    _record(artifact, root, sha256)
    return file


def _make_room(artifact: Artifact, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(file.parent).free / 1e6
    if free < artifact.size_mb:
        raise UserError(
            f"{file.parent}: {artifact.name} needs {artifact.size_mb:g} MB, {free:.0f} MB are free"
        )


def _download(artifact: Artifact, part: Path, opener: Opener) -> None:
    had = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "faithdiff"} | ({"Range": f"bytes={had}-"} if had else {})
    request = urllib.request.Request(artifact.address, headers=headers)
    try:
        with opener(request) as response:
            _receive(artifact, response, part, had)
    except HTTPError as error:
        if error.code != 416:  # 416: nothing is left to send; the hash decides
            raise RunError(f"{artifact.name}: {artifact.address} answers {error}") from None
    except (URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise RunError(
            f"{artifact.name}: {artifact.address}: {reason}; run the same command again to resume"
        ) from None


def _receive(artifact: Artifact, response: Any, part: Path, had: int) -> None:
    resumed = response.status == 206  # a server without ranges sends it all again
    start = had if resumed else 0
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    mode: Literal["ab", "wb"] = "ab" if resumed else "wb"
    with (
        part.open(mode) as out,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=artifact.name) as bar,
    ):
        while block := response.read(_BLOCK):
            out.write(block)
            bar.update(len(block))
    got = part.stat().st_size
    if total is not None and got < total:
        raise RunError(
            f"{artifact.name}: the transfer ended after {got} of {total} bytes; "
            "run the same command again to resume"
        )


def _verify(artifact: Artifact, root: Path, part: Path) -> str:
    found, expected = sha256_file(part), _expected(artifact, root)
    if not found.startswith(expected):
        part.unlink()  # resuming would only append to the wrong bytes
        raise RunError(
            f"{artifact.name}: {artifact.address} gave a file with sha256 {found}, "
            f"expected {expected}; deleted. Try again, or look for a new address"
        )
    return found


def _expected(artifact: Artifact, root: Path) -> str:
    """The hash to expect, or how it begins: published, recorded on first fetch, or by name."""
    recorded = _recorded(root).get(artifact.name, {}).get("sha256")
    return str(artifact.sha256 or recorded or artifact.sha256_prefix or "")


def _recorded(root: Path) -> dict[str, dict[str, Any]]:
    file = root / RECORD
    if not file.exists():
        return {}
    try:
        entries: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{file}: is not JSON; delete it, and fetch again") from None
    return entries


def _record(artifact: Artifact, root: Path, sha256: str) -> None:
    size = artifact.file(root).stat().st_size
    entries = _recorded(root)
    if entries.get(artifact.name) == (entry := {"sha256": sha256, "size": size}):
        return
    text = json.dumps(entries | {artifact.name: entry}, indent=1, sort_keys=True)
    write_text_atomic(text + "\n", root / RECORD)
