"""Files from outside: what they are, and whether they are here and whole.

The list is ``config/artifacts.yaml``. A file is either downloaded from an address, or lies inside
an installed package, which is located but never imported. Nothing here uses the network:
:mod:`faithdiff.data.download` brings one file, :mod:`faithdiff.data.fetch` all that a profile
needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypedDict
from urllib.parse import quote

from pydantic import Field, model_validator

from faithdiff.config import Name, Section, load_yaml
from faithdiff.data.images import sha256_file
from faithdiff.data.outside import contents, remember
from faithdiff.errors import CheckpointError, ConfigError, UserError
from faithdiff.study.files import lfs_pointer, write_text_atomic
from faithdiff.study.provenance import folder_digest

ARTIFACTS_FILE = Path("config/artifacts.yaml")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
RECORD = "recorded.json"  # name -> hash and size of what was fetched, beside the files

Url = Annotated[str, Field(pattern=r"^https?://")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Megabytes = Annotated[float, Field(gt=0)]


class _Source(Section):
    """What a single file and a folder of files have in common."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./+%-]*$")]
    mirrors: tuple[Url, ...] = ()  # other addresses of the same bytes, tried in this order
    path: PurePosixPath
    root: Literal["weights", "data"] = "weights"
    licence: str
    profiles: list[Name]
    gated: bool = False  # a person must fetch it: an account, a form, a drive without direct links
    how: str = ""  # what that person does

    @model_validator(mode="after")
    def _reachable(self) -> _Source:
        _stays_inside("path", self.path)
        if self.gated and not self.how:
            raise ValueError("gated: say under `how` what a person must do")
        return self


class Package(Section):
    """An installed distribution that brings a file; what else it holds is not used."""

    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.]*$")]  # that pip is told to install

    @property
    def installed(self) -> Distribution | None:
        """The distribution as it is installed here, in whatever version; None where it is not."""
        try:
            return Distribution.from_name(self.distribution)
        except PackageNotFoundError:
            return None

    @property
    def command(self) -> str:
        """The command that installs it, or installs it again where its files are wrong."""
        again = "--force-reinstall " if self.installed else ""
        return f"pip install --no-deps {again}{self.distribution}=={self.version}"


class Artifact(_Source):
    """One external file; see the comments in ``config/artifacts.yaml``."""

    address: Url | None = None
    package: Package | None = None  # in place of an address; `path` is then inside of it
    sha256: Sha256 | None
    sha256_prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{4,64}$")] | None = None
    size_mb: Megabytes | None
    unpack: PurePosixPath | None = None  # folder that receives the content of an archive
    unpacked_mb: Megabytes | None = None  # a larger content is refused

    @model_validator(mode="after")
    def _consistent(self) -> Artifact:
        if (self.address is None) == (self.package is None):
            raise ValueError("give either an address or a package")
        if self.package and (not (self.sha256 and self.size_mb) or self.gated or self.unpack):
            raise ValueError("package: needs sha256 and size_mb, and is neither gated nor unpacked")
        if self.sha256 and not self.sha256.startswith(self.sha256_prefix or ""):
            raise ValueError(f"sha256_prefix {self.sha256_prefix} is not how sha256 begins")
        if self.size_mb is None and not self.gated:
            raise ValueError("size_mb: only what a person fetches may be of unknown size")
        if self.unpack is not None:
            _stays_inside("unpack", self.unpack)
            if not self.path.name.endswith(ARCHIVES):
                raise ValueError(f"unpack: {self.path.name} is no {', '.join(ARCHIVES)}")
            if self.unpacked_mb is None:
                raise ValueError("unpacked_mb: is missing; it bounds the content of the archive")
        return self

    @property
    def megabytes(self) -> float:
        """The size for sums; 0 where it is not known."""
        return self.size_mb or 0.0

    @property
    def addresses(self) -> list[str]:
        """Where to ask for the file, in order."""
        return [address for address in (self.address, *self.mirrors) if address]

    def file(self, root: Path) -> Path:
        """Where the file lies: in the installed package that brings it, else under `root`."""
        found = self.package.installed if self.package else None
        return Path(str(found.locate_file(self.path))) if found else root / self.path

    def is_here(self, root: Path) -> bool:
        """Whether the file, or the content of an archive, is there; nothing is read."""
        folder = self.folder(root)
        return self.file(root).is_file() or (folder is not None and folder.is_dir())

    def folder(self, root: Path) -> Path | None:
        """Where the content of an archive lies under `root`; None for any other file."""
        return None if self.unpack is None else root / self.unpack


class _Part(Section):
    """One file of a folder; its path is the same there and here."""

    path: PurePosixPath
    sha256: Sha256 | None
    size_mb: Megabytes


class Folder(_Source):
    """Several files of one repository; `address` and `mirrors` are of the folder."""

    address: Url
    files: Annotated[list[_Part], Field(min_length=1)]

    def artifacts(self) -> list[Artifact]:
        """The files as artifacts named ``<folder>/<file>``."""
        shared = self.model_dump(exclude={"name", "address", "mirrors", "path", "files"})
        return [
            Artifact(
                **shared,
                name=f"{self.name}/{part.path}",
                address=_join(self.address, part.path),
                mirrors=tuple(_join(mirror, part.path) for mirror in self.mirrors),
                path=self.path / part.path,
                sha256=part.sha256,
                size_mb=part.size_mb,
            )
            for part in self.files
        ]


def _join(folder: str, path: PurePosixPath) -> str:
    return f"{folder.rstrip('/')}/{quote(str(path))}"


def _stays_inside(field: str, path: PurePosixPath) -> None:
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{field} {path} leaves the folder of the artifacts")


class Shipped(Section):
    """Weights that come with the repository: what made them, and what they must hash to."""

    name: Name
    path: Path
    digest: Sha256  # provenance.folder_digest
    size_mb: Megabytes
    licence: str
    command: str
    seed: int
    commit: str


class _ArtifactsFile(Section):
    artifacts: tuple[Artifact, ...] = ()
    folders: tuple[Folder, ...] = ()
    shipped: tuple[Shipped, ...] = ()


def check_shipped(folder: Path, path: Path = ARTIFACTS_FILE) -> None:
    """Check weights that ship with the repository against ``artifacts.yaml``.

    Raises:
        CheckpointError: The folder is missing, or is listed there and differs.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: is missing; run from the root of the repository, and where it comes from "
            "outside (docs/data.md), fetch it first"
        )
    for shipped in load_yaml(path, _ArtifactsFile).shipped:
        if shipped.path == folder and folder_digest(folder) != shipped.digest:
            back = (
                f"get it back with: rm -r {folder} && git checkout -- {folder}; if git changes "
                "line endings, with `git config core.autocrlf false` before"
                if Path(".git").exists()
                else "this copy has no .git to get it back from: take it from another copy"
            )
            raise CheckpointError(
                f"{folder}: is not the {shipped.name} of {path} (corrupted, or changed); {back}"
            )


def gigabytes(artifacts: Iterable[Artifact]) -> float:
    """Their listed sizes together; what has none counts as nothing."""
    return sum(artifact.megabytes for artifact in artifacts) / 1000


def load_artifacts(path: Path) -> dict[str, Artifact]:
    """Read the list of artifacts, by name; the files of a folder are ``<folder>/<file>``.

    Raises:
        ConfigError: The file does not fit the schema, or a name comes twice.
    """
    content = load_yaml(path, _ArtifactsFile)
    listed = [*content.artifacts, *(a for folder in content.folders for a in folder.artifacts())]
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


def needed_by(profile: str, artifacts: dict[str, Artifact]) -> list[Artifact]:
    """Pick what a profile needs.

    Raises:
        ConfigError: No artifact names this profile.
    """
    found = [artifact for artifact in artifacts.values() if profile in artifact.profiles]
    if not found:
        known = sorted({name for artifact in artifacts.values() for name in artifact.profiles})
        raise ConfigError(
            f"no artifact lists the profile {profile!r}; there are {', '.join(known)} "
            f"(`profiles` in {ARTIFACTS_FILE})"
        )
    return found


def state(artifact: Artifact, root: Path) -> str:
    """Look at the file: ``ok``, ``missing`` or ``corrupt: <why>``. Reads and hashes all of it."""
    return check(artifact, root)[0]


def check(artifact: Artifact, root: Path) -> tuple[str, str]:
    """As :func:`state`, with the file's sha256 (empty where it is missing)."""
    file = artifact.file(root)
    if not file.is_file():
        return "missing", ""
    found = sha256_file(file)
    wanted = expected(artifact, root)
    if found.startswith(wanted):
        return "ok", found
    if pointer := lfs_pointer(file):
        return f"corrupt: {pointer}", found
    return f"corrupt: sha256 {found[:12]}..., expected {wanted[:12]}...", found


def quick_state(artifact: Artifact, root: Path) -> str:
    """Tell versions of the file apart for a plan: ``missing``, or its hash.

    It is read once, and again when it looks changed (:mod:`faithdiff.data.outside`). Whoever
    uses the file hashes it first.
    """
    file = artifact.file(root)
    return contents([file])[file]


def lacking(files: Iterable[tuple[Artifact, str]], fetch: str) -> str:
    """Say which files are missing or corrupt, and how to get them; empty where all are ok.

    Args:
        files: Artifacts with their states.
        fetch: The command that brings those that are downloaded.
    """
    to_fetch: list[str] = []
    of_packages: dict[Package, list[str]] = {}
    for artifact, found in files:
        if found == "ok":
            continue
        if artifact.package is None:
            detail = "" if found == "missing" else f", here {found}"
            to_fetch.append(f"{artifact.path.name} ({artifact.megabytes:g} MB{detail})")
        else:
            detail = "" if found == "missing" else f" (here {found})"
            of_packages.setdefault(artifact.package, []).append(f"{artifact.path.name}{detail}")
    said = [f"needs {', '.join(to_fetch)}; run: {fetch}"] if to_fetch else []
    said += [
        f"needs {', '.join(names)} of the package {package.distribution} {package.version}; "
        f"run: {package.command}"
        for package, names in of_packages.items()
    ]
    return "; ".join(said)


def expected(artifact: Artifact, root: Path) -> str:
    """The hash to expect, or how it begins: published, recorded on first fetch, or by name."""
    known = recorded(root).get(artifact.name)
    kept = known.get("sha256") if known else ""
    return artifact.sha256 or kept or artifact.sha256_prefix or ""


class KnownFile(TypedDict):
    """A file that was here: its hash and its size in bytes."""

    sha256: str
    size: int


def recorded(root: Path) -> dict[str, KnownFile]:
    """What ``recorded.json`` holds: hash and size by name.

    Raises:
        UserError: It is corrupted.
    """
    file = root / RECORD
    if not file.exists():
        return {}
    try:
        entries: dict[str, KnownFile] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{file}: is not JSON; delete it, and fetch again") from None
    return entries


def record(artifact: Artifact, root: Path, sha256: str) -> None:
    """Remember the hash of a file that is here, for the next look at it, and for plans."""
    remember(artifact.file(root), sha256)
    size = artifact.file(root).stat().st_size
    entries = recorded(root)
    entry = KnownFile(sha256=sha256, size=size)
    if entries.get(artifact.name) == entry:
        return
    text = json.dumps(entries | {artifact.name: entry}, indent=1, sort_keys=True)
    write_text_atomic(text + "\n", root / RECORD)
