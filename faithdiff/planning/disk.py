"""Sizes of downloads and of the encoded training set, for `faithdiff plan` and docs/data.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from faithdiff.config import Dataset, FolderSet, MixtureSet, PackageSet, Profile, parts_of
from faithdiff.data.artifacts import Artifact, gigabytes
from faithdiff.data.folders import crops_in, sources
from faithdiff.data.photographs import crops_of, photographs_of
from faithdiff.models.prior import Prior
from faithdiff.score.protocols import files_needed
from faithdiff.train.cost import meta_prior
from faithdiff.train.encode import text_bytes

GB = 1e9


@dataclass(frozen=True)
class Images:
    """How many images a set has.

    Attributes:
        files: Before they are cut.
        crops: After; an image that is not cut counts once.
        expected: Whether this is what `expected` of the profile says, as the set is not here yet.
    """

    files: int
    crops: int
    expected: bool = False


@dataclass(frozen=True)
class Download:
    """What is listed for a profile in config/artifacts.yaml.

    Attributes:
        fetched: Files from an address.
        gigabytes: All of them, as far as their sizes are listed.
        unlisted: Files of unknown size, which a person fetches.
    """

    fetched: list[Artifact]
    gigabytes: float
    unlisted: list[str]


def download(profile: Profile) -> Download:
    """What ``faithdiff fetch`` brings for a profile where nothing is here yet."""
    fetched = [a for a in files_needed(profile) if a.package is None]
    unlisted = [artifact.name for artifact in fetched if artifact.size_mb is None]
    return Download(fetched, gigabytes(fetched), unlisted)


def images_in(dataset: Dataset) -> Images | None:
    """Images of a set; None for a folder that is not here and has no `expected`."""
    if isinstance(dataset, MixtureSet):
        parts = [images_in(part) for part in dataset.parts.values()]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return Images(
            sum(part.files for part in known),
            sum(part.crops for part in known),
            any(part.expected for part in known),
        )
    if isinstance(dataset, PackageSet):
        most = [crops_of(photo, dataset) for photo in photographs_of(dataset)]
        return Images(len(most), sum(most), expected=True)  # at most: detail decides
    if not isinstance(dataset, FolderSet):
        return Images(dataset.count, dataset.count)
    if dataset.path.is_dir():
        files = [source.file for source in sources(dataset)]
        if dataset.crops is None or dataset.crops.count is not None:
            return Images(len(files), len(files) * _drawn(dataset))
        # The heads of the files say their sizes.
        return Images(len(files), sum(_grid(dataset, _shape(file)) for file in files))
    if dataset.expected is None:
        return None
    count = min(dataset.expected.images, dataset.limit or dataset.expected.images)
    each = _drawn(dataset)
    if dataset.crops is not None and dataset.expected.size is not None:
        each = _grid(dataset, dataset.expected.size)
    return Images(count, count * each, expected=True)


def encoded_image(profile: Profile, prior: Prior) -> float:
    """Bytes of one image in the encoded training set: pixels, latents and text.

    Args:
        prior: Whose shapes count; its weights are not read.
    """
    height, width = image_shape(profile.data.train, profile.training.crop)
    pixels = 3 * height * width * (1 + 1 / profile.data.scale**2)
    latents = 2 * prior.vae.config.latent_channels * (height * width) / prior.factor**2
    versions = 2 if profile.training.flip else 1  # the latents of the mirrored image, too
    unet = prior.unet.config
    pooled = unet.projection_class_embeddings_input_dim - 6 * unet.addition_time_embed_dim
    text = profile.prior.text_encoder.length * unet.cross_attention_dim + pooled
    return pixels + versions * 4 * latents + text_bytes(profile.training.precision) * text


def image_shape(dataset: Dataset, least: int) -> tuple[int, int]:
    """Height and width of the images of a training set, which have one size; `least` if unknown."""
    for part in parts_of(dataset).values():
        if not isinstance(part, FolderSet):
            return part.size, part.size
        if part.crops is not None:
            return part.crops.size, part.crops.size
        if part.path.is_dir():
            return _shape(sources(part)[0].file)
    return least, least


def sizes(profiles: Iterable[Profile]) -> Iterator[str]:
    """The table of docs/data.md: downloads, and encoded training sets where there are any."""
    yield "| profile | listed in config/artifacts.yaml | of unknown size | encoded training set |"
    yield "|---|--:|--:|--:|"
    for profile in profiles:
        found = download(profile)
        yield (
            f"| `{profile.profile}` | {found.gigabytes:.1f} GB | {len(found.unlisted)} files "
            f"| {encoded_set(profile, meta_prior(profile)) if profile.learns else 'none'} |"
        )


def encoded_set(profile: Profile, prior: Prior) -> str:
    """Size of the encoded training set in words, and what it is the size of."""
    each, found = encoded_image(profile, prior), images_in(profile.data.train)
    if found is None:
        return f"{1000 * each / GB:.3g} GB per 1,000 images"
    of = f"{found.crops:,} images of {found.files:,} files" if found.crops != found.files else ""
    said = ", mirrored ones included" if profile.training.flip else ""
    expected = ", as expected" if found.expected else ""
    about = of or f"{found.files:,} images"
    return f"{found.crops * each / GB:.3g} GB: {about}{said}{expected}"


def _drawn(config: FolderSet) -> int:
    """Crops of one image at drawn places, at most: an image may be too small."""
    return config.crops.count if config.crops and config.crops.count else 1


def _grid(config: FolderSet, shape: tuple[int, int]) -> int:
    """Crops of one image of this height and width."""
    assert config.crops is not None
    if config.resize is not None:
        low = config.resize[0]  # of the sides that are drawn, the one with the fewest crops
        factor = low / min(shape)
        shape = (max(round(shape[0] * factor), low), max(round(shape[1] * factor), low))
    return crops_in(config.crops, shape)


def _shape(file: Path) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.height, picture.width
