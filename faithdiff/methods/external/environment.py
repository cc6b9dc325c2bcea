"""A Python environment for a method that cannot live in the suite's own.

Given as a folder that is there already, as a requirements file or a lock (made with uv where that
is installed, else with venv and pip), or as a conda file. What is made lies under
``official/environments``, named by the content of its file; a marker is written last.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from faithdiff.config import digest
from faithdiff.data.images import sha256_file
from faithdiff.errors import RunError, UserError
from faithdiff.study.files import write_text_atomic
from faithdiff.study.layout import OFFICIAL
from faithdiff.study.plain import Json

MARKER = "faithdiff.json"
CONDA = ("micromamba", "mamba", "conda")
# uv makes environments without it, and `pkg_resources`, which older packages import, went with 81.
SETUPTOOLS = "setuptools<81"
# A lock is installed without isolated builds: what its source packages are built with comes first.
_BUILDS = ("setuptools", "wheel", "cython", "numpy", "torch")
# A path of the suite's own interpreter would shadow the packages of the other.
_OF_THIS_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")


@dataclass(frozen=True)
class Environment:
    """An environment by its description.

    Attributes:
        source: A folder with ``bin/python``, a requirements ``.txt``, a conda ``.yml``, or a
            ``.lock``: requirements that name every package, installed as they are.
        python: Version to make it with, such as ``3.10``; empty: whichever is found.
        home: Where environments are made.
    """

    source: Path
    python: str = ""
    home: Path = OFFICIAL / "environments"

    @property
    def given(self) -> bool:
        """Whether it is a folder of the user's, which is used and never changed."""
        return self.source.is_dir()

    @property
    def folder(self) -> Path:
        """Where it lies, or will lie."""
        if self.given:
            return self.source.absolute()
        name = f"{self.source.stem}-{digest(self._content(), self.python, SETUPTOOLS)}"
        return (self.home / name).absolute()

    def _content(self) -> str:
        if not self.source.is_file():
            raise UserError(
                f"{self.source}: no such environment; give a folder with bin/python, a "
                "requirements file (.txt), a lock (.lock) or a conda file (.yml, .yaml)"
            )
        return sha256_file(self.source)

    @property
    def ready(self) -> bool:
        """Whether it can be used: its interpreter is there, and it was made to the end."""
        made = self.given or (self.folder / MARKER).is_file()
        return made and (self.folder / "bin" / "python").exists()

    def identity(self) -> Json:
        """What decides its packages: the description, or of a given folder the packages."""
        return self.packages() if self.given else [self._content(), self.python]

    def packages(self) -> dict[str, str]:
        """Versions of what is installed, read from the names of the metadata folders."""
        found = self.folder.glob("lib/python3*/site-packages/*.dist-info")
        parts = (folder.name.removesuffix(".dist-info").partition("-") for folder in found)
        return {name: version for name, _, version in sorted(parts)}

    def variables(self) -> dict[str, str]:
        """Environment variables of a process in it, from those of this process."""
        kept = {key: value for key, value in os.environ.items() if key not in _OF_THIS_PYTHON}
        path = f"{self.folder / 'bin'}{os.pathsep}{kept.get('PATH', '')}"
        return {**kept, "PATH": path, "VIRTUAL_ENV": str(self.folder), "PYTHONNOUSERSITE": "1"}

    def make(self) -> None:
        """Make it, unless it is there; an unfinished one is made again.

        Raises:
            UserError: The tool or the Python version is not here.
            RunError: The packages could not be installed.
        """
        if self.ready:
            return
        if self.given:
            raise UserError(f"{self.source}: has no bin/python: it is no environment")
        folder = self.folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        conda = self.source.suffix in (".yml", ".yaml")
        tools = self._with_conda(folder) if conda else self._with_uv_or_pip(folder)
        for command in tools:
            _call(command)
        about = {"source": str(self.source), "sha256": self._content(), "packages": self.packages()}
        write_text_atomic(json.dumps(about, indent=1) + "\n", folder / MARKER)

    def _with_conda(self, folder: Path) -> list[list[str]]:
        tool = next((name for name in CONDA if shutil.which(name)), None)
        if tool is None:
            raise UserError(f"{self.source}: needs one of {', '.join(CONDA)}; none is installed")
        create = ["create"] if tool == "micromamba" else ["env", "create"]
        return [
            [tool, *create, "--yes", "-p", str(folder), "-f", str(self.source)],
            [tool, "install", "--yes", "-p", str(folder), SETUPTOOLS],
        ]

    def _with_uv_or_pip(self, folder: Path) -> list[list[str]]:
        interpreter = str(folder / "bin" / "python")
        if shutil.which("uv"):
            wanted = ["--python", self.python] if self.python else []
            make = ["uv", "venv", *wanted, str(folder)]
            install = ["uv", "pip", "install", "--python", interpreter]
        else:
            python = f"python{self.python}" if self.python else "python3"
            if shutil.which(python) is None:
                raise UserError(
                    f"{self.source}: needs {python}, which is not installed; install it, or uv, "
                    "which brings it"
                )
            make = [python, "-m", "venv", str(folder)]
            install = [interpreter, "-m", "pip", "install", "--disable-pip-version-check"]
        file = str(self.source)
        if self.source.suffix != ".lock":
            return [make, [*install, SETUPTOOLS], [*install, "-r", file]]
        first = [line for line in self._locked() if re.split("[ =]", line)[0] in _BUILDS]
        return [
            make,
            [*install, "--constraint", file, *first],
            [*install, "--no-deps", "--no-build-isolation", "-r", file],
        ]

    def _locked(self) -> list[str]:
        """The requirements of a lock, without its comments."""
        lines = self.source.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and line.strip()[0] != "#"]


def _call(command: list[str]) -> None:
    print(" ".join(command), flush=True)
    kept = {key: value for key, value in os.environ.items() if key not in _OF_THIS_PYTHON}
    done = subprocess.run(command, env=kept, check=False)
    if done.returncode:
        raise RunError(f"{' '.join(command)}: ended with exit code {done.returncode}, see above")


def inherited() -> dict[str, str]:
    """The variables of this process, for commands without an environment of their own."""
    return dict(os.environ)
