"""Several processes: the same data and the same curve, one that dies, a limit, another count."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import accelerate
import pandas as pd
import pytest
import torch
import yaml
from accelerate import DistributedType
from safetensors.torch import load_file
from shared import ROOT

from faithdiff.errors import ConfigError
from faithdiff.methods.method import Study
from faithdiff.study.provenance import folder_digest
from faithdiff.train.launch import LAUNCHER
from faithdiff.train.processes import join

CHECKPOINT = Path("checkpoints/test/faithdiff/seed0")
WORK = Path("checkpoints/test/.work/faithdiff-seed0")


def profile(processes: int, **training: object) -> Path:
    """The test profile with another number of processes; its data and stage 1 stay as they are."""
    file, base = Path("config/test.yaml"), Path("config/base.yaml")
    if not base.exists():
        file.rename(base)
    changes = {"processes": processes, "micro_batch": 1, **training}
    content = {"extends": base.name, "profile": "test", "training": changes}
    file.write_text(yaml.safe_dump(content), "utf-8")
    return file


def start(config: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "faithdiff.cli", "train", "--method", "faithdiff"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--config", str(config), *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def train(config: Path, *arguments: str, code: int = 0) -> str:
    process = start(config, *arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output[-3000:]
    return output


def weights() -> dict[str, torch.Tensor]:
    return {
        f"{file.parent.name}.{key}": tensor
        for file in sorted(CHECKPOINT.rglob("*.safetensors"))
        for key, tensor in load_file(file).items()
    }


def losses() -> list[float]:
    return list(pd.read_csv(CHECKPOINT / "training.csv")["loss"])


@pytest.mark.parametrize("sharded", [None, "shard_optimiser", "shard_model"])
@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_accumulation(
    study: Study, sharded: str | None
) -> None:
    train(profile(1))
    alone, curve = weights(), losses()
    output = train(profile(2, **({sharded: True} if sharded else {})))
    assert output.count("faithdiff lq_encoder+alignment+unet: 4 updates\n") == 1  # one speaks
    assert losses() == pytest.approx(curve, rel=1e-5)
    together = weights()
    assert together.keys() == alone.keys()
    for key, tensor in alone.items():
        assert torch.allclose(together[key], tensor, rtol=1e-4, atol=1e-5), key
    assert not WORK.exists()


@pytest.mark.slow
def test_another_number_of_processes_goes_on_with_the_same_data(study: Study) -> None:
    train(profile(1))
    curve = losses()
    output = train(profile(2, shard_optimiser=True), "--time-limit", "0.001", code=75)
    assert "paused after update 1 of 4 (time limit)" in output
    assert "exit code" not in output  # of a failure
    assert (WORK / "phase1.pt").is_file()
    train(profile(1))
    assert len(losses()) == 4
    assert losses() == pytest.approx(curve, rel=1e-5)


def test_deepspeed_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What accelerate says it is, without DeepSpeed itself."""

    class State:
        distributed_type = DistributedType.DEEPSPEED

        def __init__(self, **_: object) -> None:
            pass

    monkeypatch.setattr(accelerate, "PartialState", State)
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    with pytest.raises(ConfigError, match=r"DEEPSPEED.*shard_optimiser"):
        join("cuda")


def workers() -> list[int]:
    """The processes that train in this folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            here = (folder / "cwd").resolve() == Path.cwd()
        except OSError:  # it ended meanwhile
            continue
        if here and b"faithdiff.cli.worker" in words and LAUNCHER.encode() not in words:
            found.append(int(folder.name))
    return sorted(found)


def wait_for_state(process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not (WORK / "phase1.pt").is_file():
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_training_and_its_log_is_named(study: Study) -> None:
    process = start(profile(2, stage2_steps=100000))
    wait_for_state(process)
    victims = workers()
    assert len(victims) == 2
    os.kill(victims[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith("faithdiff: faithdiff in 2 processes: training failed (exit code 1)")
    assert f"{WORK}/logs" in last
    assert len(list((WORK / "logs").rglob("stderr.log"))) == 2
    assert workers() == []


@pytest.mark.slow
def test_sigterm_saves_the_state_of_all(study: Study) -> None:
    config = profile(2, stage2_steps=100000)
    process = start(config)
    wait_for_state(process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output[-2000:]
    assert "(asked to stop)" in output.splitlines()[-1]
    assert (WORK / "phase1.pt").is_file()


@pytest.mark.slow
def test_sigterm_to_a_single_process_loses_nothing(study: Study) -> None:
    config = profile(1, stage2_steps=40, log_every=40, checkpoint_every=5)
    train(config)
    whole = folder_digest(CHECKPOINT)
    process = start(config)
    wait_for_state(process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output[-2000:]
    assert "(SIGTERM)" in output.splitlines()[-1]
    train(config)
    assert folder_digest(CHECKPOINT) == whole
