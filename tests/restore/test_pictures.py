"""What `faithdiff restore` offers to people with pictures: each option does what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from shared.tiny_llava import save_tiny_llava
from torch import Tensor
from typer.testing import CliRunner

from faithdiff import cli
from faithdiff.config import Profile
from faithdiff.data.images import read_image, write_png
from faithdiff.errors import CheckpointError, RunError, TooLargeError, UserError
from faithdiff.methods.method import Study
from faithdiff.models.captioner import Llava
from faithdiff.models.faithdiff import load
from faithdiff.models.prior import load_prior
from faithdiff.restore import pictures as pictures_module
from faithdiff.restore.arrays import to_image, to_tensor
from faithdiff.restore.choices import Choices, chosen_study
from faithdiff.restore.enlarge import enlarge
from faithdiff.restore.faithdiff_restorer import FaithDiffRestorer
from faithdiff.restore.pictures import BESIDE, restore_pictures
from faithdiff.restore.pipeline import FaithDiffPipeline
from faithdiff.study.checksums import with_checksum

# diffusers' Euler scheduler
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
STEPS = {"steps": 2}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    for name, seed in (("one", 1), ("two", 2)):
        pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        write_png(pixels, folder / f"{name}.png")
    return folder


def _checkpoint(study: Study, method: str = "faithdiff") -> Path:
    return study.layout.checkpoint(method, 0)


def _restore(study: Study, given: Path, output: Path, **choices: Any) -> None:
    chosen = Choices(**{"changes": STEPS, **choices})
    restore_pictures(_checkpoint(study), [given], output, chosen)


def _restorer(study: Study, choices: Choices) -> FaithDiffRestorer:
    chosen = chosen_study(_checkpoint(study), choices).study.profile
    model = load(_checkpoint(study))
    prior = load_prior(study.layout.trained_prior, unet=model.unet)
    return FaithDiffRestorer(model, prior, chosen.restore, chosen.data.scale)


@pytest.mark.parametrize("scale", [1, 2])
def test_pictures_are_enlarged_as_often_as_asked(
    study: Study, pictures: Path, tmp_path: Path, scale: int
) -> None:
    _restore(study, pictures / "one.png", tmp_path / "out", scale=scale)
    assert read_image(tmp_path / "out/one.png").shape == (scale * 9, scale * 12, 3)


def test_progressive_restores_the_result_of_the_last_pass(
    study: Study, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _restore(study, pictures / "one.png", tmp_path / "out", scale=4, progressive=True, seed=7)
    restorer = _restorer(study, Choices(scale=2, changes=STEPS))
    image = to_tensor(read_image(pictures / "one.png"))
    for _ in range(2):
        image = restorer.restore(image, [""], [7])
    assert np.array_equal(read_image(tmp_path / "out/one.png"), to_image(image[0]))
    said = capsys.readouterr()
    assert "12 x 9 -> 24 x 18 -> 48 x 36 px" in said.out
    assert "[1/1] one.png: 100%" in said.err and " left" in said.err


def test_passes_of_large_factors(study: Study) -> None:
    checkpoint = _checkpoint(study)
    eight = chosen_study(checkpoint, Choices(scale=8, progressive=True))
    assert (eight.passes, eight.study.profile.data.scale) == ([2, 2, 2], 2)
    assert chosen_study(checkpoint, Choices(progressive=True)).passes == [2, 2]
    assert chosen_study(checkpoint, Choices(scale=1, progressive=True)).passes == [1]
    with pytest.raises(UserError, match=r"^--scale 8: one pass .* 4 times .*--progressive$"):
        chosen_study(checkpoint, Choices(scale=8))


def test_captions_lie_beside_the_pictures(study: Study, pictures: Path, tmp_path: Path) -> None:
    (pictures / "one.txt").write_text("a hill")
    with pytest.raises(UserError, match=r"--caption file: .*two\.png has no caption.*two\.txt"):
        _restore(study, pictures, tmp_path / "out", caption="file")
    (pictures / "two.json").write_text(json.dumps({"caption": "The image features a house."}))
    _restore(study, pictures, tmp_path / "out", caption="file", changes={**STEPS})
    for name, caption in (("one", "a hill"), ("two", "A house..")):
        _restore(study, pictures / f"{name}.png", tmp_path / name, caption=caption)
        made = (tmp_path / "out" / f"{name}.png").read_bytes()
        assert made == (tmp_path / name / f"{name}.png").read_bytes()


def test_llava_is_asked_for_captions(
    study: Study, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"^--caption llava: .*the captioner is missing"):
        _restore(study, pictures, tmp_path / "out", caption="llava")
    save_tiny_llava(Path("weights/llava-1.5-13b-hf"))
    asked = []

    def answer(self: Llava, files: list[Path]) -> list[str]:
        asked.extend(file.stem for file in files)
        return [f"The image features {file.stem}." for file in files]

    monkeypatch.setattr(Llava, "__init__", lambda *_: None)
    monkeypatch.setattr(Llava, "__call__", answer)
    _restore(study, pictures, tmp_path / "out", caption="llava")
    _restore(study, pictures, tmp_path / "again", caption="llava")
    assert sorted(asked) == ["one", "two"]  # answers are kept
    _restore(study, pictures / "one.png", tmp_path / "one", caption="One..")
    assert (tmp_path / "out/one.png").read_bytes() == (tmp_path / "one/one.png").read_bytes()


def test_pictures_and_results_side_by_side(study: Study, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _restore(study, pictures, out)
    assert not (out / BESIDE).exists()
    made = (out / "one.png").stat().st_mtime_ns
    _restore(study, pictures, out, side_by_side=True)  # of what is restored already
    assert (out / "one.png").stat().st_mtime_ns == made
    both = read_image(out / BESIDE / "one.png")
    left = enlarge(to_tensor(read_image(pictures / "one.png")), 4)[0]
    assert np.array_equal(both[:, :48], to_image(left))
    assert np.array_equal(both[:, 48:], read_image(out / "one.png"))
    (out / BESIDE / "two.png").unlink()
    _restore(study, pictures, out, side_by_side=True, seed=1, overwrite=True)
    assert (out / BESIDE / "two.png").exists()
    other = tmp_path / "other"
    write_png(both, other / BESIDE / "one.png")
    with pytest.raises(UserError, match=r"side-by-side/one\.png: is there already"):
        _restore(study, pictures, other, side_by_side=True)


def test_a_result_is_recorded_before_it_is_set_beside_its_picture(
    study: Study, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RunError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("faithdiff.restore.pictures._write_beside", full)
        with pytest.raises(RunError, match="No space left"):
            _restore(study, pictures / "one.png", tmp_path / "out", side_by_side=True)
    made = (tmp_path / "out/one.png").stat().st_mtime_ns
    _restore(study, pictures / "one.png", tmp_path / "out", side_by_side=True)
    assert (tmp_path / "out/one.png").stat().st_mtime_ns == made
    assert (tmp_path / "out" / BESIDE / "one.png").exists()


def test_a_picture_that_does_not_fit_fails_alone(
    study: Study,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_png(np.zeros((40, 30, 3), np.uint8), pictures / "large.png")
    restore: Callable[..., Tensor] = FaithDiffRestorer.restore

    def cramped(self: FaithDiffRestorer, lq: Tensor, *others: Any) -> Tensor:
        if lq.shape[2] == 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return restore(self, lq, *others)

    monkeypatch.setattr(FaithDiffRestorer, "restore", cramped)
    with pytest.raises(TooLargeError, match=r"^1 of 3 were not restored:\n.*30 x 40 px") as caught:
        _restore(study, pictures, tmp_path / "out", side_by_side=True)
    assert "--vae-tile auto" in str(caught.value) and "restore.vae_tile" not in str(caught.value)
    assert "failed, the others go on: " in capsys.readouterr().out
    assert {file.stem for file in (tmp_path / "out").rglob("*.png")} == {"one", "two"}


def test_a_result_that_is_not_finite_fails_alone(
    study: Study, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(np.zeros((40, 30, 3), np.uint8), pictures / "odd.png")
    restore: Callable[..., Tensor] = FaithDiffRestorer.restore

    def overflowing(self: FaithDiffRestorer, lq: Tensor, *others: Any) -> Tensor:
        result = restore(self, lq, *others)
        return result * float("nan") if lq.shape[2] == 40 else result

    monkeypatch.setattr(FaithDiffRestorer, "restore", overflowing)
    with pytest.raises(
        RunError, match=r"^1 of 3 were not restored:\n.*odd\.png: .*--precision fp32"
    ):
        _restore(study, pictures, tmp_path / "out")
    assert {file.stem for file in (tmp_path / "out").rglob("*.png")} == {"one", "two"}


def test_a_result_that_cannot_fit_into_memory_is_told_before_it_is_tried(
    study: Study,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_png(np.zeros((1000, 1000, 3), np.uint8), pictures / "large.png")
    monkeypatch.setattr(pictures_module, "free_memory", lambda _: 300_000_000)
    with pytest.raises(
        TooLargeError, match=r"large\.png: its 1 megapixels become 16, for"
    ) as caught:
        _restore(study, pictures, tmp_path / "out")
    assert "a smaller --scale" in str(caught.value)
    assert capsys.readouterr().out.startswith("failed, the others go on: ")
    assert {file.stem for file in (tmp_path / "out").rglob("*.png")} == {"one", "two"}


def test_pictures_of_any_size_are_whole_where_they_fit(study: Study) -> None:
    def restore(**changes: object) -> Any:
        return chosen_study(_checkpoint(study), Choices(changes=changes)).study.profile.restore

    assert restore().vae_tile == "auto" and restore(vae_tile=0).vae_tile == 0
    expected = study.profile.restore.model_copy(update={"vae_tile": "auto", "steps": 9})
    assert restore(steps=9) == expected


# --- Messages -----------------------------------------------------------------------------------


def test_options_that_a_method_does_not_heed_are_refused(study: Study) -> None:
    cli.train("realesrgan", config=study.file)
    for choices, option in (
        (Choices(changes={"steps": 3}), "--steps"),
        (Choices(changes={"tile": 32, "tile_stride": 16}), "--tile"),
        (Choices(scale=2), "--scale"),
        (Choices(progressive=True), "--progressive"),
        (Choices(caption="a hill"), "--caption"),
    ):
        with pytest.raises(UserError, match=f"^{option}: realesrgan does not sample"):
            chosen_study(_checkpoint(study, "realesrgan"), choices)
    assert chosen_study(_checkpoint(study, "realesrgan"), Choices(scale=4)).passes == [4]


def _of_baseline(study: Study, tmp_path: Path, sampling: dict[str, object]) -> Path:
    """A checkpoint of a baseline with a sampling of its own; without weights."""
    raw = study.profile.model_dump(mode="json")
    raw["baselines"]["seesr"]["settings"]["sampling"] = sampling
    folder = tmp_path / "seesr"
    folder.mkdir()
    run = {"method": "seesr", "profile": Profile.model_validate(raw).model_dump(mode="json")}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_what_was_typed_counts_before_the_sampling_of_a_method(
    study: Study, tmp_path: Path
) -> None:
    folder = _of_baseline(study, tmp_path, {"guidance_scale": 3.0, "captions": "given"})
    chosen = chosen_study(folder, Choices(changes={"guidance_scale": 2.0})).study.profile
    assert chosen.settings_of("seesr")["sampling"] == {"captions": "given"}
    assert chosen.restore.guidance_scale == 2.0
    kept = chosen_study(folder, Choices(changes={"steps": 5})).study.profile
    assert kept.settings_of("seesr")["sampling"]["guidance_scale"] == 3.0


def test_a_caption_that_was_typed_counts_before_the_tags_of_a_method(
    study: Study, tmp_path: Path
) -> None:
    folder = _of_baseline(study, tmp_path, {"captions": "none"})
    for caption, captions in (("a hill", "given"), ("", "none")):
        chosen = chosen_study(folder, Choices(caption=caption)).study.profile
        assert chosen.settings_of("seesr")["sampling"] == {"captions": captions}


def test_tiles_of_the_vae_overlap_by_whole_latents(study: Study) -> None:
    # 34 latents of 2 px: a quarter of them is no number of whole ones.
    with pytest.raises(UserError, match=r"^--vae-tile 68: give a multiple of 8, 0 or auto$"):
        chosen_study(_checkpoint(study), Choices(changes={"vae_tile": 68}))
    for tile in (0, 80, "auto"):
        chosen = chosen_study(_checkpoint(study), Choices(changes={"vae_tile": tile}))
        assert chosen.study.profile.restore.vae_tile == tile


def test_tiles_that_a_checkpoint_recorded_are_checked_too(study: Study, tmp_path: Path) -> None:
    run = json.loads((_checkpoint(study) / "run.json").read_text())
    run["profile"]["restore"]["vae_tile"] = 68
    (tmp_path / "run.json").write_text(json.dumps(with_checksum(run)))
    said = r"run\.json: profile\.restore\.vae_tile: 68 is not a multiple of 8; give --vae-tile"
    with pytest.raises(CheckpointError, match=said):
        chosen_study(tmp_path, Choices())
    chosen = chosen_study(tmp_path, Choices(changes={"vae_tile": "auto"}))
    assert chosen.study.profile.restore.vae_tile == "auto"


def test_too_few_steps_are_said_by_what_was_typed(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--steps 1: too few; give 2 or more"):
        chosen_study(_checkpoint(study), Choices(changes={"steps": 1}))
    run = json.loads((_checkpoint(study) / "run.json").read_text())
    run["profile"]["restore"] |= {"start_point": "noise", "steps": 1}
    (tmp_path / "run.json").write_text(json.dumps(with_checksum(run)))
    with pytest.raises(UserError, match=r"^--start-point lq: 1 steps .*--steps 2 or more"):
        chosen_study(tmp_path, Choices(changes={"start_point": "lq"}))


def test_the_command_passes_on_what_was_typed(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Choices] = []
    monkeypatch.setattr(
        "faithdiff.restore.pictures.restore_pictures", lambda *args: given.append(args[3])
    )
    line = "restore a.png --checkpoint c --output o"

    def call(options: str) -> Any:
        return CliRunner().invoke(cli.app, f"{line} {options}".split())

    call("")
    assert given.pop() == Choices()
    call("--tile 32 --vae-tile auto --scale 2 --precision bf16 --color-fix none --start-point lq")
    assert given.pop() == Choices(
        scale=2,
        changes={
            "tile": 32, "tile_stride": 16, "vae_tile": "auto", "precision": "bf16",
            "color_fix": "none", "start_point": "lq",
        },
    )  # fmt: skip
    call("--overwrite")
    assert given.pop() == Choices(overwrite=True)
    call("--progressive --offload --side-by-side --seed 3 --caption llava --tile auto")
    changes = {"tile": "auto", "tile_stride": "auto"}
    assert given.pop() == Choices("llava", 3, None, True, True, True, changes)
    assert "--tile 4: give 8 or more, or auto" in str(call("--tile 4").exception)
    assert "--vae-tile x: give 0 or 64 or more" in str(call("--vae-tile x").exception)
    assert not given


# --- Offload and quantised UNets ----------------------------------------------------------------


def test_offload_without_an_accelerator_is_refused(study: Study) -> None:
    with pytest.raises(UserError, match=r"^--offload: there is no accelerator here"):
        chosen_study(_checkpoint(study), Choices(offload=True))


def test_a_method_that_cannot_be_offloaded_is_refused_before_its_weights(
    study: Study, tmp_path: Path
) -> None:
    folder = _of_baseline(study, tmp_path, {})  # which has none
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        with pytest.raises(UserError, match=r"^--offload: seesr keeps its networks on one device"):
            restore_pictures(folder, [tmp_path], tmp_path / "out", Choices(offload=True))


def test_networks_are_offloaded_one_after_the_other(study: Study) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        chosen = chosen_study(_checkpoint(study), Choices(offload=True, changes=STEPS))
    assert chosen.offload_to == torch.device("cuda:0")
    assert chosen.study.profile.device == "cpu"  # where they are loaded
    choices = Choices(changes=STEPS)
    plain, offloaded = (_restorer(study, choices) for _ in range(2))
    offloaded.offload(torch.device("cpu"))
    lq = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    passed: list[str] = []
    prior, encoder = offloaded._sampler.prior, offloaded._model.lq_encoder
    for part in (*prior.text_encoders, encoder, prior.unet, prior.vae):
        hook, name = part._hf_hook, type(part).__name__
        before = hook.pre_forward

        def pre_forward(
            *args: Any, name: str = name, before: Callable[..., Any] = before, **words: Any
        ) -> Any:
            passed.append(name)
            return before(*args, **words)

        hook.pre_forward = pre_forward
    assert torch.equal(offloaded.restore(lq, ["a"], [1]), plain.restore(lq, ["a"], [1]))
    order = list(dict.fromkeys(passed))
    assert order[0] == "LQEncoder" and passed[-1].endswith("AutoencoderKL")
    assert "UNet2DConditionModel" in order and any("CLIP" in name for name in order)


def test_the_captioner_is_asked_on_the_gpu_where_networks_are_offloaded(study: Study) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        offloaded = chosen_study(_checkpoint(study), Choices(caption="llava", offload=True))
    assert offloaded.captioned.profile.device == "cuda"
    here = chosen_study(_checkpoint(study), Choices(caption="llava"))
    assert here.captioned == here.study


def test_a_pipeline_takes_a_unet_that_was_loaded_another_way(study: Study, tmp_path: Path) -> None:
    model = load(_checkpoint(study))
    prior = load_prior(study.layout.trained_prior, unet=model.unet)
    FaithDiffPipeline.from_parts(prior, model).save_pretrained(tmp_path)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    for layer in (m for m in unet.modules() if isinstance(m, torch.nn.Linear)):
        scale = layer.weight.detach().abs().max() / 127
        layer.weight.data = (layer.weight / scale).round() * scale  # what 8 bits hold
    whole = FaithDiffPipeline.from_pretrained(tmp_path)
    quantised = FaithDiffPipeline.from_pretrained(tmp_path, unet=unet)
    assert quantised.unet is unet
    images = []
    for pipeline in (whole, quantised):
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        images.append(
            pipeline(
                torch.full((1, 3, 8, 8), 0.4),
                num_inference_steps=2,
                generator=generator,
                output_type="pt",
            ).images
        )
    assert 0 < (images[0] - images[1]).abs().max() < 0.1
    with pytest.raises(ValueError, match=r"float32 and the rest in .*give torch_dtype=.*float32"):
        FaithDiffPipeline.from_pretrained(tmp_path, torch.float16, unet=unet)
    with pytest.raises(TypeError, match="quantization_config"):
        FaithDiffPipeline.from_pretrained(tmp_path, quantization_config=object())
