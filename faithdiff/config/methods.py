"""Sections of the methods: variants, baselines, a person's own, how they sample, and curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from faithdiff.config.curves import TRAINED, row_name
from faithdiff.config.section import (
    Label,
    Name,
    NaturalOrAuto,
    Positive,
    PositiveOrAuto,
    Precision,
    Rate,
    Section,
)
from faithdiff.config.training import Phase
from faithdiff.study.plain import JsonObject


class Variant(Section):
    label: Label
    recipe: Name  # a key of `recipes`
    pretrain: bool  # False: skip stage 1; stage 2 then has its updates, too
    budget: Rate = 1.0  # times the updates of stages 1 and 2 together; equal for a fair comparison
    rates: Rate = 1.0  # times the learning rates of stage 2
    phases: Annotated[list[Phase], Field(min_length=1)]
    weights: Path | None = None  # official single file to import; then nothing is trained

    @property
    def published(self) -> bool:
        """Whether its weights are the authors' own."""
        return self.weights is not None

    @property
    def implementation(self) -> str:
        """The class, as that of a baseline."""
        return "faithdiff.train.variants:VariantMethod"


class Baseline(Section):
    label: Label
    implementation: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]  # module:Class
    trained: bool = False  # whether it must be trained before it restores
    denoises: bool = False  # whether it denoises latents of the study's prior
    published: bool = False  # a published system, trained by its authors on their own data
    # Restores with the checkpoint of this method, whose settings hold where its own say nothing:
    # the same training under another sampler.
    checkpoint_of: Name | None = None
    settings: JsonObject = Field(default_factory=dict)  # checked by the class's own schema


class _Own(Section):
    """What the suite neither trains nor looks into."""

    label: Label

    @property
    def trained(self) -> bool:
        return False

    @property
    def denoises(self) -> bool:
        return False

    @property
    def published(self) -> bool:
        return False

    @property
    def checkpoint_of(self) -> None:
        return None

    @property
    def settings(self) -> JsonObject:
        return {}


class OwnOutputs(_Own):
    """A method of the user's own, given as restored images; see docs/add-a-method.md."""

    # Folder with <dataset>/<level>/<image>.png, or a path with {dataset} and {level}.
    outputs: Annotated[str, Field(min_length=1)]

    @property
    def implementation(self) -> str:
        return "faithdiff.methods.external.own:Outputs"


Unit = Literal["image", "folder", "set"]


class OwnCommand(_Own):
    """A method of the user's own, given as a command; see docs/add-a-method.md."""

    command: str  # {lq} and {out} are folders; also {seed} {scale} {captions}
    # What one call restores. image: one image. folder: all that are missing, and none may depend on
    # the others. set: a whole test set at a level, whose results may depend on one another.
    per: Unit = "folder"
    environment: Path | None = None  # folder with bin/python; .txt, .lock, .yml: of packages
    depends: list[Path] = Field(
        default_factory=list
    )  # files and folders whose content decides the results
    gpu_gb: Annotated[float, Field(ge=0)] = 0  # that it needs; checked before a long run
    minutes: Annotated[float, Field(gt=0)] | None = None  # that one call may take; null: any

    @property
    def implementation(self) -> str:
        return "faithdiff.methods.external.own:Command"


def _kind(value: object) -> str:
    """Which section a baseline is, by the key that only this one has."""
    if isinstance(value, Section):
        return type(value).__name__
    keys = value if isinstance(value, dict) else ()
    return "OwnCommand" if "command" in keys else "OwnOutputs" if "outputs" in keys else "Baseline"


# The tags are the names of the classes, which the JSON schema has as well (see loading.py).
AnyBaseline = Annotated[
    Annotated[Baseline, Tag("Baseline")]
    | Annotated[OwnOutputs, Tag("OwnOutputs")]
    | Annotated[OwnCommand, Tag("OwnCommand")],
    Discriminator(_kind),
]


RESTORE_OPERATIONAL = {"batch_size", "tile_batch", "channels_last"}  # no result depends on them


class Restore(Section):
    scheduler: Literal["ddim", "euler"]
    # Of the whole schedule from the last training timestep; it has 1000.
    steps: Annotated[int, Field(ge=1, le=1000)]
    timestep_spacing: Literal["leading", "trailing"]
    guidance_scale: Annotated[float, Field(ge=1)]
    negative_prompt: str
    start_point: Literal["noise", "lq"]
    start_timestep: Annotated[int, Field(ge=0, le=999)]  # read where start_point is `lq`
    color_fix: Literal["none", "adain", "wavelet"]
    wavelet_levels: Annotated[int, Field(ge=1, le=12)]  # the last one blurs over 2**levels pixels
    # auto: chosen for each image by its size and the memory there is (restore/tile_sizes.py)
    tile: PositiveOrAuto  # latent pixels
    tile_stride: PositiveOrAuto  # latent pixels; auto: half a tile
    batch_size: Positive  # images of equal size sampled together
    tile_batch: PositiveOrAuto  # tiles of each of them in one UNet pass
    vae_tile: NaturalOrAuto  # pixels; 0 encodes and decodes whole images
    precision: Precision
    channels_last: bool = (
        False  # on a GPU, weights of convolutions in NHWC order; equal to rounding
    )
    compile: bool  # torch.compile the UNet: faster on a GPU after a minute, equal up to rounding
    as_released: bool  # do what the released code does by accident, see docs/as-released.md

    def decisive(self) -> JsonObject:
        """The settings that decide the images: without those of how fast they are made."""
        return self.model_dump(mode="json", exclude=RESTORE_OPERATIONAL)

    @model_validator(mode="after")
    def _tiles_overlap(self) -> Restore:
        if self.tile == "auto" or self.tile_stride == "auto":
            if self.tile != self.tile_stride:
                raise ValueError("tile and tile_stride must both be numbers, or both auto")
        elif self.tile_stride > self.tile:
            raise ValueError(f"tile_stride {self.tile_stride} is larger than tile {self.tile}")
        return self


class Sampling(Section):
    """Where the sampling of a method departs from ``restore``; what is left out does not."""

    scheduler: Literal["ddim", "euler"] | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance_scale: Annotated[float, Field(ge=1)] | None = None
    negative_prompt: str | None = None
    start_point: Literal["noise", "lq", "restored"] | None = None
    start_timestep: Annotated[int, Field(ge=0, le=999)] | None = None
    color_reference: Literal["lq", "restored"] = "lq"  # whose low frequencies or statistics
    restoration_guidance: Annotated[float, Field(ge=0)] = 0.0  # 0: none; else see the design
    # none: empty. given: those of the test set. A method: those by which it denoises (SeeSR's tags
    # of the LQ image). Left out: as the design does.
    captions: Name | None = None

    @property
    def captioner(self) -> str | None:
        """The method whose captions are taken, if any."""
        return None if self.captions in (None, "none", "given") else self.captions

    def changed(self, restore: Restore) -> Restore:
        """The settings of a profile with the switches of this method."""
        mine = self.model_dump(exclude={"color_reference", "restoration_guidance", "captions"})
        mine = {key: value for key, value in mine.items() if value is not None}
        if mine.get("start_point") == "restored":
            mine["start_point"] = "lq"  # another image enters the schedule in the same way
        return restore.model_copy(update=mine)


Setting = Literal[
    "budget", "rates",  # of the training: a training of its own
    # of the sampling
    "start_timestep", "guidance_scale", "steps", "restoration_guidance", "captions",
]  # fmt: skip


class Curve(Section):
    """Methods repeated at other values of one setting: a row of the study for each.

    A row is named ``<method>-<setting>-<value>``, and is a method like any other.
    """

    setting: Setting
    methods: Annotated[list[Name], Field(min_length=1)]  # the others are compared with the first
    values: Annotated[list[float | Name], Field(min_length=1)]

    @model_validator(mode="after")
    def _values_fit_the_setting(self) -> Curve:
        words = self.setting == "captions"
        for value in self.values:
            if isinstance(value, str) != words:
                kind = "none, given or a method" if words else "a number"
                raise ValueError(f"values: of {self.setting} must be {kind}, not {value!r}")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("methods: one occurs twice")
        # By the names of their rows, which hold six digits of a number.
        if len(set(self.rows[self.methods[0]])) < len(self.values):
            raise ValueError("values: one occurs twice, or two are equal in six digits")
        return self

    @property
    def trains(self) -> bool:
        """Whether each value is a training of its own."""
        return self.setting in TRAINED

    @property
    def rows(self) -> dict[str, dict[str, float | str]]:
        """The rows that are added: value by row, by method."""
        return {
            method: {row_name(method, self.setting, value): value for value in self.values}
            for method in self.methods
        }
