"""A study of the profile `test`, built once per session by the functions behind the commands."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest
import torch
from shared import CONFIG, ROOT
from shared.whole import copy_suite, made_once, run

from faithdiff import cli
from faithdiff import compat as compat  # before torchvision, which the metrics import
from faithdiff.methods.method import Study

PROFILE = Path("config/test.yaml")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts in the root of the suite, wherever the one before it ended."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a study up to the checkpoint of the method `faithdiff`; not to be changed."""
    return made_once(tmp_path_factory, "built", build)


def build(root: Path) -> None:
    """Run the steps of the study one after the other, in this process."""
    shutil.copytree(CONFIG, root / "config")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        data = Study.load(PROFILE).profile.data
        for dataset in (*data.test, "train", "prior"):
            cli.prepare(dataset, PROFILE)
        for dataset in data.test:
            cli.degrade(dataset, data.levels[:1], PROFILE)
        cli.degrade("train", [data.train_level], PROFILE)
        cli.train_prior(PROFILE)
        cli.cache(PROFILE)
        cli.pretrain("released", config=PROFILE)
        cli.train("faithdiff", config=PROFILE)


@pytest.fixture
def study(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A copy of the built study that the test may change; its folder is the current one."""
    root = tmp_path / "study"
    shutil.copytree(built, root)
    monkeypatch.chdir(root)
    return Study.load(PROFILE)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of the profile `test` by the workflow; change nothing for good."""
    return made_once(tmp_path_factory, "study with space", lambda root: run(copy_suite(root)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: workers test the others beside them, and end at the same time."""
    longest = ("test_kill.py", "test_cluster.py", "test_study.py", "test_documented.py")
    longest += ("test_released.py", "test_processes.py", "test_surroundings.py")
    longest += ("test_determinism.py", "test_corruption.py", "test_restoring_designs.py")
    longest += ("test_workload.py", "test_official.py", "test_workflow_rules.py")
    longest += ("test_training.py", "test_states.py")
    items.sort(key=lambda item: (*longest, item.path.name).index(item.path.name))


def pytest_collection() -> None:
    """The tests import 700,000 objects that stay: looking for garbage among them takes seconds."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage among the objects of tests alone."""
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``pytest --method NAME``: the contract test-suite on a method of a profile."""
    parser.addoption("--method", help="method whose contract tests/methods/test_contract.py tests")
    parser.addoption("--profile", default="config/mini.yaml", help="profile that has it")
