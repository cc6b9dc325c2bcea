"""The locks of the official environments: complete, consistent, and for today's cards."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from baselines.official.definition import FOLDER, load_definition

METHODS = ("diffbir", "realesrgan", "seesr", "supir")


def direct(method: str) -> list[Requirement]:
    lines = (FOLDER / f"{method}.in").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def locked(method: str) -> dict[str, Requirement]:
    lines = (FOLDER / f"{method}.lock").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.strip().startswith("#")]
    return {name(pin): pin for pin in pins}


def name(requirement: Requirement) -> str:
    return requirement.name.lower().replace("_", "-")


def version(pin: Requirement) -> Version:
    """Of an exact pin, or of the wheel at an address."""
    if pin.url:
        return Version(pin.url.rsplit("/", 1)[1].split("-")[1].replace("%2B", "+"))
    (only,) = pin.specifier
    assert only.operator == "==", pin
    return Version(only.version)


@pytest.mark.parametrize("method", METHODS)
def test_a_lock_has_every_direct_requirement_and_what_asks_for_the_rest(method: str) -> None:
    pins = locked(method)
    for wanted in direct(method):
        pin = pins[name(wanted)]
        assert pin.url == wanted.url
        assert wanted.url or wanted.specifier.contains(version(pin)), wanted
    lines = (FOLDER / f"{method}.lock").read_text(encoding="utf-8").splitlines()
    reasons = [line.strip(" #").removeprefix("via").strip() for line in lines if "#   " in line]
    reasons += [line.partition("via ")[2] for line in lines if "# via " in line]
    asking = {reason for reason in reasons if reason and not reason.startswith("-r ")}
    assert asking <= set(pins), asking - set(pins)


@pytest.mark.parametrize("method", METHODS)
def test_every_environment_has_pkg_resources_and_one_torch(method: str) -> None:
    pins = locked(method)
    assert version(pins["setuptools"]) < Version("81")
    torch = version(pins["torch"])
    # The registry's builds: CUDA 11.7 below 2.1, whose kernels end at sm_86; 12.1 from there on.
    assert torch.local == "cu118" or torch >= Version("2.1")
    cuda = {each.rpartition("-")[2] for each in pins if each.startswith("nvidia-")}
    assert cuda == (set() if torch.local else {"cu12"})
    assert sum(each.startswith("opencv-python") for each in pins) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_definition_installs_its_lock_with_the_python_it_was_made_for(method: str) -> None:
    definition, file = load_definition(method, None)
    assert file.parent / definition.requirements == FOLDER / f"{method}.lock"
    about = (FOLDER / "uv.toml").read_text(encoding="utf-8")
    assert f'python-version = "{definition.python}"' in about
    tag = f"cp{definition.python.replace('.', '')}"
    assert all(tag in pin.url for pin in locked(method).values() if pin.url)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
@pytest.mark.parametrize("method", METHODS)
def test_a_lock_is_what_its_requirements_resolve_to(method: str, tmp_path: Path) -> None:
    """Needs the package registry."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    lock = tmp_path / f"{method}.lock"
    lock.unlink()
    command = "uv pip compile --quiet --config-file uv.toml --no-header"
    line = [*command.split(), f"{method}.in", "--output-file", lock.name]
    subprocess.run(line, cwd=tmp_path, check=True)
    assert lock.read_bytes() == (FOLDER / lock.name).read_bytes()
