"""What no single field of a profile shows is found when the profile is read, or planned."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import DDPMScheduler
from shared import ROOT

from faithdiff.config import load_profile
from faithdiff.config.checks import least_steps, lowest
from faithdiff.errors import ConfigError
from faithdiff.methods.method import Study
from faithdiff.planning.checks import check_study
from faithdiff.restore.schedule import make_scheduler, visited

MINI = load_profile(ROOT / "config/mini.yaml")


def own(folder: Path, text: str) -> Path:
    file = folder / "own.yaml"
    base = ROOT / "config/mini.yaml"
    file.write_text(f"extends: {base}\nprofile: own\n{text}\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # entries that repeat
        ("seeds: [0, 0]", "seeds: 0 is listed 2 times; once is meant"),
        ("data: {levels: [I, II, I]}", "data.levels: 'I' is listed 2 times"),
        ("score: {protocols: [ycbcr, ycbcr]}", "score.protocols: 'ycbcr' is listed 2 times"),
        ("score: {metrics: [psnr, ssim, psnr]}", "score.metrics: 'psnr' is listed 2 times"),
        ("report: {main: [bicubic, faithdiff, bicubic]}", "report.main: 'bicubic' is listed 2"),
        ("report: {ablation: [frozen, frozen]}", "report.ablation: 'frozen' is listed 2 times"),
        ("training: {heldout: {curve: [900, 900]}}", "training.heldout.curve: 900 is listed 2"),
        (
            "variants: {frozen: {phases: [{train: [unet, unet]}]}}",
            "variants.frozen.phases[0].train: 'unet' is listed 2 times",
        ),
        (
            "variants: {frozen: {label: Bicubic}}",
            "variants.frozen.label: 'Bicubic' is the label",
        ),
        (
            "variants: {frozen: {label: BICUBIC}}",
            "variants.frozen.label: 'BICUBIC' is the label of bicubic, too (apart from case): ",
        ),
        ("variants: {}", "variants: {} changes nothing, as the keys that the file inherits stay"),
        (
            "curves: {c: {setting: budget, methods: [frozen, frozen], values: [2]}}",
            "curves.c: methods: one occurs twice",
        ),
        (
            "curves: {c: {setting: budget, methods: [frozen], values: [2.0000001, 2.0000002]}}",
            "curves.c: values: one occurs twice, or two are equal in six digits",
        ),
        # values that say nothing, or more than there is
        ("training: {noise_offset: .inf}", "training.noise_offset: must be a finite number"),
        ("training: {learning_rates: {unet: .inf}}", "training.learning_rates.unet: must be a fin"),
        ("training: {ema_decay: 1}", "training: ema_decay: 1 keeps the weights of the start"),
        ("restore: {steps: 1001}", "restore.steps: must be less than or equal to 1000, not 1001"),
        ("restore: {wavelet_levels: 60}", "restore.wavelet_levels: must be less than or equal"),
        ('variants: {frozen: {label: ""}}', "variants.frozen.label: must be a text on one line"),
        ("variants: {frozen: {label: 'x '}}", "variants.frozen.label: must be a text on one line"),
        (
            'baselines: {b: {label: "a\\nb", outputs: o}}',
            "baselines.b.label: must be a text on one",
        ),
        ('baselines: {b: {label: B, outputs: ""}}', "baselines.b.outputs: must have at least 1 ch"),
        # names that nothing has, or something else has already
        (
            "deviations: {training.cropp: because}",
            "deviations.training.cropp: there is no such setting; did you mean 'training.crop'?",
        ),
        (
            "data: {test: {train: {source: scenes, count: 2, size: 64}}}",
            "data.test.train: is the folder of another dataset; choose another name",
        ),
        (
            "baselines: {prior: {label: P, outputs: mine}}",
            "baselines.prior: is the folder of other weights; choose another name",
        ),
        (
            "data: {test: {photos: {source: photos, count: 2, size: 64}}}",
            "data.test.photos: differs from Photos in upper and lower case alone",
        ),
        (
            "baselines: {Bicubic: {label: Mine, outputs: mine}}",
            "baselines.Bicubic: differs from bicubic in upper and lower case alone",
        ),
        (
            "baselines: {mine: {label: BICUBIC, outputs: mine}}",
            "baselines.mine.label: 'BICUBIC' is the label of bicubic, too",
        ),
        # contradictions
        (
            "restore: {steps: 2, start_timestep: 200}",
            "restore.steps: 2 steps are too few: the lowest timestep that they visit is 499, and "
            "the LQ image enters at 200 (start_timestep); 5 or more reach it",
        ),
        (
            "baselines: {supir-own: {settings: {sampling: {start_timestep: 3}}}}",
            "baselines.supir-own.settings.sampling: 20 steps are too few: the lowest timestep that "
            "they visit is 49, and the LQ image enters at 3 (start_timestep); 223 or more reach it",
        ),
        ("training: {crop: 300}", "training.crop: 300 px do not fit the images, which have 256 px"),
        (
            "data: {train: {source: folder, path: p, crops: {size: 32, count: 2}}}\n"
            "training: {crop: 64}",
            "training.crop: 64 px do not fit the images, which have 32 px",
        ),
        ("training: {crop: 62}", "training.crop: 62 is not a multiple of 4, which whole latents"),
        ("restore: {vae_tile: 68}", "restore.vae_tile: 68 is not a multiple of 16: tiles overlap"),
        (
            "training: {stage1_steps: 0}",
            "training.stage1_steps: 0 leaves nothing to stage 1",
        ),
        ("training: {heldout: {curve: [1000]}}", "training.heldout.curve[0]: the last is 999"),
        ("alignment: {heads: 5}", "alignment.heads: 5 do not divide the 128 channels of a token"),
        (
            "prior: {source: train, unet: {attention_levels: [3]}}",
            "prior.unet.attention_levels: there is no level 3: block_out_channels has 3",
        ),
        ("prior: {source: train, unet: {head_dim: 48}}", "prior.unet.head_dim: 48 does not divide"),
        ("prior: {source: train, unet: {norm_groups: 5}}", "prior.unet.norm_groups: 5 do not"),
        ("prior: {source: train, text_encoder: {heads: 7}}", "prior.text_encoder.heads: 7 do not"),
        ("prior: {source: train, training: {vae: {crop: 512}}}", "prior.training.vae.crop: 512 px"),
    ],
)
def test_a_profile_that_cannot_be_meant_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = own(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_profile(file)
    assert str(caught.value).splitlines()[0].startswith(f"{file}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {levels: [I, IV]}", "data.levels: config/levels.yaml has no level 'IV'"),
        ("data: {train_level: mixd}", "data.train_level: config/levels.yaml has no level 'mixd'; "),
        ("data: {test: {Photos: {count: 99}}}", "data.test.Photos.count: 99 photographs asked"),
        ("score: {metrics: [psnr, lpipss]}", "score.metrics: protocol ycbcr has no 'lpipss'"),
        (
            "baselines: {supir: {settings: {head_dimm: 3}}}",
            "baselines.supir.settings: head_dimm: unknown key; did you mean 'head_dim'?",
        ),
        (
            "baselines: {seesr: {settings: {grid: '4'}}}",
            "baselines.seesr.settings: grid: must be a number, not the text '4'",
        ),
        (
            "baselines: {seesr: {settings: {tag_range: [0.9, 0.1]}}}",
            "baselines.seesr.settings: tag_range: 0.9 is larger than 0.1",
        ),
        ("baselines: {diffbir: {denoises: false}}", "baselines.diffbir.denoises: must be true"),
        (
            "baselines: {bicubic: {implementation: 'baselines.bicubik:Bicubic'}}",
            "baselines.bicubic.implementation: baselines.bicubik:Bicubic: No module named",
        ),
        (
            "baselines: {realesrgan: {settings: {crop: 512}}}",
            "baselines.realesrgan.settings.crop: 512 px do not fit the training images (256 px)",
        ),
        ("data: {scale: 8}", "baselines.realesrgan.settings: RRDBNet enlarges by 1, 2 or 4, and"),
    ],
)
def test_a_study_of_which_a_job_would_fail_is_refused_before_the_first(
    text: str, message: str, tmp_path: Path
) -> None:
    study = Study.load(own(tmp_path, text))
    with pytest.raises(ConfigError) as caught:
        check_study(study)
    assert str(caught.value).startswith(f"{study.file}: {message}")


def test_what_fits_is_kept_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, record = Study.load(own(tmp_path, "")), tmp_path / "checked.json"
    check_study(study, record)

    def built(*_: object) -> None:
        raise AssertionError("a baseline was built again")

    monkeypatch.setattr("faithdiff.planning.checks.find_method", built)
    check_study(study, record)
    with pytest.raises(AssertionError, match="built again"):
        check_study(Study.load(own(tmp_path, "baselines: {seesr: {settings: {grid: 5}}}")), record)


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_the_least_steps_are_those_of_the_samplers(scheduler: str, spacing: str) -> None:
    trained = DDPMScheduler()
    for start in (0, 1, 20, 200, 499, 998, 999):
        changes = {"scheduler": scheduler, "timestep_spacing": spacing, "start_timestep": start}
        restore = MINI.restore.model_copy(update=changes)
        least = least_steps(restore)
        assert len(visited(make_scheduler(restore, trained), least, start)) >= 1
        if least > 1:
            with pytest.raises(ConfigError):
                visited(make_scheduler(restore, trained), least - 1, start)


def test_a_start_from_noise_takes_any_number_of_steps() -> None:
    restore = MINI.restore.model_copy(update={"start_point": "noise", "steps": 1})
    assert least_steps(restore) == 1
    assert lowest(2, restore) == 499
