"""The study's configuration: one YAML file per profile, checked before anything runs.

A misspelt key or a value out of range stops with the file, the path of the field and what is
allowed. Sections are immutable; what a rule reads is hashed by section (:func:`digest`), so a
change in one section reruns only the rules that read it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from faithdiff.curves import expanded, row_name
from faithdiff.errors import ConfigError
from faithdiff.profile_checks import problems
from faithdiff.yaml_file import Layer, Layers, Location, misread

Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Group = Literal["lq_encoder", "alignment", "unet"]
Scale = Literal[1, 2, 4, 8]


class Section(BaseModel):
    """A part of a config file: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Set(Section):
    @property
    def asks(self) -> bool:
        """Whether any caption of the set is written by a model."""
        return False


class SceneSet(_Set):
    """Procedural scenes, drawn from keyed seeds."""

    source: Literal["scenes"]
    count: Positive
    size: Positive  # side in pixels


class PhotoSet(_Set):
    """Crops of the photographs that ship inside scikit-image and scikit-learn."""

    source: Literal["photos"]
    count: Positive
    size: Positive


class Crops(Section):
    """Square crops of images that are larger; smaller images are left out."""

    size: Positive  # pixels
    count: Positive | None = None  # crops per image, at places drawn by keyed seeds
    stride: Positive | None = None  # pixels between crops of a grid; the last ones touch the border

    @model_validator(mode="after")
    def _one_way(self) -> Crops:
        if (self.count is None) == (self.stride is None):
            raise ValueError("give one of count and stride")
        return self


class Quality(Section):
    """Which images of a folder are good enough, by a file of scores."""

    scores: Path  # lines `name,score`, as IQA-PyTorch publishes them for FFHQ
    above: float


class FolderSet(_Set):
    """A folder of images: chosen by `quality` and `limit`, then each resized and cut."""

    source: Literal["folder"]
    path: Path
    recursive: bool = False  # read sub-folders, too; names are then <sub-folder>-<file>
    lq_only: bool = False  # real-world LQ images without HQ: a test set with the level `real`
    scale: Scale | None = None  # of this test set in place of `data.scale`
    captions: Literal["none", "file", "llava"] = "file"  # docs/data.md
    quality: Quality | None = None
    limit: Positive | None = None  # images, the first by name
    resize: tuple[Positive, Positive] | None = None  # shorter side in pixels, drawn between these
    crops: Crops | None = None
    licence: str = "unknown"

    @model_validator(mode="after")
    def _consistent(self) -> FolderSet:
        if self.lq_only and (self.crops or self.resize):
            raise ValueError("lq_only: LQ images are taken as they are; remove crops and resize")
        if self.resize and self.resize[0] > self.resize[1]:
            raise ValueError(f"resize: {self.resize[0]} is larger than {self.resize[1]}")
        return self

    @property
    def asks(self) -> bool:
        """Whether its captions are written by a model."""
        return self.captions == "llava"


class MixtureSet(_Set):
    """Several folders as one set; names are ``<part>-<name>``."""

    source: Literal["mixture"]
    parts: Annotated[dict[Name, FolderSet], Field(min_length=1)]

    @property
    def asks(self) -> bool:
        """Whether any caption of the set is written by a model."""
        return any(part.asks for part in self.parts.values())


Dataset = Annotated[SceneSet | PhotoSet | FolderSet | MixtureSet, Field(discriminator="source")]

REAL = "real"  # the level of images that came degraded


class Data(Section):
    scale: Scale
    levels_file: Path
    levels: Annotated[list[Name], Field(min_length=1)]  # of the test sets
    train_level: Name
    train: Dataset
    test: Annotated[dict[Name, Dataset], Field(min_length=1)]

    @model_validator(mode="after")
    def _hq_where_it_is_needed(self) -> Data:
        if REAL in self.levels:
            raise ValueError(f"levels: {REAL!r} is the level of sets with lq_only")
        if not self.with_hq:
            raise ValueError("test: one set with HQ images at least; all have lq_only")
        train = self.train.parts if isinstance(self.train, MixtureSet) else {"": self.train}
        for name, part in train.items():
            if isinstance(part, FolderSet) and (part.lq_only or part.scale):
                raise ValueError(f"train: {name or 'a folder'}: lq_only and scale are of test sets")
        return self

    def is_real(self, dataset: str) -> bool:
        """Whether a test set has LQ images alone."""
        found = self.test.get(dataset)
        return isinstance(found, FolderSet) and found.lq_only

    @property
    def with_hq(self) -> list[str]:
        """Test sets that have HQ images: for reference metrics and held-out losses."""
        return [name for name in self.test if not self.is_real(name)]

    @property
    def real(self) -> list[str]:
        """Test sets without HQ images."""
        return [name for name in self.test if self.is_real(name)]

    def levels_of(self, dataset: str) -> list[str]:
        """Levels of a test set."""
        return [REAL] if self.is_real(dataset) else self.levels

    @property
    def places(self) -> list[tuple[str, str]]:
        """Every test set with each of its levels."""
        return [(name, level) for name in self.test for level in self.levels_of(name)]

    def scale_of(self, dataset: str) -> int:
        """HQ side / LQ side of a data set."""
        found = self.test.get(dataset)
        own = found.scale if isinstance(found, FolderSet) else None
        return own or self.scale

    def multiple_of(self, dataset: str) -> int:
        """Of what the sides of a set's images are multiples: the scale, if they are degraded."""
        degraded = dataset == "train" or dataset in self.with_hq
        return self.scale_of(dataset) if degraded else 1


class Vae(Section):
    patch_size: Positive  # pixel-unshuffle before the first convolution; 1 is the usual VAE
    latent_channels: Positive
    block_out_channels: list[Positive]
    layers_per_block: Positive


class Unet(Section):
    block_out_channels: list[Positive]
    layers_per_block: Positive
    attention_levels: list[Natural]  # indices of the levels that have cross-attention
    head_dim: Positive
    norm_groups: Positive
    time_id_dim: Positive
    transformer_blocks: Positive | list[Positive] = 1  # at each level that attends
    pooled_width: Positive | None = None  # of the pooled text; None: the text encoder's width


class TextEncoder(Section):
    vocabulary: Positive
    length: Positive  # tokens
    width: Positive
    layers: Positive
    heads: Positive


class Optimiser(Section):
    betas: tuple[float, float]
    eps: Rate
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Rate
    warmup: Natural  # updates with a linearly rising rate
    hold: Probability  # share of the updates at the full rate before the cosine falls


class VaeTraining(Section):
    steps: Positive
    batch_size: Positive
    crop: Positive  # pixels
    learning_rate: Rate
    kl_weight: Annotated[float, Field(ge=0)]
    latent_noise: Annotated[float, Field(ge=0)]  # decoder robustness: up to this much extra noise


class UnetTraining(Section):
    steps: Positive
    batch_size: Positive
    crop: Positive  # pixels
    learning_rate: Rate
    ema_decay: Probability
    text_dropout: Probability


class PriorTraining(Section):
    data: Dataset
    optimiser: Optimiser
    vae: VaeTraining
    unet: UnetTraining


class Prior(Section):
    source: Literal["shipped", "train"]
    path: Path  # read where source is `shipped`
    prediction_type: Literal["epsilon", "v_prediction"]
    vae: Vae
    unet: Unet
    text_encoder: TextEncoder
    training: PriorTraining


class Phase(Section):
    """One optimisation of stage 2: what it trains, and towards what."""

    train: Annotated[list[Group], Field(min_length=1)]
    objective: Literal["denoising", "feature-matching"] = "denoising"


class Stage1(Section):
    """A stage-1 recipe, shared by the variants that name it; trains the alignment alone."""

    features: Literal["penultimate", "moments"]
    alignment: Literal["transformer", "concat"]
    attention: Literal["released", "spatial"]
    mlp_ratio: Positive | None = None  # of the Transformer blocks in place of `alignment.mlp_ratio`


class Variant(Section):
    label: str
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


class Alignment(Section):
    norm: Literal["group", "standardise"]
    blocks: Positive
    heads: Positive
    mlp_ratio: Positive


class LearningRates(Section):
    lq_encoder: Rate
    alignment: Rate
    unet: Rate


class HeldOut(Section):
    """The held-out denoising loss: fixed noise, at the timesteps that the common sampler visits."""

    curve: list[Natural] = []  # timesteps that it does not visit, for the figure of the loss over t
    images: Positive  # per test set and level


OPERATIONAL = {  # settings of `training` that change where and how fast it runs, not its result
    "processes",
    "shard_optimiser",
    "launcher",
    "prefetch",
    "validation_every",
}


class Training(Section):
    loss: Literal["l1", "mse"]
    crop: Positive  # pixels of the HQ crop
    batch_size: Positive  # images per update
    micro_batch: Positive  # images per forward pass; mixed by `attention: released`
    stage1_steps: Natural
    stage1_learning_rate: Rate
    stage2_steps: Positive
    learning_rates: LearningRates
    optimiser: Optimiser
    noise_offset: Annotated[float, Field(ge=0)]
    text_dropout: Probability
    ema_decay: Probability
    weights: Literal["raw", "ema"]  # which of the two is the trained model
    precision: Literal["fp32", "bf16", "fp16"]  # of the passes; weights and their sums are float32
    gradient_checkpointing: bool
    processes: Positive  # one for each device; the micro-batches of an update are dealt to them
    shard_optimiser: bool  # each process keeps the moments of its share of the parameters (ZeRO-1)
    launcher: list[str]  # arguments for `accelerate launch`, beside the number of processes
    prefetch: Natural  # batches drawn ahead by a thread
    heldout: HeldOut
    log_every: Positive
    checkpoint_every: Positive
    validation_every: Natural  # updates between grids of restored test images; 0: none

    @property
    def micro_batches(self) -> int:
        """Forward passes of one update, over all processes."""
        return self.batch_size // self.micro_batch

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the weights: without those of where and how fast they run."""
        return self.model_dump(mode="json", exclude=OPERATIONAL)

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Training:
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch {self.micro_batch}"
            )
        if self.micro_batches % self.processes:
            raise ValueError(
                f"processes {self.processes} do not divide the {self.micro_batches} micro-batches "
                "of an update (batch_size / micro_batch): some would wait for the others"
            )
        return self


class Baseline(Section):
    label: str
    implementation: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]  # module:Class
    trained: bool = False  # whether it must be trained before it restores
    denoises: bool = False  # whether it denoises latents of the study's prior
    published: bool = False  # a published system, trained by its authors on their own data
    # Restores with the checkpoint of this method, whose settings hold where its own say nothing:
    # the same training under another sampler.
    checkpoint_of: Name | None = None
    settings: dict[str, Any] = {}  # checked by the class's own schema


class _Own(Section):
    """What the suite neither trains nor looks into."""

    label: str

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
    def settings(self) -> dict[str, Any]:
        return {}


class OwnOutputs(_Own):
    """A method of the user's own, given as restored images; see docs/add-a-method.md."""

    outputs: str  # folder with <data set>/<level>/<image>.png, or a path with {dataset} and {level}

    @property
    def implementation(self) -> str:
        return "faithdiff.foreign.own:Outputs"


Unit = Literal["image", "folder", "set"]


class OwnCommand(_Own):
    """A method of the user's own, given as a command; see docs/add-a-method.md."""

    command: str  # {lq} and {out} are folders; also {seed} {scale} {captions}
    # What one call restores. image: one image. folder: all that are missing, and none may depend on
    # the others. set: a whole test set at a level, whose results may depend on one another.
    per: Unit = "folder"
    environment: Path | None = None  # a folder with bin/python, a requirements .txt, a conda .yml
    depends: list[Path] = []  # files and folders whose content decides the results
    gpu_gb: Annotated[float, Field(ge=0)] = 0  # that it needs; checked before a long run

    @property
    def implementation(self) -> str:
        return "faithdiff.foreign.own:Command"


def _kind(value: Any) -> str:
    """Which section a baseline is, by the key that only this one has."""
    if isinstance(value, Section):
        return type(value).__name__
    keys = value if isinstance(value, dict) else ()
    return "OwnCommand" if "command" in keys else "OwnOutputs" if "outputs" in keys else "Baseline"


# The tags are the names of the classes, which the JSON schema has as well (see _walk).
AnyBaseline = Annotated[
    Annotated[Baseline, Tag("Baseline")]
    | Annotated[OwnOutputs, Tag("OwnOutputs")]
    | Annotated[OwnCommand, Tag("OwnCommand")],
    Discriminator(_kind),
]


class Captioner(Section):
    """LLaVA, asked for the captions of data sets that say ``captions: llava``."""

    path: Path = Path("weights/llava-1.5-13b-hf")  # a folder of transformers
    question: str = "Describe this image and its style in a very detailed manner."
    temperature: Annotated[float, Field(ge=0)] = 0.2  # 0: always the likeliest word
    top_p: Probability = 0.7
    max_tokens: Positive = 512
    precision: Literal["float32", "float16", "bfloat16"] = "float16"
    clean: Path | None = None  # BSRNet, which removes the degradation of test images before


class Restore(Section):
    scheduler: Literal["ddim", "euler"]
    steps: Positive  # of the whole schedule from the last training timestep
    timestep_spacing: Literal["leading", "trailing"]
    guidance_scale: Annotated[float, Field(ge=1)]
    negative_prompt: str
    start_point: Literal["noise", "lq"]
    start_timestep: Annotated[int, Field(ge=0, le=999)]  # read where start_point is `lq`
    color_fix: Literal["none", "adain", "wavelet"]
    wavelet_levels: Positive
    tile: Positive  # latent pixels
    tile_stride: Positive  # latent pixels
    batch_size: Positive  # images of equal size sampled together
    tile_batch: Positive  # tiles of each of them in one UNet pass
    vae_tile: Natural  # pixels; 0 encodes and decodes whole images
    precision: Literal["fp32", "bf16", "fp16"]
    compile: bool  # torch.compile the UNet: faster on a GPU after a minute, equal up to rounding
    as_released: bool  # do what the released code does by accident, see docs/as-released.md

    @model_validator(mode="after")
    def _tiles_overlap(self) -> Restore:
        if self.tile_stride > self.tile:
            raise ValueError(f"tile_stride {self.tile_stride} is larger than tile {self.tile}")
        return self


class Sampling(Section):
    """Where the sampling of a method departs from ``restore``; what is left out does not."""

    scheduler: Literal["ddim", "euler"] | None = None
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


class Curve(Section):
    """Methods repeated at other values of one setting: a row of the study for each.

    A row is named ``<method>-<setting>-<value>``, and is a method like any other.
    """

    setting: Literal[
        "budget", "rates",  # of the training: a training of its own
        "start_timestep", "guidance_scale", "restoration_guidance", "captions",  # of the sampling
    ]  # fmt: skip
    methods: Annotated[list[Name], Field(min_length=1)]  # the others are compared with the first
    values: Annotated[list[float | Name], Field(min_length=1)]

    @property
    def trains(self) -> bool:
        """Whether each value is a training of its own."""
        return self.setting in ("budget", "rates")

    @property
    def rows(self) -> dict[str, dict[str, float | str]]:
        """The rows that are added: value by row, by method."""
        return {
            method: {row_name(method, self.setting, value): value for value in self.values}
            for method in self.methods
        }


class Score(Section):
    protocols_file: Path
    protocols: Annotated[list[Name], Field(min_length=1)]
    metrics: Annotated[list[str], Field(min_length=1)]
    weights: Path  # folder of metric weights, see config/artifacts.yaml


class Report(Section):
    protocol: Name  # of the tables and figures
    main: Annotated[list[Name], Field(min_length=1)]  # rows of the main table
    ablation: Annotated[list[Name], Field(min_length=1)]  # first row is the reference
    reference: Name | None = None  # that each row of `main` is tested against; default: that one
    bootstrap: Positive  # resamples
    panel_images: Positive  # rows of the qualitative figure per test set


class Profile(Section):
    """A whole profile, as resolved: see ``config/mini.yaml`` for what each key does."""

    profile: Name
    seed: Natural
    seeds: Annotated[list[Natural], Field(min_length=1)]
    device: Literal["cpu", "cuda"]
    deterministic: bool = True
    shards: Annotated[int, Field(ge=1)] = 1  # changes where images are made, not what they are
    data: Data
    prior: Prior
    alignment: Alignment
    recipes: Annotated[dict[Name, Stage1], Field(min_length=1)]
    variants: dict[Name, Variant]
    training: Training
    baselines: dict[Name, AnyBaseline]
    restore: Restore
    captioner: Captioner = Captioner()  # older checkpoints do not know it
    score: Score
    report: Report
    curves: dict[Name, Curve] = {}  # further rows: methods at other values of one setting
    deviations: dict[str, str] = {}  # dotted path of a setting -> why it is not the paper's

    @property
    def datasets(self) -> dict[str, Dataset]:
        """Every data set by name: the test sets, `train` and `prior`."""
        return {**self.data.test, "train": self.data.train, "prior": self.prior.training.data}

    @property
    def trained(self) -> list[str]:
        """Names of the methods that must be trained before they restore."""
        baselines = [name for name, baseline in self.baselines.items() if baseline.trained]
        return [*baselines, *self.variants]

    @property
    def pretrained(self) -> list[str]:
        """Names of the recipes whose stage 1 is trained."""
        used = [v.recipe for v in self.variants.values() if v.pretrain and v.weights is None]
        return sorted(set(used))

    @property
    def learns(self) -> bool:
        """Whether anything is trained; a study of imported weights needs no training set."""
        baselines = any(baseline.trained for baseline in self.baselines.values())
        return baselines or any(variant.weights is None for variant in self.variants.values())

    @property
    def denoisers(self) -> list[str]:
        """Names of the methods that have a held-out denoising loss."""
        baselines = [name for name, baseline in self.baselines.items() if baseline.denoises]
        return [*baselines, *self.variants]

    @property
    def on_prior(self) -> list[str]:
        """Names of the methods that sample from the prior: denoisers, and their other samplers."""
        again = [name for name, baseline in self.baselines.items() if baseline.checkpoint_of]
        return [*self.denoisers, *again]

    def checkpoint_of(self, method: str) -> str:
        """The method whose checkpoint a method restores with: itself, but for another sampler."""
        baseline = self.baselines.get(method)
        return (baseline.checkpoint_of if baseline else None) or method

    def settings_of(self, baseline: str) -> dict[str, Any]:
        """Settings of a baseline, with those of the one whose checkpoint it takes."""
        own = self.baselines[baseline]
        shared = self.baselines.get(own.checkpoint_of or "")
        return {**(shared.settings if shared else {}), **own.settings}

    def captioner_of(self, method: str) -> str | None:
        """The method whose captions a method restores by, if they are another's."""
        settings = self.settings_of(method) if method in self.baselines else {}
        captions = (settings.get("sampling") or {}).get("captions")
        return Sampling(captions=captions).captioner

    def phase_updates(self, variant: str) -> list[int]:
        """Updates of each phase of stage 2: equal shares of what stage 1 leaves of the budget."""
        chosen, training = self.variants[variant], self.training
        total = round(chosen.budget * (training.stage1_steps + training.stage2_steps))
        rest = total - (training.stage1_steps if chosen.pretrain else 0)
        share, more = divmod(rest, len(chosen.phases))
        return [share + (number < more) for number in range(len(chosen.phases))]

    def updates_of(self, method: str) -> int | None:
        """All updates of a method's training, pre-stages included; None if nothing trains it."""
        method = self.checkpoint_of(method)
        if method in self.variants:
            variant = self.variants[method]
            first = self.training.stage1_steps if variant.pretrain else 0
            return None if variant.weights else first + sum(self.phase_updates(method))
        baseline = self.baselines[method]
        if not baseline.trained:
            return None
        stages = [v for key, v in baseline.settings.items() if key.endswith("_steps")]
        last = round(baseline.settings.get("budget", 1.0) * self.training.stage2_steps)
        return sum(stages) + (last if baseline.denoises else 0)

    @property
    def published(self) -> list[str]:
        """Names of the systems that their authors trained."""
        return [n for n, b in self.baselines.items() if isinstance(b, Baseline) and b.published]

    @property
    def methods(self) -> dict[str, AnyBaseline | Variant]:
        """Every method by name, in table order."""
        return {**self.baselines, **self.variants}

    @property
    def curve_rows(self) -> set[str]:
        """Names of the methods that stand on a curve beside the one that they repeat."""
        return {row for c in self.curves.values() for rows in c.rows.values() for row in rows}

    @property
    def reference(self) -> str:
        """The method that every row of the main table is tested against."""
        return self.report.reference or self.report.ablation[0]

    @property
    def tables(self) -> list[str]:
        """Names of the tables of the report."""
        curves = [f"curve-{name}" for name in self.curves]
        return ["main", *(["real"] if self.data.real else []), "ablation", *curves, "cost"]

    @model_validator(mode="before")
    @classmethod
    def _with_rows_of_curves(cls, data: Any) -> Any:
        return expanded(data)

    @model_validator(mode="after")
    def _names_exist(self) -> Profile:
        if both := set(self.baselines) & set(self.variants):
            raise ValueError(f"variants and baselines share the names {sorted(both)}")
        for name, variant in self.variants.items():
            _known(f"variants.{name}.recipe", variant.recipe, self.recipes)
            if not variant.weights and min(self.phase_updates(name)) < 1:
                raise ValueError(
                    f"variants.{name}.budget: leaves a phase of stage 2 without updates"
                )
        for name, curve in self.curves.items():
            for method in curve.methods:
                _known(f"curves.{name}.methods", method, self.trained)
        for name, baseline in self.baselines.items():
            if baseline.checkpoint_of is not None:
                _known(f"baselines.{name}.checkpoint_of", baseline.checkpoint_of, self.trained)
            if (captioner := self.captioner_of(name)) is not None:
                where = f"baselines.{name}.settings.sampling.captions"
                _known(where, captioner, ["none", "given", *self.denoisers])
        for table in ("main", "ablation"):
            for name in getattr(self.report, table):
                _known(f"report.{table}", name, self.methods)
        _known("report.reference", self.reference, self.methods)
        _known("report.protocol", self.report.protocol, self.score.protocols)
        return self


def _known(where: str, name: str, allowed: Any) -> None:
    if name not in allowed:
        raise ValueError(f"{where}: {name!r} is not one of {', '.join(allowed)}")


Model = TypeVar("Model", bound=BaseModel)


def load_profile(file: Path, *over: Layer) -> Profile:
    """Read a profile, and check it as a whole.

    Args:
        over: Settings that count before those of the file, the nearest first.

    Raises:
        ConfigError: The file is missing, is not YAML, does not fit the schema, or says something
            that cannot be meant; each line names the file that a value comes from.
    """
    layers = Layers.read(file)
    for layer in reversed(over):
        layers = layers.below(layer)
    profile = _check(layers.merged(), Profile, lambda path: str(layers.origin(path)))
    if found := [f"{layers.origin(path)}: {_dotted(path)}: {m}" for path, m in problems(profile)]:
        raise ConfigError("\n".join(found))
    return profile


def load_yaml(file: Path, model: type[Model]) -> Model:
    """Read a YAML file into a model; ``extends: other.yaml`` fills in what the file leaves out.

    Raises:
        ConfigError: Names the file, the path of the field, the value and what is allowed.
    """
    layers = Layers.read(file)
    return _check(layers.merged(), model, lambda path: str(layers.origin(path)))


def parse(data: Any, model: type[Model], where: str) -> Model:
    """Check plain data against a model; `where` opens each message (a file, or file and path)."""
    return _check(data, model, lambda _: where)


def _check(data: Any, model: type[Model], where: Callable[[Location], str]) -> Model:
    try:
        checked = model.model_validate(data)
    except ValidationError as error:
        schema = model.model_json_schema()
        lines = []
        for item in error.errors():
            path, message = _explain(item, schema)
            place = f"{_dotted(path)}: " if path else ""
            lines.append(f"{where(path)}: {place}{message}")
        raise ConfigError("\n".join(lines)) from None
    odd = [f"{where(p)}: {_dotted(p)}: {m}" for p, m in misread(data, checked.model_dump())]
    if odd:
        raise ConfigError("\n".join(odd))
    return checked


def _explain(item: Any, schema: Any) -> tuple[Location, str]:
    """Where an error lies, and what is wrong there in words."""
    path, allowed = _walk(schema, item["loc"])
    kind, context, found = item["type"], item.get("ctx", {}), reprlib.repr(item["input"])
    if path and item["input"] is None and kind != "missing":
        return path, "null removes what a file inherits, and there is no such key to remove"
    if kind == "list_type" and isinstance(item["input"], int | float):
        return path, f"must be a list, such as [{item['input']}], not {found}"
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(path[-1]), allowed, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return path, f"unknown key{hint} (allowed: {', '.join(allowed) or 'none'})"
    if kind == "literal_error":
        return path, f"{found} is not one of {context['expected'].replace(' or ', ', ')}"
    if kind == "union_tag_invalid":
        tag = context["discriminator"].strip("'")
        return (*path, tag), f"{context['tag']!r} is not one of {context['expected_tags']}"
    if kind in ("missing", "union_tag_not_found"):
        return (*path, *_tag(context)), "is missing"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return path, f"must be a group of keys, not {found}"
    message = re.sub(r"^\w+ should ", "must ", item["msg"]).removeprefix("Value error, ")
    message = message.partition(", unable to parse")[0]
    if kind == "value_error" or ", not " in message:
        return path, message
    return path, f"{message}, not {found}"


def _tag(context: dict[str, Any]) -> list[str]:
    return [context["discriminator"].strip("'")] if context else []


def _dotted(location: Location) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).lstrip(".")


def _walk(schema: Any, location: Location) -> tuple[Location, list[str]]:
    """Follow a location through the JSON schema.

    Returns:
        The location as a reader of the file knows it (pydantic adds the tag of a data set's
        `source`, and ``[key]`` for a key), and the keys allowed beside its last part.
    """
    path: list[str | int] = []
    node, allowed = _deref(schema, schema), list[str]()
    for part in location:
        if part == "[key]":
            break
        if "discriminator" in node:
            node = _deref(schema, {"$ref": node["discriminator"]["mapping"].get(part, "")})
            continue
        if {"$ref": f"#/$defs/{part}"} in node.get("oneOf", []):
            node = schema["$defs"][part]
            continue
        path.append(part)
        allowed = list(node.get("properties", {}))
        node = _deref(schema, _step(node, part))
    return tuple(path), allowed


def _step(node: Any, part: str | int) -> Any:
    if isinstance(part, int):
        return node.get("items", {})
    if part in node.get("properties", {}):
        return node["properties"][part]
    # dict[Name, X]: a key with a pattern gives patternProperties, dict[str, X] gives the other
    patterns = list(node.get("patternProperties", {}).values())
    return patterns[0] if patterns else node.get("additionalProperties", {})


def _deref(schema: Any, node: Any) -> Any:
    while isinstance(node, dict) and "$ref" in node:
        node = schema["$defs"].get(node["$ref"].rsplit("/", 1)[-1], {})
    if not isinstance(node, dict):
        return {}
    options = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
    return _deref(schema, options[0]) if options else node


def digest(*parts: Any) -> str:
    """Hash config sections (or any plain values): equal digests mean equal settings."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(section: BaseModel) -> dict[str, Any]:
    return section.model_dump(mode="json")
