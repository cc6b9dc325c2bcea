"""Captions of whole datasets: what is asked of the captioner, and where its answers are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from faithdiff.config import Profile
from faithdiff.data.captions import AnswerCache, Ask, ask_all
from faithdiff.data.datasets import Captioner, read_index
from faithdiff.data.images import sha256_file
from faithdiff.study.layout import Layout
from faithdiff.study.progress import ProgressBar


def captioner(profile: Profile, layout: Layout, clean: bool = False) -> Captioner:
    """What turns images into captions; the model is loaded when the first unknown one comes.

    Args:
        profile: Its section `captioner`, its device and its seed.
        layout: Where answers are kept.
        clean: Whether BSRNet (`captioner.clean`) comes before: for LQ images.
    """
    config = profile.captioner

    def load() -> Ask:
        from faithdiff.models.captioner import Llava
        from faithdiff.models.captioner_processes import SeveralLlavas

        one = (config, profile.device, profile.seed, clean)
        return Llava(*one) if config.processes == 1 else SeveralLlavas(*one)

    def write(files: Mapping[str, Path], hashes: Mapping[str, str]) -> dict[str, str]:
        from faithdiff.models.captioner import answer_digest

        settings = answer_digest(config, profile.seed, clean)
        cache = AnswerCache(layout.answers)
        at_once = config.batch_size * config.processes
        return ask_all(
            *(files, hashes, settings, cache, load, at_once),
            show=lambda names: ProgressBar(names, "caption", unit="image"),
        )

    return write


def caption_level(profile: Profile, layout: Layout, dataset: str, level: str) -> dict[str, str]:
    """Captions of the LQ images of a test set at one level, by name."""
    folder = layout.lq(dataset, level)
    names = read_index(layout.dataset(dataset))["name"]
    files = {name: folder / f"{name}.png" for name in names}
    hashes = {name: sha256_file(file) for name, file in files.items()}
    return captioner(profile, layout, clean=True)(files, hashes)
