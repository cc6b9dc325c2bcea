"""What `faithdiff doctor` says of machines with cards that are not here, and of missing pieces."""

from __future__ import annotations

import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from shared import ROOT
from shared.whole import copy_suite, start
from typer.testing import CliRunner

from baselines.realesrgan_published import RealESRGANPublished
from faithdiff import cli
from faithdiff.config import FolderSet
from faithdiff.methods.method import Study
from faithdiff.planning import doctor
from faithdiff.planning.doctor import findings, screen
from faithdiff.planning.machine import Gpu, Machine, unreachable
from faithdiff.planning.workload import lack_of_gpus

H100 = Gpu("NVIDIA H100 80GB HBM3", 79.6, (9, 0))
NODE = Machine((H100, H100), "550.54", "2.13.0+cu126", "12.6", True, ("sm_80", "sm_90"), 1007, 900)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "unreachable", lambda addresses: [])


def problems(study: str, machine: Machine) -> dict[str, tuple[str, ...]]:
    found = findings(Study.load(Path("config", f"{study}.yaml")), machine)
    return {each.part: each.problems for each in found if each.problems}


def test_a_node_that_fits_lacks_nothing() -> None:
    assert problems("lab", NODE) == {}
    study = Study.load(Path("config/lab.yaml"))
    said = screen(study, findings(study, NODE))
    assert "2 x NVIDIA H100 80GB HBM3, 80 GiB   needed: 1" in said
    assert "torch 2.13.0+cu126, CUDA 12.6, driver 550.54" in said
    assert len(said.splitlines()) < 25 and "MISSING" not in said


@pytest.mark.parametrize(
    ("machine", "part", "words"),
    [
        (replace(NODE, gpus=()), "GPU", "a job needs 1 GPU, and .* shows none; set"),
        (replace(NODE, cuda="", works=False), "torch", "is a build for CPUs; install one for CUDA"),
        (replace(NODE, works=False), "torch", "finds no card with the driver 550.54; update the"),
        (
            replace(NODE, kernels=("sm_80", "sm_86")),
            "torch",
            "is sm_90, .* kernels for sm_80, sm_86",
        ),
    ],
)
def test_what_a_machine_lacks_is_said_with_the_way_out(
    machine: Machine, part: str, words: str
) -> None:
    found = problems("lab", machine)
    assert [*found] == [part] and len(found[part]) == 1
    assert re.search(words, found[part][0]), found


def test_too_few_gpus_are_said_with_the_setting_that_asks_for_them() -> None:
    study = Study.load(Path("config/paper.yaml"))
    profile = study.profile
    captioner = profile.captioner.model_copy(update={"processes": 4})
    study = replace(study, profile=profile.model_copy(update={"captioner": captioner}))
    assert "needs 4 GPUs (captioner.processes), and" in lack_of_gpus(study, ["a", "b"])
    assert lack_of_gpus(study, ["a", "b", "c", "d"]) == ""


def test_what_stops_no_run_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run fetches nothing, and goes on without metric weights and Real-ESRGAN's package."""
    monkeypatch.setattr(doctor, "unreachable", lambda addresses: ["hub.example"])
    monkeypatch.setattr(RealESRGANPublished, "needs", lambda self, study: ["package x is missing"])
    study = Study.load(Path("config/lab.yaml"))
    found = findings(study, replace(NODE, free_gb=0.1))
    assert not any(each.problems for each in found)
    notes = {each.part: each.note for each in found if each.note}
    assert re.fullmatch(r"\d+ GB to fetch do not fit into 0 GB; free some", notes["disk"])
    assert notes["network"].startswith("no connection to hub.example; fetch the files on another")
    assert notes["baselines"].endswith("package x is missing; until then its rows say `failed`")
    said = screen(study, found)
    assert re.search(
        r"for (\d+) files, \1 of them metric weights, which a run can do without\n", said
    )


def test_the_set_of_a_prior_that_is_trained_and_the_cleaner_of_captions_are_needed() -> None:
    study = Study.load(Path("config/paper.yaml"))
    profile = study.profile
    folder = FolderSet.model_validate({"source": "folder", "path": "raw/prior", "captions": "none"})
    training = profile.prior.training.model_copy(update={"data": folder})
    profile = profile.model_copy(
        update={
            "prior": profile.prior.model_copy(update={"source": "train", "training": training}),
            "captioner": profile.captioner.model_copy(update={"clean": Path("weights/bsrnet.pth")}),
        }
    )
    found = {each.part: each.problems for each in findings(replace(study, profile=profile), NODE)}
    for part, said in {
        "sets": "prior.training.data.path: raw/prior: is missing",
        "weights": "captioner.clean: weights/bsrnet.pth: is missing",
    }.items():
        assert any(why.startswith(said) for why in found[part])


@pytest.mark.parametrize(
    ("kernels", "capability", "runs"),
    [
        (("sm_80",), (8, 6), True),
        (("sm_90",), (8, 9), False),
        (("sm_86",), (8, 0), False),
        (("sm_90", "compute_90"), (12, 0), True),
        (("sm_90a",), (9, 0), True),
        (("sm_100",), (10, 0), True),
        ((), (9, 0), True),
        (("sm_90",), None, True),
    ],
)
def test_kernels_run_within_a_major_version_and_are_compiled_beyond(
    kernels: tuple[str, ...], capability: tuple[int, int] | None, runs: bool
) -> None:
    assert replace(NODE, kernels=kernels).runs_on(Gpu("a card", 80, capability)) == runs


def test_missing_files_are_said_with_the_command_that_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    found = problems("released", NODE)
    assert set(found) == {"weights", "sets", "baselines"}
    assert found["weights"][0] == (
        "variants.faithdiff.weights: weights/FaithDiff.bin: is missing; faithdiff fetch --profile "
        "released brings it or says how"
    )
    assert found["sets"][0].startswith(
        "data.test.DIV2K-Val.path: data/raw/DIV2K-Val/DIV2K_valid_HR: is missing; faithdiff fetch"
    )
    assert any("faithdiff fetch --baseline diffbir" in each for each in found["baselines"])
    # A run goes on without this one.
    notes = {
        each.part: each.note for each in findings(Study.load(Path("config/released.yaml")), NODE)
    }
    assert (
        notes["baselines"].startswith("realesrgan: ")
        and "RealESRGAN_x4plus.pth: is missing" in notes["baselines"]
    )
    # The workflow clones and installs by itself.
    assert not any("baseline prepare" in each for each in found["baselines"])


def test_exit_code_2_where_something_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "look", classmethod(lambda cls: NODE))
    done = CliRunner().invoke(cli.app, ["doctor", "--config", "config/lab.yaml"])
    assert done.exit_code == 0, done.output
    missing = replace(NODE, gpus=())
    monkeypatch.setattr(Machine, "look", classmethod(lambda cls: missing))
    done = CliRunner().invoke(cli.app, ["doctor", "--config", "config/lab.yaml"])
    assert done.exit_code == 2 and "What is missing:" in done.output


def test_cards_are_those_that_jobs_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "nvidia-smi"
    rows = (
        "0, GPU-aaa, NVIDIA A100, 81920, 550.54, 8.0\n1, GPU-bbb, NVIDIA H100, 81559, 550.54, 9.0"
    )
    fake.write_text(
        f'#!/bin/sh\nif [ "$1" = -L ]; then echo "GPU 0: A (UUID: GPU-aaa)"; '
        f'echo "GPU 1: H (UUID: GPU-bbb)"; else echo "{rows}"; fi\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpu.capability for gpu in Machine.look().gpus] == [(8, 0), (9, 0)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    machine = Machine.look()
    assert machine.gpus == (Gpu("NVIDIA H100", 81559 / 1024, (9, 0)),)
    assert machine.driver == "550.54"


def test_hosts_that_take_no_connection_are_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert unreachable([f"http://127.0.0.1:{port}/a"]) == []
    assert unreachable([f"http://127.0.0.1:{port}/a"]) == ["127.0.0.1"]


@pytest.mark.slow
def test_the_workflow_asks_before_the_first_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that torch cannot use: nothing starts."""
    suite = copy_suite(tmp_path / "suite")
    (suite / "prior").symlink_to(ROOT / "prior")
    fake = tmp_path / "nvidia-smi"
    fake.write_text('#!/bin/sh\necho "GPU 0: A (UUID: GPU-aaa)"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    process = start(suite, "device=cuda", "name=on-cuda", "--until", "prepare_dataset")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "What is missing:" in said and "this machine cannot run it" in said
    assert not (suite / "data").exists()
