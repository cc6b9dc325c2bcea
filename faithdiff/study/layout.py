"""Where everything of a profile lies on disk: the one place that builds these paths.

Paths are relative to the directory of the run, so that Snakemake, DVC and the manifests name the
same files on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

OFFICIAL = Path("official")  # checkouts and environments of methods that run outside, shared


@dataclass(frozen=True)
class Layout:
    """The folders of one profile."""

    profile: str

    @property
    def results(self) -> Path:
        """Tables, figures, scores and manifest: small, in git."""
        return Path("results", self.profile)

    def dataset(self, dataset: str) -> Path:
        """``hq/``, ``lq/<level>/`` and ``index.csv`` of a dataset; `train` is one of them."""
        return Path("data", self.profile, dataset)

    def lq(self, dataset: str, level: str) -> Path:
        """LQ images of one level, with ``degradation.jsonl``."""
        return self.dataset(dataset) / "lq" / level

    def captions(self, dataset: str, level: str) -> Path:
        """Captions of the LQ images of one level, where a model writes them."""
        return self.lq(dataset, level) / "captions.csv"

    @property
    def answers(self) -> Path:
        """What the captioner has answered so far."""
        return Path("data", self.profile, "answers.csv")

    @property
    def train_cache(self) -> Path:
        """HQ latents, LQ pixels and text embeddings of the training set."""
        return self.dataset("train") / "cache.safetensors"

    @property
    def checkpoints(self) -> Path:
        return Path("checkpoints", self.profile)

    @property
    def trained_prior(self) -> Path:
        return self.checkpoints / "prior"

    def stage1(self, recipe: str, seed: int) -> Path:
        return self.checkpoints / f"stage1-{recipe}" / f"seed{seed}"

    def checkpoint(self, method: str, seed: int) -> Path:
        return self.checkpoints / method / f"seed{seed}"

    def work(self, job: str) -> Path:
        """Where a running training job keeps its resumable state, outside declared outputs."""
        return self.checkpoints / ".work" / job

    @property
    def cache(self) -> Path:
        """Finished restorations by key: what makes a killed job resume at the image."""
        # `.store` on disk: under another name, what a study has restored would be made again.
        return Path("restored", self.profile, ".store")

    def shard(self, job: str, method: str, seed: int, number: int, of: int) -> Path:
        """Record of one shard of a method's images, written last; `job` is restore or score."""
        name = f"{job}-{number}-of-{of}.json"
        return Path("restored", self.profile, ".work", f"{method}-seed{seed}", name)

    def lock(self, job: str, method: str, seed: int) -> Path:
        """Held by the process that restores or scores all images of a method."""
        return Path("restored", self.profile, ".work", f"{job}-{method}-seed{seed}.lock")

    def cached(self, key: str) -> Path:
        """The finished restoration of a key."""
        return self.cache / key[:2] / f"{key}.png"

    def outside(self, method: str, seed: int, dataset: str, level: str) -> Path:
        """Where a method outside of this process works: its LQ folder, its outputs, its log."""
        return Path("restored", self.profile, ".work", f"{method}-seed{seed}", dataset, level)

    def prepared(self, method: str) -> Path:
        """Says that the code and the environment of a method are there, and which they are."""
        return OFFICIAL / "prepared" / self.profile / f"{method}.json"

    def restored(self, method: str, seed: int) -> Path:
        return Path("restored", self.profile, method, f"seed{seed}")

    def restoration(self, method: str, seed: int, dataset: str, level: str) -> Path:
        """PNGs of one method on one test set and level; ``manifest.json`` is written last."""
        return self.restored(method, seed) / dataset / level
