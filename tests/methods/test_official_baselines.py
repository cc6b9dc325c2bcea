"""Official baselines: whole runs on small fakes of their repositories."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from baselines.official import driver
from baselines.official.definition import FOLDER
from baselines.official.realesrgan import ARCHITECTURE
from faithdiff import cli
from faithdiff import compat as compat

# isort: split
from basicsr.archs.rrdbnet_arch import RRDBNet
from shared import ROOT
from shared.official import CLASSES, SCALE, TABLE
from shared.pictures import picture
from shared.small_set import DATA, failed, save_lq

from faithdiff.data.images import read_image
from faithdiff.errors import CheckpointError, RunError, UserError
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.restore.run import restore_job
from faithdiff.study.files import write_text_atomic

# How each script names its folders, its scale and its outputs.
IO = {
    "diffbir": ("input", "output", "upscale", "", ""),
    "seesr": ("image_path", "output_dir", "upscale", "sample00", ""),
    "supir": ("img_dir", "save_dir", "upscale", "", "_0"),
    "realesrgan": ("input", "output", "outscale", "", ""),
}
NAMES = ("one", "three", "two.dots")
SIDE = 12


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test that needs one makes the environment, which takes seconds."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
def place(tmp_path: Path, environments: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("official").mkdir()
    Path("official/environments").symlink_to(environments)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the suite; it must not reach a script
    shutil.copytree(ROOT / "config", "config")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *who, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def serve(method: str) -> dict[str, Any]:
    """A git repository with the fake, and the definition of the method that points to it."""
    definition = yaml.safe_load((FOLDER / f"{method}.yaml").read_text(encoding="utf-8"))
    weights = {"realesrgan-x4plus": "weights/model.pth"}
    source = Path("served")
    source.mkdir()
    keys = dict(zip(("input", "output", "scale", "folder", "suffix"), IO[method], strict=True))
    about = {"arguments": TABLE[method], "weights": [*weights.values()], **keys}
    write_text_atomic(json.dumps(about), source / "arguments.json")
    shutil.copy(ROOT / "tests/shared/official_repository.py", source / definition["entry"])
    if method == "supir":
        options = "SDXL_CKPT: /a\nSUPIR_CKPT_F: /b\nSUPIR_CKPT_Q: /c\nSUPIR_CKPT: ~\n"
        write_text_atomic(options, source / "options/SUPIR_v0.yaml")
        names = ("LLAVA_CLIP_PATH", "LLAVA_MODEL_PATH", "SDXL_CLIP1_PATH", "SDXL_CLIP2_CKPT_PTH")
        write_text_atomic("".join(f"{n} = '/x'\n" for n in names), source / "CKPT_PTH.py")
    if method == "realesrgan":
        write_text_atomic("", source / "realesrgan/__init__.py")
    git(source, "init", "--quiet")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "-m", "served")
    commit = git(source, "rev-parse", "HEAD")
    write_text_atomic("later\n", source / "later.txt")  # the pin is not the head
    git(source, "add", ".")
    git(source, "commit", "--quiet", "-m", "later")
    write_text_atomic("# nothing but Python\n", Path("nothing.txt"))
    return definition | {
        "repository": source.absolute().as_uri(),
        "commit": commit,
        "python": "",
        "requirements": str(Path("nothing.txt").absolute()),
        "gpu_gb": 0,
        "artifacts": weights,
    }


def study_of(method: str, definition: dict[str, Any], **settings: Any) -> Study:
    write_text_atomic(yaml.safe_dump(definition), Path("definition.yaml"))
    profile = {
        "extends": "mini.yaml",
        "profile": "official",
        "data": {"scale": SCALE, **DATA},
        "baselines": {
            "realesrgan": None,
            "theirs": {
                "label": "Theirs",
                "implementation": CLASSES[method],
                "settings": {"definition": "definition.yaml", **settings},
            },
        },
        "score": {"weights": "weights"},
        "report": {"main": ["bicubic", "theirs"]},
    }
    write_text_atomic(yaml.safe_dump(profile), Path("config/official.yaml"))
    study = Study.load(Path("config/official.yaml"))
    save_lq(study, NAMES, SIDE)
    return study


def ready(method: str, **settings: Any) -> Study:
    """Served, cloned, with its environment and something in place of its weights."""
    if method == "supir":
        settings["accept_licence"] = True
    study = study_of(method, serve(method), **settings)
    write_text_atomic("weights", Path("weights/realesrgan/RealESRGAN_x4plus.pth"))
    cli.baseline_prepare("theirs", study.file)
    return study


def restore(study: Study) -> dict[str, Any]:
    restore_job(study, find_method(study, "theirs"), "theirs", 0)
    file = study.layout.restoration("theirs", 0, "Set", "II") / "manifest.json"
    manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return manifest


def plan(text: str) -> None:
    write_text_atomic(text, Path("official/checkouts/plan.txt"))


def loads() -> int:
    """How often models were loaded."""
    file = Path("official/checkouts/loaded.txt")
    return len(file.read_text(encoding="utf-8").splitlines())


def seen() -> list[dict[str, Any]]:
    file = Path("official/checkouts/seen.txt")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("method", CLASSES)
def test_clone_environment_run_and_outputs_under_our_names(
    place: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = ready(method)
    cli.baseline_check("theirs", study.file)
    assert "theirs: ready" in capsys.readouterr().out
    manifest = restore(study)
    assert set(manifest["images"]) == set(NAMES)
    assert failed(manifest) == {}
    folder = study.layout.restoration("theirs", 0, "Set", "II")
    for name in NAMES:
        assert read_image(folder / f"{name}.png").shape == (SCALE * SIDE, SCALE * SIDE, 3)
    assert manifest["settings"]["commit"] == find_method(study, "theirs").definition.commit  # type: ignore[attr-defined]
    assert "pip" in manifest["packages"]
    assert manifest["memory_gib"] > 0
    assert not list(Path("official/checkouts").glob("*/later.txt"))
    assert len(seen()) == (1 if method == "realesrgan" else 3)
    assert loads() == (3 if method == "supir" else 1)
    assert restore(study)["made"] == 0


def test_supir_finds_its_weights_in_files_that_are_mended_each_time(place: Path) -> None:
    study = ready("supir")
    restore(study)
    (folder,) = Path("official/checkouts").glob("supir-*")
    options = (folder / "options/SUPIR_v0.yaml").read_text(encoding="utf-8")
    assert f"SUPIR_CKPT_Q: {folder.absolute()}/weights/SUPIR-v0Q.ckpt" in options
    assert "SUPIR_CKPT: ~" in options
    paths = (folder / "CKPT_PTH.py").read_text(encoding="utf-8")
    assert "LLAVA_MODEL_PATH = None" in paths
    prompts = {call["images"][0]: call["a_prompt"] for call in seen()}
    assert prompts["one"].startswith("of oneCinematic")


@pytest.mark.parametrize(
    ("method", "what", "why"),
    [
        ("realesrgan", "skip", "no image, exit code 0: Error CUDA out of memory"),
        ("realesrgan", "size", "size 5x7, not 48x48"),
        ("diffbir", "skip", "no image: Error CUDA out of memory"),
        ("diffbir", "size", "size 5x7, not 48x48"),
        ("seesr", "raise", "no image: RuntimeError: CUDA out of memory"),
        ("seesr", "fail", "no image: RuntimeError: cannot restore this one"),
    ],
)
def test_an_image_that_fails_is_a_failed_image(
    place: Path, method: str, what: str, why: str
) -> None:
    study = ready(method)
    plan(f"three: {what}\n")
    assert failed(restore(study)) == {"three": why}
    plan("")
    manifest = restore(study)
    assert (failed(manifest), manifest["made"]) == ({}, 1)


def test_a_script_that_dies_fails_the_rest_of_a_folder_and_goes_on_later(place: Path) -> None:
    study = ready("realesrgan")
    plan("three: fail\n")
    why = "no image, exit code 1: RuntimeError: cannot restore this one"
    assert failed(restore(study)) == {"three": why, "two.dots": why}
    plan("")
    assert failed(restore(study)) == {}
    assert [call["images"] for call in seen()] == [[*NAMES], ["three", "two.dots"]]


@pytest.mark.parametrize("method", ["realesrgan", "diffbir"])
def test_a_run_killed_at_an_image_resumes_there_and_leaves_no_orphan(
    place: Path, method: str
) -> None:
    study = ready(method)
    plan("three: wait\n")
    command = [sys.executable, "-m", "faithdiff.cli", "restore-sets", "--method", "theirs"]
    process = subprocess.Popen([*command, "--config", str(study.file)], start_new_session=True)
    waiting = Path("official/checkouts/waiting")
    deadline = time.monotonic() + 120
    while not waiting.exists() or not waiting.read_text(encoding="utf-8"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    script = int(waiting.read_text(encoding="utf-8"))
    while alive(script):
        assert time.monotonic() < deadline, "the script outlived the suite"
        time.sleep(0.05)
    plan("")
    before = len(seen())
    manifest = restore(study)
    assert failed(manifest) == {}
    asked = [name for call in seen()[before:] for name in call["images"]]
    # Of a folder the finished image of the killed call counts; of a single image it may be half.
    assert asked == (["two.dots"] if method == "realesrgan" else ["three", "two.dots"])


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


# --- One process for all images, its models kept --------------------------------------------------


def pixels(study: Study) -> dict[str, bytes]:
    folder = study.layout.restoration("theirs", 0, "Set", "II")
    return {name: read_image(folder / f"{name}.png").tobytes() for name in NAMES}


def test_kept_models_give_what_a_process_for_each_image_gives(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each system. A folder at once is another result; so would be noise from the CPU."""
    for method in ("diffbir", "seesr"):
        shutil.rmtree("served", ignore_errors=True)
        shutil.rmtree("official/checkouts", ignore_errors=True)
        definition = serve(method)
        kept = study_of(method, definition)
        write_text_atomic("weights", Path("weights/realesrgan/RealESRGAN_x4plus.pth"))
        cli.baseline_prepare("theirs", kept.file)
        found, results = restore(kept), pixels(kept)
        assert (found["calls"], loads()) == (1, 1)
        shutil.rmtree("restored")
        each = study_of(method, definition, keep_loaded=False)
        reference = restore(each)
        assert (reference["calls"], loads()) == (3, 4)
        assert pixels(each) == results
        assert reference["images"] == found["images"]  # keys, too: the setting decides no result
    shutil.rmtree("restored")
    (first,) = {call["seed"] for call in seen() if call["images"] == ["one"]}
    together = study_of("seesr", definition, per="folder", fixed_seed=first)
    restore(together)
    assert {name for name in NAMES if pixels(together)[name] == results[name]} == {"one"}
    shutil.rmtree("restored")
    plan("two.dots: cpu\n")
    before = loads()
    drawn = restore(study_of("seesr", definition))
    assert failed(drawn) == {}
    assert loads() == before + 2  # the kept ones, and one process for the image that told
    assert (
        "two.dots and the loading of models both drew from Python's gen" in capsys.readouterr().out
    )
    mixed = pixels(kept)
    shutil.rmtree("restored")
    restore(each)
    assert pixels(each) == mixed


def test_a_process_that_dies_takes_one_image_along(place: Path) -> None:
    study = ready("diffbir")
    plan("three: die\n")
    assert failed(restore(study)) == {"three": "no image, killed by signal 6: --- three"}
    assert [call["images"] for call in seen()] == [["one"], ["three"], ["two.dots"]]
    assert loads() == 2


def test_models_that_do_not_load_stop_the_job(place: Path) -> None:
    study = ready("seesr")
    plan("load: no\n")
    with pytest.raises(RunError, match=r"no image came out: .*no memory for the models"):
        restore(study)
    assert not Path("official/checkouts/seen.txt").exists()


def test_the_driver_sees_which_generator_was_drawn_from() -> None:
    before = driver.random_states()
    assert driver.drawn_from(before) == set()
    with torch.random.fork_rng(devices=[]):
        torch.rand(1)
        assert driver.drawn_from(before) == {"torch's generator for the CPU"}
    state = np.random.get_state()
    np.random.rand()
    assert driver.drawn_from(before) == {"NumPy's generator"}
    np.random.set_state(state)


def test_a_script_without_a_main_block_is_another_version(tmp_path: Path) -> None:
    write_text_atomic("print('runs at once')\n", tmp_path / "script.py")
    with pytest.raises(SystemExit, match="has no `if __name__"):
        driver.Script(str(tmp_path / "script.py"), {})


def test_what_is_missing_is_said_before_a_run(place: Path) -> None:
    write_text_atomic("# another\n", Path("other.txt"))
    changes = {"gpu_gb": 4000, "requirements": str(Path("other.txt").absolute())}
    study = study_of("supir", serve("supir") | changes)
    with pytest.raises(UserError) as stop:
        cli.baseline_check("theirs", study.file)
    said = str(stop.value)
    for part in (
        "non-commercial use only",
        "accept_licence: true",
        "its code is not here",
        "its environment (other.txt) is not made",
        "faithdiff baseline prepare theirs --config config/official.yaml",
        "weights are missing (0.07 GB): realesrgan-x4plus",
        "faithdiff fetch --baseline theirs",
        "a GPU with 4000 GB",
    ):
        assert part in said, part
    with pytest.raises(UserError, match="non-commercial"):
        cli.baseline_prepare("theirs", study.file)
    assert not Path("official/checkouts").exists()
    with pytest.raises(UserError, match="its code is not here"):
        restore(study)


def test_a_commit_that_is_not_there(place: Path) -> None:
    study = study_of("diffbir", serve("diffbir") | {"commit": "0" * 40})
    with pytest.raises(RunError, match="git "):
        cli.baseline_prepare("theirs", study.file)


def test_a_checkout_of_another_commit_is_not_used(place: Path) -> None:
    study = ready("diffbir")
    (folder,) = Path("official/checkouts").glob("diffbir-*")
    git(folder, "fetch", "--quiet", "origin")
    git(folder, "checkout", "--quiet", "FETCH_HEAD")
    with pytest.raises(UserError, match=r"is at \w{12}, not \w{12}"):
        restore(study)


def test_a_method_in_the_process_is_ready_at_once(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.baseline_check("bicubic")
    assert capsys.readouterr().out == "bicubic: ready\n"


# --- Real-ESRGAN in process -----------------------------------------------------------------------


def inside(place: Path) -> Study:
    study = study_of("realesrgan", serve("realesrgan"))
    profile = yaml.safe_load(study.file.read_text(encoding="utf-8"))
    named = {"label": "x", "implementation": "baselines.official.realesrgan:Inside"}
    profile["baselines"]["theirs"] = named
    write_text_atomic(yaml.safe_dump(profile), study.file)
    return Study.load(study.file)


def test_published_weights_run_in_process(place: Path) -> None:
    study = inside(place)
    file = Path("weights/realesrgan/RealESRGAN_x4plus.pth")
    found = find_method(study, "theirs")
    (need,) = found.needs(study)
    assert need == f"{file}: is missing; get it with: faithdiff fetch --profile released"
    with pytest.raises(CheckpointError, match="faithdiff fetch --profile released"):
        found.load(study, Path())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = RRDBNet(3, 3, **ARCHITECTURE)
    file.parent.mkdir(parents=True)
    torch.save({"params_ema": generator.state_dict()}, file)
    assert found.needs(study) == []
    restorer = found.load(study, Path())
    lq = picture(0, SIDE)
    with torch.inference_mode():
        expected = generator.eval()(lq).clamp(0, 1)
    assert torch.equal(restorer.restore(lq, [""], [0]), expected)
    torch.save({"params_ema": {"conv_first.weight": torch.zeros(1)}}, file)
    with pytest.raises(CheckpointError, match=r"bias: shape None found, \(32,\) expected"):
        restore(study)
    torch.save([1], file)
    with pytest.raises(CheckpointError, match="is not a state dict of named tensors"):
        restore(study)
    file.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"is no archive of torch\.save; get it again"):
        restore(study)
