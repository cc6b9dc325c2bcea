"""What a method is: anything that turns LQ images into restored ones.

A FaithDiff variant and a baseline meet the rest of the suite through the same two classes, and so
does a method of the user's own. ``faithdiff/methods/registry.py`` finds them by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from faithdiff.config import Profile, Unit, load_profile
from faithdiff.config.yaml_file import check_own_name
from faithdiff.data.artifacts import Artifact, check_shipped
from faithdiff.errors import UserError
from faithdiff.methods.absent import Absent
from faithdiff.study.checkpoints import check_checkpoint
from faithdiff.study.layout import Layout
from faithdiff.study.plain import Json

if TYPE_CHECKING:
    import numpy as np
    import torch
    from diffusers import UNet2DConditionModel
    from numpy.typing import NDArray
    from torch import Tensor

    from faithdiff.models.prior import Prior
    from faithdiff.models.seen import Seen
    from faithdiff.models.text import Prompt
    from faithdiff.study.records import Cost


@dataclass(frozen=True)
class Study:
    """A profile, the file it was read from, and where its files lie."""

    profile: Profile
    file: Path
    layout: Layout

    @classmethod
    def load(cls, file: Path) -> Study:
        """Read a study's profile, without what its run goes on without.

        Raises:
            ConfigError: The profile does not fit, or has the name of another one.
        """
        whole = cls.whole(file)
        return whole.without(Absent.read(whole.layout.results))

    @classmethod
    def whole(cls, file: Path) -> Study:
        """Read a study's profile as it is, whatever is missing.

        Raises:
            ConfigError: As for :meth:`load`.
        """
        profile = load_profile(file)
        check_own_name(file, profile.profile)
        return cls(profile, file, Layout(profile.profile))

    def without(self, absent: Absent) -> Study:
        """The study without some test sets and baselines."""
        return replace(self, profile=absent.taken_from(self.profile)) if absent else self

    @property
    def prior_folder(self) -> Path:
        """The prior that the study starts from: trained by its own rule, or shipped.

        Raises:
            CheckpointError: The shipped prior is not the one of ``config/artifacts.yaml``.
            CorruptedError: The trained prior is not what its training wrote.
        """
        if self.profile.prior.source == "train":
            check_checkpoint(self.layout.trained_prior)
            return self.layout.trained_prior
        check_shipped(self.profile.prior.path)
        return self.profile.prior.path

    def at_scale(self, scale: int) -> Study:
        """The study with another `data.scale`, for a test set that has its own."""
        data = self.profile.data.model_copy(update={"scale": scale})
        return replace(self, profile=self.profile.model_copy(update={"data": data}))


class Restorer(ABC):
    """A method with its weights loaded, ready to restore."""

    #: Images given to one call of :meth:`restore` at most; equal sizes only.
    batch_size: int = 1

    #: Called with (done, total) network passes of one call, where a method takes several.
    progress: Callable[[int, int], None] | None = None

    @abstractmethod
    def restore(self, lq: Tensor, captions: list[str], seeds: list[int]) -> Tensor:
        """Restore a batch; the result for one image must not depend on the others.

        Args:
            lq: ``(B, 3, h, w)`` float32 in [0, 1].
            captions: One per image, possibly empty.
            seeds: One per image: the source of all its noise.

        Returns:
            ``(B, 3, scale * h, scale * w)`` float32 in [0, 1].
        """

    def save_memory(self) -> str | None:
        """Need less memory for one image from now on, at the same result.

        Returns:
            What it does now, for the log; None if there is nothing left to do.
        """
        return None

    def offload(self, device: torch.device) -> None:
        """Keep the networks in the CPU's memory, and each on the device only while it computes.

        Called only where :attr:`Method.offloads`.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps its networks on one device")


#: Pulls clean latents ``(B, C, h, w)`` towards a restored image, by a strength and a ratio: noise
#: level of the step / noise level of the first step.
Guide = Callable[["Tensor", float, float], "Tensor"]


def _restores_nothing(seen: Seen) -> Tensor:
    raise NotImplementedError("this design makes no restored image before it samples")


def _guides_nowhere(seen: Seen) -> Guide:
    raise NotImplementedError("this design has no restoration guidance")


@dataclass(frozen=True)
class Denoiser:
    """A trained model on the study's prior, as the sampler and the held-out loss ask it.

    Attributes:
        see: What the model takes from enlarged LQ images ``(B, 3, H, W)`` in [-1, 1].
        predict: Noise or velocity ``(B, C, h, w)`` from noisy latents, timesteps ``(B,)``, what
            `see` gave, prompt and time ids.
        captions: The captions by which the model denoises, from what `see` gave and those known.
        restored: The image ``(B, 3, H, W)`` in [-1, 1] that pre-stages made of the LQ image.
        guidance: What restoration guidance does for the images that were seen.
        unet: The UNet that predicts, for what needs the prior, too: at the size of SDXL a card of
            24 GB does not hold another one beside it. None: the prior's own may be loaded.
        sees_pairs_once: Whether `predict` takes what was seen for one half of a guidance pair
            alone, where the two halves of its noisy latents are equal.
    """

    see: Callable[[Tensor], Seen]
    predict: Callable[[Tensor, Tensor, Seen, Prompt, Tensor], Tensor]
    captions: Callable[[Seen, list[str]], list[str]] = lambda _, known: known
    restored: Callable[[Seen], Tensor] = _restores_nothing
    guidance: Callable[[Seen], Guide] = _guides_nowhere
    unet: UNet2DConditionModel | None = None
    sees_pairs_once: bool = False


@dataclass(frozen=True)
class Item:
    """One image to restore, and the key of its result."""

    name: str
    lq: Path
    lq_sha256: str
    caption: str
    seed: int
    key: str


@dataclass(frozen=True)
class Place:
    """A test set at a level and repetition, with a folder to work in."""

    dataset: str
    level: str
    seed: int  # repetition
    work: Path


Keep = Callable[[Item, "NDArray[np.uint8]"], None]


@dataclass(frozen=True)
class SetToRestore:
    """A test set at one level, as :meth:`Method.restore_set` is asked for it.

    Attributes:
        study: At the scale of the test set.
        place: What is restored.
        items: All images of the test set.
        missing: Those without a result in the cache.
        keep: To be called with each result, ``(H, W, 3)`` uint8, as soon as it is there: what was
            kept survives a kill.
        in_process: Restores `missing` with what :meth:`Method.load` gives.
    """

    study: Study
    place: Place
    items: list[Item]
    missing: list[Item]
    keep: Keep
    in_process: Callable[[], dict[str, str]]


class Method(ABC):
    """A method before its weights: how it is trained, and how it restores.

    It restores in one of two ways. :meth:`load` gives a :class:`Restorer`, which the suite asks
    batch by batch; or :meth:`restore_set` is overridden, and restores a test set in its own way.
    Whatever else callers must know of a method they ask of the attributes, never of its class.
    """

    #: Whether :meth:`train` must run before :meth:`load`.
    trained: bool = False

    #: Whether it denoises latents of the study's prior, so that :meth:`denoiser` gives a model.
    denoises: bool = False

    #: Whether it takes a test set at a time: there is no :meth:`load`, and no job takes a shard.
    whole_sets: bool = False

    #: Which images decide a result: its own alone, though a call may take several (`folder`), or
    #: all of its test set (`set`).
    per: Unit = "image"

    #: Whether `faithdiff baseline prepare` must run before it restores.
    prepared: bool = False

    #: Whether it refuses to restore while something of :meth:`needs` is missing. Otherwise its
    #: images fail with that as their reason, and the study goes on.
    stops_without_needs: bool = False

    #: Whether its results are files that were made elsewhere: it can restore no other images.
    given: bool = False

    #: Whether what :meth:`load` gives can :meth:`Restorer.offload`; known before weights are read.
    offloads: bool = False

    #: Minutes that one call of it may take, where it is called outside of this process; None: any.
    minutes: float | None = None

    def train(self, study: Study, seed: int, folder: Path, state: Path) -> Cost:
        """Train one repetition and write its weights and ``training.csv`` into `folder`.

        Args:
            state: Folder for resumable states; removed by the caller after success.
        """
        raise NotImplementedError(f"{type(self).__name__} is not trained")

    def load(self, study: Study, folder: Path) -> Restorer:
        """Load the weights that :meth:`train` wrote into `folder`, if it is trained.

        Raises:
            UserError: It takes whole sets only.
        """
        raise UserError(
            f"{type(self).__name__} restores whole test sets (faithdiff restore-sets), not single "
            "images"
        )

    def keyed(self, place: Place, items: list[Item]) -> list[Item]:
        """Give the items keys over all that decides their results besides :meth:`settings`."""
        return items

    def restore_set(self, wanted: SetToRestore) -> dict[str, str]:
        """Restore the images of a test set that are missing; called when there are some.

        By default in this process, with what :meth:`load` gives. Override it for code that runs
        elsewhere, or takes a whole folder.

        Returns:
            Why images of `missing` have no result, by name; all others were kept.

        Raises:
            FaithDiffError: Nothing can come of it: what is wrong, and the way out.
        """
        return wanted.in_process()

    def denoiser(self, study: Study, folder: Path) -> Denoiser:
        """Load the same weights for the held-out denoising loss."""
        raise NotImplementedError(f"{type(self).__name__} does not denoise latents of the prior")

    def untrained(self, study: Study, prior: Prior) -> Denoiser | None:
        """Build the model on a prior as its last stage finds it; None if there is none to count.

        Only what that stage trains asks for gradients. The prior may be without memory (PyTorch's
        meta device): operations are counted that way.
        """
        return None

    @abstractmethod
    def settings(self, study: Study) -> dict[str, Json]:
        """Everything besides the weights that decides an output, as plain values."""

    def check(self, study: Study) -> None:  # noqa: B027 - most methods go with every profile
        """Refuse, before the first job, a profile with which this method cannot work.

        Raises:
            ConfigError: Names the field and the way out.
        """

    def needs(self, study: Study) -> list[str]:
        """What is missing before a run, each with the way to get it; empty when it can start."""
        return []

    def unprepared(self, study: Study) -> list[str]:
        """Those of its needs that `faithdiff baseline prepare` meets, as the workflow does."""
        return []

    def prepare(self, study: Study) -> dict[str, Json]:
        """Get what a run needs beside weights: code, environment; returns what was found."""
        return {}

    def artifacts(self) -> list[Artifact]:
        """The files from outside that it reads, for `faithdiff fetch --baseline`."""
        return []

    def state(self, study: Study) -> Json:
        """What a workflow compares to decide whether to restore again; cheap, and reads little."""
        return self.settings(study)

    def record(self) -> dict[str, Json]:
        """What the manifest says of a run besides: parameters, versions, memory, exit codes."""
        return {}
