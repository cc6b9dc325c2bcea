"""Sections of the data: training set, test sets and levels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from faithdiff.config.section import Name, Positive, Probability, Rate, Scale, Section


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
    # Share of scenes with fine texture, to train a prior. A set without them keeps the digest that
    # it had before there was a choice.
    textured: float = Field(default=0.0, ge=0, le=1, exclude_if=lambda share: share == 0)


class PhotoSet(_Set):
    """Crops of the photographs that ship inside scikit-image and scikit-learn."""

    source: Literal["photos"]
    count: Positive
    size: Positive


PhotographKind = Literal["photograph", "cutout"]
PhotographPart = Literal["training", "validation"]


class PackageSet(_Set):
    """Crops of photographs that lie in Debian packages, chosen by their detail."""

    source: Literal["packages"]
    files: Path = Path("config/prior_photographs.csv")  # packages, files, hashes, licences
    part: PhotographPart = "training"  # of the list
    size: Positive
    crops: Positive  # of a photograph, at most: as many as do not overlap and have detail
    composites: Positive = 4  # of a picture on transparent ground, each over another photograph
    # Source pixels per pixel. A photograph is sharp only from some reduction on.
    reduction: tuple[Rate, Rate] = (1.3, 8.0)
    # What the ten test photographs of `mini` have at 128 px: python -m faithdiff.data.detail
    detail: tuple[Rate, Rate] = (4.4, 18.6)
    # From their least (.708) on; above theirs (.847) is fine foliage, then noise and sharpening.
    sharpness: tuple[Rate, Rate] = (0.7, 1.1)
    soft: Probability = 0.05  # share of crops that may be out of focus

    @model_validator(mode="after")
    def _ordered(self) -> PackageSet:
        for name in ("reduction", "detail", "sharpness"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name}: {least:g} is larger than {most:g}")
        if self.reduction[0] < 1:
            raise ValueError("reduction: below 1 crops would be enlarged, and no longer sharp")
        return self


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


class Expected(Section):
    """A set as it was published, for `faithdiff plan` before it is here; nothing is held to it."""

    images: Positive
    # Height and width in pixels of the usual image: they count the crops of a grid.
    size: tuple[Positive, Positive] | None = None


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
    # What `llava` describes: the image, once for all its crops, or each crop.
    described: Literal["image", "crop"] = "image"
    quality: Quality | None = None
    limit: Positive | None = None  # images, the first by name
    resize: tuple[Positive, Positive] | None = None  # shorter side in pixels, drawn between these
    crops: Crops | None = None
    licence: str = "unknown"
    expected: Expected | None = None

    @model_validator(mode="after")
    def _consistent(self) -> FolderSet:
        if self.lq_only and (self.crops or self.resize):
            raise ValueError("lq_only: LQ images are taken as they are; remove crops and resize")
        if self.expected and self.crops and self.crops.stride and not self.expected.size:
            raise ValueError("expected: crops of a grid are counted by `size`, which is missing")
        if self.resize and self.resize[0] > self.resize[1]:
            raise ValueError(f"resize: {self.resize[0]} is larger than {self.resize[1]}")
        return self

    @property
    def asks(self) -> bool:
        """Whether its captions are written by a model."""
        return self.captions == "llava"


Part = Annotated[SceneSet | PackageSet | FolderSet, Field(discriminator="source")]


class MixtureSet(_Set):
    """Several sets as one; names are ``<part>-<name>``."""

    source: Literal["mixture"]
    parts: Annotated[dict[Name, Part], Field(min_length=1)]

    @property
    def asks(self) -> bool:
        """Whether any caption of the set is written by a model."""
        return any(part.asks for part in self.parts.values())


Dataset = Annotated[
    SceneSet | PhotoSet | PackageSet | FolderSet | MixtureSet, Field(discriminator="source")
]


def parts_of(dataset: Dataset) -> dict[str, SceneSet | PhotoSet | PackageSet | FolderSet]:
    """The parts of a mixture by name; any other set is its only part, without a name."""
    return dict(dataset.parts) if isinstance(dataset, MixtureSet) else {"": dataset}


MIN_SIDE = 32  # px of HQ; below it the strongest first resize leaves nothing to degrade
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
        for name, part in parts_of(self.train).items():
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
        """HQ side / LQ side of a dataset."""
        found = self.test.get(dataset)
        own = found.scale if isinstance(found, FolderSet) else None
        return own or self.scale

    def multiple_of(self, dataset: str) -> int:
        """Of what the sides of a set's images are multiples: the scale, if they are degraded."""
        degraded = dataset == "train" or dataset in self.with_hq
        return self.scale_of(dataset) if degraded else 1
