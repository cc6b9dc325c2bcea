"""What a method is: anything that turns LQ images into restored ones.

A FaithDiff variant and a baseline meet the rest of the suite through the same two classes, and so
does a method of the user's own. ``faithdiff/registry.py`` finds them by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faithdiff.config import Profile, load_profile
from faithdiff.data.artifacts import check_shipped
from faithdiff.layout import Layout

if TYPE_CHECKING:
    from torch import Tensor

    from faithdiff.models.text import Prompt
    from faithdiff.train.spent import Cost


@dataclass(frozen=True)
class Study:
    """A profile, the file it was read from, and where its files lie."""

    profile: Profile
    file: Path
    layout: Layout

    @classmethod
    def load(cls, file: Path) -> Study:
        profile = load_profile(file)
        return cls(profile, file, Layout(profile.profile))

    @property
    def prior_folder(self) -> Path:
        """The prior that the study starts from: trained by its own rule, or shipped.

        Raises:
            CheckpointError: The shipped prior is not the one of ``config/artifacts.yaml``.
        """
        if self.profile.prior.source == "train":
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


@dataclass(frozen=True)
class Denoiser:
    """A trained model on the study's prior, as the held-out denoising loss asks it.

    Attributes:
        see: What the model takes from enlarged LQ images ``(B, 3, H, W)`` in [-1, 1].
        predict: Noise or velocity ``(B, C, h, w)`` from noisy latents, timesteps ``(B,)``, what
            `see` gave, prompt and time ids.
        captions: The captions by which the model denoises, from what `see` gave and those known.
    """

    see: Callable[[Tensor], Any]
    predict: Callable[[Tensor, Tensor, Any, Prompt, Tensor], Tensor]
    captions: Callable[[Any, list[str]], list[str]] = lambda _, known: known


class Method(ABC):
    """A method before its weights: how it is trained and loaded."""

    #: Whether :meth:`train` must run before :meth:`load`.
    trained: bool = False

    #: Whether it denoises latents of the study's prior, so that :meth:`denoiser` gives a model.
    denoises: bool = False

    def train(self, study: Study, seed: int, folder: Path, state: Path) -> Cost:
        """Train one repetition and write its weights and ``training.csv`` into `folder`.

        Args:
            state: Folder for resumable states; removed by the caller after success.
        """
        raise NotImplementedError(f"{type(self).__name__} is not trained")

    @abstractmethod
    def load(self, study: Study, folder: Path) -> Restorer:
        """Load the weights that :meth:`train` wrote into `folder`."""

    def denoiser(self, study: Study, folder: Path) -> Denoiser:
        """Load the same weights for the held-out denoising loss."""
        raise NotImplementedError(f"{type(self).__name__} does not denoise latents of the prior")

    @abstractmethod
    def settings(self, study: Study) -> dict[str, Any]:
        """Everything besides the weights that decides an output, as plain values."""
