"""What a person chose for their pictures, made into the settings of a study.

Messages name the option that was typed, not the key of the profile behind it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from faithdiff.config import Profile, Restore, parse
from faithdiff.config.checks import least_steps, lowest, settings_of_sampler, vae_grid
from faithdiff.errors import CheckpointError, ConfigError, CorruptedError, UserError
from faithdiff.methods.method import Study
from faithdiff.study.checkpoints import RUN
from faithdiff.study.layout import Layout
from faithdiff.study.records import RunRecord

# Options of `faithdiff restore` by the key of the profile's section `restore` that they replace.
OPTIONS = {
    "steps": "--steps",
    "guidance_scale": "--guidance",
    "start_point": "--start-point",
    "color_fix": "--color-fix",
    "precision": "--precision",
    "tile": "--tile",
    "tile_stride": "--tile",
    "vae_tile": "--vae-tile",
}
ONE_PASS = 4  # times that one pass enlarges at most
STEP = 2  # times that each of several passes enlarges


@dataclass(frozen=True)
class Choices:
    """What a person chose beside checkpoint and pictures.

    Attributes:
        caption: What the pictures show; or ``file`` (beside each) or ``llava`` (which is asked).
        seed: Of the noise, the same for each picture.
        scale: Side of the result / side of the picture; None: that of the checkpoint.
        progressive: Enlarge in several passes of two, each of which restores the last one's result.
        offload: Keep each network on the GPU only while it computes.
        side_by_side: Write each picture beside its result, too.
        changes: Settings of the profile's section `restore` to replace.
        overwrite: Replace results of other choices in the output folder.
    """

    caption: str = ""
    seed: int = 0
    scale: int | None = None
    progressive: bool = False
    offload: bool = False
    side_by_side: bool = False
    changes: Mapping[str, object] = field(default_factory=dict)
    overwrite: bool = False

    def typed(self, checkpoint: Path) -> str:
        """Write the options that decide a result, as a person would type them."""
        words: dict[str, object] = {
            "--checkpoint": checkpoint,
            "--scale": self.scale,
            "--caption": self.caption,
            # Where one option sets two keys, the first of them is what was typed.
            **{option: self.changes.get(key) for key, option in reversed(OPTIONS.items())},
            "--seed": self.seed,
        }
        given = [f"{k} {shlex.quote(str(v))}" for k, v in words.items() if v not in (None, "")]
        return " ".join([*given, *["--progressive"] * self.progressive])


@dataclass(frozen=True)
class Chosen:
    """The study that a checkpoint is of, with a person's choices, and how it is used.

    Attributes:
        study: At the scale of one pass; on the CPU where networks are offloaded.
        method: The name of the method.
        passes: Times that each pass enlarges.
        offload_to: The device where networks compute that are offloaded; None: they are not.
    """

    study: Study
    method: str
    passes: list[int]
    offload_to: torch.device | None

    @property
    def captioned(self) -> Study:
        """The study for the captioner: on the GPU also where the networks are offloaded."""
        # It is gone before they come, and no part of what waits in the CPU's memory.
        if self.offload_to is None:
            return self.study
        device = {"device": self.offload_to.type}
        return replace(self.study, profile=self.study.profile.model_copy(update=device))


def chosen_study(checkpoint: Path, choices: Choices) -> Chosen:
    """Read the study that made a checkpoint, and change it as a person chose.

    Raises:
        CheckpointError: The checkpoint or its prior is missing or corrupted.
        UserError: A choice does not go with the method, the machine or another choice.
    """
    profile, name = _profile(checkpoint)
    passes = _passes(profile, choices)
    _check_method(profile, name, choices, passes)
    if choices.offload and not torch.cuda.is_available():
        raise UserError(
            "--offload: there is no accelerator here (PyTorch finds no GPU), and without one all "
            "networks are in the CPU's memory anyway; leave it out"
        )
    changes = dict(choices.changes)
    if profile.restore.vae_tile == 0:
        # A study has its images whole. A person's may be of any size: whole where they fit.
        changes.setdefault("vae_tile", "auto")
    restore = _changed(profile.restore, changes)
    _check_vae_tile(profile, choices.changes, checkpoint)
    profile = _without_own(profile, name, choices)
    profile = profile.model_copy(update={"restore": restore})
    _check_steps(profile, name, choices.changes)
    # A checkpoint from a machine with a GPU restores on one without, only slower.
    device = profile.device if torch.cuda.is_available() and not choices.offload else "cpu"
    profile = profile.model_copy(update={"device": device})
    study = Study(profile, checkpoint / RUN, Layout(profile.profile)).at_scale(passes[0])
    if name in profile.variants and not study.prior_folder.is_dir():
        raise CheckpointError(
            f"{study.prior_folder}: the prior of {checkpoint} is missing; run from the folder "
            "where it was trained, usually the root of the repository"
        )
    return Chosen(study, name, passes, torch.device("cuda:0") if choices.offload else None)


def _profile(checkpoint: Path) -> tuple[Profile, str]:
    """The profile of a checkpoint, and its method."""
    file = checkpoint / RUN
    try:
        run = RunRecord.read(file)
    except CorruptedError as error:
        raise CheckpointError(str(error)) from None
    except OSError:
        run = RunRecord()
    if not run.method:
        raise CheckpointError(
            f"{file}: is missing, or is not of a method; give a folder that `faithdiff train` "
            "wrote, such as checkpoints/mini/faithdiff/seed0"
        )
    return parse(run.profile, Profile, f"{file}: profile"), run.method


def _passes(profile: Profile, choices: Choices) -> list[int]:
    scale = choices.scale or profile.data.scale
    if choices.progressive and scale > STEP:
        return [STEP] * (scale.bit_length() - 1)
    if choices.scale is not None and scale > ONE_PASS:
        raise UserError(
            f"--scale {scale}: one pass enlarges {ONE_PASS} times at most; add --progressive"
        )
    return [scale]


def _check_method(profile: Profile, name: str, choices: Choices, passes: list[int]) -> None:
    """Refuse options that a method which does not sample would not heed."""
    if name in profile.on_prior or name not in profile.methods:
        return
    given = [OPTIONS[key] for key in choices.changes if key in OPTIONS]
    given += ["--caption"] * bool(choices.caption)
    if passes != [profile.data.scale]:
        given += ["--progressive" if choices.progressive else "--scale"]
    if given:
        raise UserError(
            f"{given[0]}: {name} does not sample and enlarges {profile.data.scale} times; leave it "
            "out"
        )


def _changed(restore: Restore, changes: Mapping[str, object]) -> Restore:
    try:
        return parse({**restore.model_dump(), **changes}, Restore, "restore")
    except ConfigError as error:
        lines = str(error)
        for key, option in OPTIONS.items():
            lines = lines.replace(f"restore: {key}: ", f"{option}: ")
        raise UserError(lines) from None


def _check_vae_tile(profile: Profile, changes: Mapping[str, object], checkpoint: Path) -> None:
    tile, grid = changes.get("vae_tile", profile.restore.vae_tile), vae_grid(profile)
    if not isinstance(tile, int) or tile % grid == 0:
        return
    if "vae_tile" in changes:
        raise UserError(f"--vae-tile {tile}: give a multiple of {grid}, 0 or auto")
    # Trained before profiles were checked for it.
    raise CheckpointError(
        f"{checkpoint / RUN}: profile.restore.vae_tile: {tile} is not a multiple of {grid}; give "
        "--vae-tile with one, or --vae-tile auto"
    )


def _without_own(profile: Profile, name: str, choices: Choices) -> Profile:
    """The profile with the method's own sampling taken back where a person chose otherwise."""
    if name not in profile.on_prior or name not in profile.baselines:
        return profile
    own = profile.sampling_of(name).model_dump(mode="json", exclude_unset=True)
    sampling = {key: value for key, value in own.items() if key not in choices.changes}
    if choices.caption and "sampling" in profile.settings_of(name):
        sampling["captions"] = "given"  # and not none, or what the method reads off the picture
    if sampling == own:
        return profile
    update = {"settings": {**profile.settings_of(name), "sampling": sampling}}
    baseline = profile.baselines[name].model_copy(update=update)
    return profile.model_copy(update={"baselines": {**profile.baselines, name: baseline}})


def _check_steps(profile: Profile, method: str, changes: Mapping[str, object]) -> None:
    """Refuse fewer steps than the start from the LQ image allows, before anything is loaded."""
    restore = settings_of_sampler(profile, method)
    least = least_steps(restore) if method in profile.on_prior else 1
    if restore.steps >= least:
        return
    if "steps" not in changes and "start_point" in changes:
        said = f"--start-point lq: {restore.steps} steps are too few; give --steps {least} or more"
    else:
        said = f"--steps {restore.steps}: too few; give {least} or more"
    raise UserError(
        f"{said}: the LQ image enters at timestep {restore.start_timestep}, as the checkpoint was "
        f"made for, and the lowest that {restore.steps} steps visit is "
        f"{lowest(restore.steps, restore)}"
    )
