"""Metrics by pyiqa's and basicsr's own code, with weights that are here, never from the network.

pyiqa downloads what it does not find, checks no hash, and dies with a bare ``URLError`` when it
cannot. Here a metric whose weights are missing or corrupted is `unavailable`, with the command that
mends it; while pyiqa loads, its cache folders are ours and name look-ups are refused. Weights
inside an installed package are handed to pyiqa by their path.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import NoReturn

# Both are read by libraries: the hub client at its import, torch at each load (pyiqa asks for
# unrestricted pickles, and its files come from a hub).
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")

from faithdiff import compat

compat.patch()

import pyiqa
import torch
from pyiqa.default_model_configs import DEFAULT_CONFIGS
from pyiqa.utils import download_util

from faithdiff.config import digest
from faithdiff.data.artifacts import Artifact, check, lacking, select
from faithdiff.errors import ConfigError
from faithdiff.score.protocols import MetricDefinition

# The metrics that each library computes. basicsr takes seconds to import, so it is not asked.
_NETWORKS = {"pyiqa": frozenset(DEFAULT_CONFIGS), "basicsr": frozenset({"calculate_niqe"})}

# (restored, reference), both (1, 3, H, W) in [0, 1] -> the value
Measure = Callable[[torch.Tensor, torch.Tensor | None], float]


@dataclass(frozen=True)
class Metric:
    """A definition together with the weights that are here.

    Attributes:
        name: The metric's name in the profile.
        definition: How it is computed.
        digest: Of the computation, the weights' hashes and the library's version: equal digests
            give equal values on equal images.
        unavailable: Why it cannot be computed here, or None.
        files: Constructor arguments that are paths of weights.
    """

    name: str
    definition: MetricDefinition
    digest: str
    unavailable: str | None
    files: Mapping[str, Path]


def prepare_all(
    definitions: Mapping[tuple[str, str], MetricDefinition],
    weights: Path,
    artifacts: Mapping[str, Artifact],
) -> dict[tuple[str, str], Metric]:
    """Look which metrics can be computed, without loading them; hashes each weight file once.

    Args:
        definitions: ``(protocol, metric) -> definition``.
        weights: The folder of metric weights.
        artifacts: The known external files, by name.

    Raises:
        ConfigError: A definition names a network or an artifact that does not exist.
    """
    names = {name for definition in definitions.values() for name in definition.artifacts}
    found = {
        artifact.name: (artifact, *check(artifact, weights))
        for artifact in select(dict(artifacts), names)
    }
    return {
        (protocol, name): _prepare(name, definition, found, weights)
        for (protocol, name), definition in definitions.items()
    }


# An artifact with its state and its sha256.
_Checked = tuple[Artifact, str, str]


def _prepare(
    name: str, definition: MetricDefinition, found: Mapping[str, _Checked], weights: Path
) -> Metric:
    # The version is part of the digest: libraries have changed values between releases, and a kept
    # value of an older one would be mixed in unseen.
    library = version(definition.library)
    if definition.network not in _NETWORKS[definition.library]:
        raise ConfigError(
            f"{name}: {definition.library} {library} has no metric {definition.network!r}"
        )
    checked = [found[key] for key in definition.artifacts]
    hashes = {artifact.name: [state, sha256] for artifact, state, sha256 in checked}
    key = digest(definition.computation(), hashes, library)
    states = [(artifact, state) for artifact, state, _ in checked]
    problem = lacking(states, f"faithdiff fetch --weights {name}")
    files = {argument: found[key][0].file(weights) for argument, key in definition.files.items()}
    return Metric(name, definition, key, problem or None, files)


def load(metric: Metric, weights: Path, device: str) -> Measure:
    """Build an available metric through its library.

    The returned function crops the border, and takes ``(1, 3, H, W)`` tensors in ``[0, 1]``.

    Raises:
        Exception: Whatever the library raises on weights that do not fit its network.
    """
    definition = metric.definition
    build = _from_pyiqa if definition.library == "pyiqa" else _from_basicsr
    network = build(metric, weights, torch.device(device))

    def measure(restored: torch.Tensor, reference: torch.Tensor | None) -> float:
        # Cropped here and not by the library: papers differ in whether the border counts (its
        # pixels have the least context), libraries differ in which metrics can cut it, and all
        # metrics of a protocol must see the same pixels.
        images = [_crop(restored, definition.crop_border)]
        if definition.needs_reference and reference is not None:
            images.append(_crop(reference, definition.crop_border))
        return network(*images)

    return measure


def _from_pyiqa(metric: Metric, weights: Path, device: torch.device) -> Callable[..., float]:
    options = metric.definition.options | {name: str(file) for name, file in metric.files.items()}
    # Networks are initialised at random before their weights are read over that.
    with _weights_from(weights), torch.random.fork_rng(devices=[]):
        network = pyiqa.create_metric(metric.definition.network, device=device, **options)
    return lambda *images: float(network(*(image.to(device) for image in images)).item())


def _from_basicsr(metric: Metric, weights: Path, device: torch.device) -> Callable[..., float]:
    """NIQE: its statistics ship with basicsr, and it computes on the CPU alone."""
    from basicsr.metrics import calculate_niqe

    def niqe(image: torch.Tensor) -> float:
        # basicsr expects BGR in [0, 255], as OpenCV reads it, and takes the Y of YCbCr from that:
        # NIQE's statistics were fitted on luma, and RGB order would weigh red as blue.
        pixels = (image[0] * 255).round().permute(1, 2, 0).flip(-1)  # (H, W, 3), BGR in [0, 255]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a block without any contrast divides by zero
            return float(calculate_niqe(pixels.cpu().numpy(), 0, **metric.definition.options))

    return niqe


def _crop(image: torch.Tensor, border: int) -> torch.Tensor:
    return image[..., border : image.shape[-2] - border, border : image.shape[-1] - border]


@contextlib.contextmanager
def _weights_from(root: Path) -> Iterator[None]:
    """Make `root` the cache folder of pyiqa, torchvision and CLIP, and refuse the network."""
    hub = torch.hub.get_dir()
    torch.hub.set_dir(str(root / "hub"))
    try:
        with (
            _replaced(download_util, "DEFAULT_CACHE_DIR", str(root / "hub" / "pyiqa")),
            _replaced(socket, "getaddrinfo", _refuse),
            contextlib.redirect_stdout(io.StringIO()),  # pyiqa prints each file it loads
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # deprecations between pyiqa, torch and torchvision
            yield
    finally:
        torch.hub.set_dir(hub)


@contextlib.contextmanager
def _replaced(owner: ModuleType, attribute: str, value: object) -> Iterator[None]:
    kept = getattr(owner, attribute)
    setattr(owner, attribute, value)
    try:
        yield
    finally:
        setattr(owner, attribute, kept)


def _refuse(*_: object, **__: object) -> NoReturn:
    raise OSError("scoring uses no network; an artifact is missing from config/protocols.yaml")
