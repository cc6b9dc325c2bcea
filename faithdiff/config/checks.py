"""What no single field of a profile shows: entries that repeat, names of nothing, contradictions.

Each would be noticed otherwise after hours, in the job that it concerns, or never.
"""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from faithdiff.config.data import FolderSet, parts_of

if TYPE_CHECKING:
    from faithdiff.config import Dataset, Profile, Restore
    from faithdiff.config.yaml_file import Location

Problem = tuple["Location", str]

TIMESTEPS = 1000  # of the prior's noise schedule
RESERVED_SETS = ("train", "prior")  # folders of data/<profile>/ beside the test sets


def problems(profile: Profile) -> Iterator[Problem]:
    """Where a profile says what cannot be meant, and why."""
    yield from _repeated(profile)
    yield from _names(profile)
    yield from _deviations(profile)
    yield from _trainings(profile)
    yield from _restorations(profile)


def least_steps(restore: Restore) -> int:
    """The fewest sampling steps of which one is as late as the start from the LQ image."""
    if restore.start_point != "lq":
        return 1
    return next(n for n in range(1, TIMESTEPS + 1) if lowest(n, restore) <= restore.start_timestep)


def lowest(steps: int, restore: Restore) -> int:
    """The last timestep that a sampler visits in so many steps."""
    return round(TIMESTEPS / steps) - 1 if restore.timestep_spacing == "trailing" else 0


def latent_factor(profile: Profile) -> int:
    """Pixels per latent pixel of the prior."""
    vae = profile.prior.vae
    return vae.patch_size * 2 ** (len(vae.block_out_channels) - 1)


def vae_grid(profile: Profile) -> int:
    """Of what the side of a VAE tile is a multiple: a quarter, the overlap, is whole latents."""
    return 4 * latent_factor(profile)


def settings_of_sampler(profile: Profile, method: str) -> Restore:
    """`restore` with the switches of a method; without them where they do not fit their schema."""
    return profile.sampling_of(method).changed(profile.restore)


def _repeated(profile: Profile) -> Iterator[Problem]:
    lists: dict[Location, Iterable[str | int]] = {
        ("seeds",): profile.seeds,
        ("data", "levels"): profile.data.levels,
        ("prior", "unet", "attention_levels"): profile.prior.unet.attention_levels,
        ("training", "heldout", "curve"): profile.training.heldout.curve,
        ("score", "protocols"): profile.score.protocols,
        ("score", "metrics"): profile.score.metrics,
        ("report", "main"): profile.report.main,
        ("report", "ablation"): profile.report.ablation,
    }
    for name, variant in profile.variants.items():
        for number, phase in enumerate(variant.phases):
            lists["variants", name, "phases", number, "train"] = phase.train
    for path, entries in lists.items():
        listed = list(entries)
        if twice := [entry for entry in dict.fromkeys(listed) if listed.count(entry) > 1]:
            yield path, f"{twice[0]!r} is listed {listed.count(twice[0])} times; once is meant"


def _names(profile: Profile) -> Iterator[Problem]:
    for name in profile.data.test:
        if name in RESERVED_SETS:
            yield ("data", "test", name), "is the folder of another dataset; choose another name"
    yield from _in_case_alone({name: ("data", "test", name) for name in profile.data.test})
    kinds = {
        name: "variants" if name in profile.variants else "baselines" for name in profile.methods
    }
    yield from _in_case_alone({name: (kind, name) for name, kind in kinds.items()})
    labels: dict[str, str] = {}
    for name, method in profile.methods.items():
        kind = kinds[name]
        if name == "prior" or name.startswith("stage1-"):
            yield (kind, name), "is the folder of other weights; choose another name"
        # Without case: who asks for a row by its label writes it as they like.
        first = labels.setdefault(_folded(method.label), name)
        if first != name:
            apart = "" if method.label == profile.methods[first].label else " (apart from case)"
            yield (
                (kind, name, "label"),
                f"{method.label!r} is the label of {first}, too{apart}: tables could not tell them "
                "apart",
            )


def _in_case_alone(places: Mapping[str, Location]) -> Iterator[Problem]:
    """Names of folders that many disks take for one."""
    spelt: dict[str, str] = {}
    for name, place in places.items():
        if (first := spelt.setdefault(name.lower(), name)) != name:
            said = f"differs from {first} in upper and lower case alone: many disks would take "
            yield place, f"{said}their folders for one; choose another name"


def _folded(label: str) -> str:
    """What is equal of labels that a reader, or a search for them, takes for one."""
    return unicodedata.normalize("NFC", label).casefold()


def _deviations(profile: Profile) -> Iterator[Problem]:
    settings = set(_paths(profile.model_dump(exclude={"deviations"})))
    for path in profile.deviations:
        if path not in settings:
            close = difflib.get_close_matches(path, settings, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "; remove the reason"
            yield ("deviations", path), f"there is no such setting{hint}"


def _paths(section: Mapping[str, object], path: str = "") -> Iterator[str]:
    for key, value in section.items():
        yield (below := f"{path}.{key}".lstrip("."))
        if isinstance(value, dict):
            yield from _paths(value, below)


def _trainings(profile: Profile) -> Iterator[Problem]:
    training, prior = profile.training, profile.prior
    for number, timestep in enumerate(training.heldout.curve):
        if timestep >= TIMESTEPS:
            yield ("training", "heldout", "curve", number), f"the last is {TIMESTEPS - 1}"
    if prior.source == "train":
        yield from _fits("prior.training.vae.crop", prior.training.vae.crop, prior.training.data)
        yield from _fits("prior.training.unet.crop", prior.training.unet.crop, prior.training.data)
        yield from _shape_of_prior(profile)
    if not profile.learns:
        return
    yield from _fits("training.crop", training.crop, profile.data.train)
    # A crop must start on a whole pixel of both the latent and the LQ image.
    factor = latent_factor(profile)
    if training.crop % (grid := math.lcm(factor, profile.data.scale)):
        yield (
            ("training", "crop"),
            f"{training.crop} is not a multiple of {grid}, which whole latents and LQ pixels need "
            f"(prior: {factor} pixels each, data.scale: {profile.data.scale})",
        )
    if profile.pretrained and not training.stage1_steps:
        names = [n for n, v in profile.variants.items() if v.pretrain and v.weights is None]
        yield (
            ("training", "stage1_steps"),
            f"0 leaves nothing to stage 1 of {', '.join(names)}; give it updates, or give these "
            "variants pretrain: false",
        )
    width = 2 * prior.unet.block_out_channels[0]
    trained = [variant for variant in profile.variants.values() if variant.weights is None]
    kinds = {profile.recipes[variant.recipe].alignment for variant in trained}
    if "transformer" in kinds and width % profile.alignment.heads:
        yield (
            ("alignment", "heads"),
            f"{profile.alignment.heads} do not divide the {width} channels of a token (twice the "
            "first of prior.unet.block_out_channels)",
        )


def _fits(path: str, crop: int, images: Dataset) -> Iterator[Problem]:
    """Whether crops fit images whose size the profile itself says."""
    parts = parts_of(images).values()
    # Whole images of a folder have the size that they have: `prepare` looks at them.
    known = [part.crops if isinstance(part, FolderSet) else part for part in parts]
    size = min((each.size for each in known if each is not None), default=crop)
    if size < crop:
        yield tuple(path.split(".")), f"{crop} px do not fit the images, which have {size} px"


def _shape_of_prior(profile: Profile) -> Iterator[Problem]:
    """Sizes of a prior that is trained here; those of one that ships are in its own files."""
    unet, text = profile.prior.unet, profile.prior.text_encoder
    levels = len(unet.block_out_channels)
    for level in unet.attention_levels:
        if level >= levels:
            yield (
                ("prior", "unet", "attention_levels"),
                f"there is no level {level}: block_out_channels has {levels}, counted from 0",
            )
        elif unet.block_out_channels[level] % unet.head_dim:
            width = unet.block_out_channels[level]
            yield ("prior", "unet", "head_dim"), f"{unet.head_dim} does not divide {width} channels"
    for width in unet.block_out_channels:
        if width % unet.norm_groups:
            yield (
                ("prior", "unet", "norm_groups"),
                f"{unet.norm_groups} do not divide {width} channels of block_out_channels",
            )
    if text.width % text.heads:
        yield ("prior", "text_encoder", "heads"), f"{text.heads} do not divide width {text.width}"


def _restorations(profile: Profile) -> Iterator[Problem]:
    tile, grid = profile.restore.vae_tile, vae_grid(profile)
    if tile != "auto" and tile % grid:
        yield (
            ("restore", "vae_tile"),
            f"{tile} is not a multiple of {grid}: tiles overlap by a quarter of their side, which "
            "must be whole latent pixels",
        )
    said = set()
    for name in profile.on_prior:
        restore = settings_of_sampler(profile, name)
        least = least_steps(restore)
        if restore.steps >= least or least in said:
            continue
        said.add(least)
        common = restore == profile.restore
        path = ("restore", "steps") if common else ("baselines", name, "settings", "sampling")
        yield (
            path,
            f"{restore.steps} steps are too few: the lowest timestep that they visit is "
            f"{lowest(restore.steps, restore)}, and the LQ image enters at "
            f"{restore.start_timestep} (start_timestep); {least} or more reach it",
        )
