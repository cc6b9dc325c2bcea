"""Degradation beside basicsr's own, and metrics beside pyiqa per image and torchmetrics."""

from __future__ import annotations

import importlib
import importlib.util
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray

from faithdiff.data.artifacts import ARTIFACTS_FILE, load_artifacts
from faithdiff.data.images import read_image, write_png
from faithdiff.data.scenes.render import render_scene
from faithdiff.degrade.levels import load_levels
from faithdiff.degrade.pipeline import apply, draw
from faithdiff.methods.method import Study
from faithdiff.planning.peers.record import PEERS, SideBySide, in_turns
from faithdiff.score.metrics import prepare_all
from faithdiff.score.protocols import definitions_of
from faithdiff.score.scorer import Pair, Scorer
from faithdiff.study import seeds

SIDE = 400  # of an HQ image: basicsr's data set crops to it, whatever the config says
SCALE = 4
SCORED = 128  # px, as in `mini`
FAMILIES = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
SHARES = [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]
# Why torchmetrics is faster; ours stays, as the published evaluation is by pyiqa.
FASTER = {
    "psnr": "a mean of squares and no more; ours also hashes both files to keep the value",
    "ssim": "float32, where pyiqa filters in float64; it also counts the padded border, hence "
    "other values",
}
# Real-ESRGAN's published settings (options/train_realesrgan_x4plus.yml), as basicsr reads them.
PUBLISHED: dict[str, object] = {
    "scale": SCALE, "gt_size": SIDE, "io_backend": {"type": "disk"},
    "use_hflip": False, "use_rot": False,
    "blur_kernel_size": 21, "kernel_list": FAMILIES, "kernel_prob": SHARES, "sinc_prob": 0.1,
    "blur_sigma": [0.2, 3], "betag_range": [0.5, 4], "betap_range": [1, 2],
    "blur_kernel_size2": 21, "kernel_list2": FAMILIES, "kernel_prob2": SHARES, "sinc_prob2": 0.1,
    "blur_sigma2": [0.2, 1.5], "betag_range2": [0.5, 4], "betap_range2": [1, 2],
    "final_sinc_prob": 0.8, "second_blur_prob": 0.8,
    "resize_prob": [0.2, 0.7, 0.1], "resize_range": [0.15, 1.5],
    "gaussian_noise_prob": 0.5, "noise_range": [1, 30], "poisson_scale_range": [0.05, 3],
    "gray_noise_prob": 0.4, "jpeg_range": [30, 95],
    "resize_prob2": [0.3, 0.4, 0.3], "resize_range2": [0.3, 1.2],
    "gaussian_noise_prob2": 0.5, "noise_range2": [1, 25], "poisson_scale_range2": [0.05, 2.5],
    "gray_noise_prob2": 0.4, "jpeg_range2": [30, 95],
}  # fmt: skip


def degradation(study: Study, images: int, repetitions: int, folder: Path) -> Iterator[SideBySide]:
    """Our second-order degradation beside the one that Real-ESRGAN is trained with."""
    files = [folder / f"{number}.png" for number in range(images)]
    for number, file in enumerate(files):
        write_png(_scene(SIDE, number), file)
    level = load_levels(study.profile.data.levels_file)["III"]

    def ours() -> None:
        for number, file in enumerate(files):
            hq = read_image(file)
            apply(hq, draw(level, seeds.seed(0, "peers", number), (SIDE, SIDE), SCALE))

    spent = in_turns([ours, _official(files, folder)], repetitions)
    yield SideBySide(
        kind=PEERS,
        what=f"degrade {images} images of {SIDE} px, two orders, from the PNG",
        ours="level III on arrays, OpenCV's filters and JPEG",
        theirs="basicsr's RealESRGANDataset and RealESRGANModel.feed_data, without sharpening",
        ours_seconds=spent[0],
        theirs_seconds=spent[1],
        agreement="other draws: not the same images",
        note="basicsr pads all kernels to 21 px, filters by convolution and imitates JPEG in "
        "torch, which is made for batches on a GPU",
    )


def _official(files: list[Path], folder: Path) -> Callable[[], None]:
    """What the published training does for each image, on the CPU."""
    from basicsr.data.realesrgan_dataset import RealESRGANDataset
    from basicsr.models.realesrgan_model import RealESRGANModel
    from basicsr.utils import DiffJPEG

    listed = folder / "meta_info.txt"
    listed.write_text("".join(f"{file.name}\n" for file in files), encoding="utf-8")
    options = PUBLISHED | {"dataroot_gt": str(folder), "meta_info": str(listed)}
    dataset = RealESRGANDataset(options)
    # In place of the model, which builds its networks on a GPU: degrading needs none of them. The
    # pool of earlier images lies on the GPU, too, and sharpening is no part of the degradation.
    stand_in = SimpleNamespace(
        opt=options, is_train=True, device=torch.device("cpu"),
        jpeger=DiffJPEG(differentiable=False), usm_sharpener=torch.nn.Identity(),
        _dequeue_and_enqueue=lambda: None,
    )  # fmt: skip
    degrade = RealESRGANModel.feed_data

    def theirs() -> None:
        random.seed(0)
        state = np.random.get_state()  # noqa: NPY002 - basicsr draws from the global generators
        np.random.seed(0)  # noqa: NPY002
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for index in range(len(files)):
                found = dataset[index]
                del found["gt_path"]
                degrade(stand_in, {name: tensor[None] for name, tensor in found.items()})
        np.random.set_state(state)  # noqa: NPY002

    return theirs


def metrics(study: Study, images: int, repetitions: int, folder: Path) -> Iterator[SideBySide]:
    """Our scorer beside pyiqa called on each pair of files, and beside torchmetrics."""
    pairs = []
    for number in range(images):
        hq = _scene(SCORED, number)
        noise = np.random.default_rng(number).normal(0, 12, hq.shape)
        both = folder / f"restored{number}.png", folder / f"hq{number}.png"
        write_png(np.clip(hq + noise, 0, 255).astype(np.uint8), both[0])
        write_png(hq, both[1])
        pairs.append(both)
    for name in ("psnr", "ssim", "st-lpips"):
        yield from _metric(study, name, pairs, repetitions)


def _metric(
    study: Study, name: str, pairs: list[tuple[Path, Path]], repetitions: int
) -> Iterator[SideBySide]:
    import pyiqa

    profile, values = study.profile, dict[str, list[float]]()
    chosen = profile.score.model_copy(update={"metrics": [name], "protocols": ["faithdiff-repo"]})
    definitions = definitions_of(profile.model_copy(update={"score": chosen}))
    prepared = prepare_all(definitions, chosen.weights, load_artifacts(ARTIFACTS_FILE))
    ((key, metric),) = prepared.items()
    if metric.unavailable:
        return
    options = metric.definition.options | {k: str(file) for k, file in metric.files.items()}
    theirs = pyiqa.create_metric(metric.definition.network, device=torch.device("cpu"), **options)
    loaded = Scorer(prepared, chosen.weights)

    def score() -> None:
        # A scorer without kept values, with the network that is loaded.
        scorer = Scorer(prepared, chosen.weights)
        scorer._loaded = loaded._loaded
        values["ours"] = [float(scorer.score(Pair(*pair))[key].value) for pair in pairs]

    def per_image() -> None:
        values["pyiqa"] = [float(theirs(*map(str, pair)).item()) for pair in pairs]

    ways = [score, per_image]
    functional = _torchmetrics(name)
    if functional is not None:
        ways.append(
            lambda: values.update(torchmetrics=[functional(*map(_tensor, pair)) for pair in pairs])
        )
    spent = in_turns(ways, repetitions)
    what = f"{metric.definition.label} of {len(pairs)} pairs of PNGs, {SCORED} px"
    peers = {
        "pyiqa": ("pyiqa, per pair of files", "we call it, and hash both files to keep the value"),
        "torchmetrics": ("torchmetrics, per pair", FASTER.get(name, "")),
    }
    for number, (peer, (words, note)) in enumerate(peers.items(), 1):
        if peer == "torchmetrics" and functional is None and name == "st-lpips":
            continue
        ran = number < len(spent)
        differs = "" if not ran else _difference(values["ours"], values[peer])
        yield SideBySide(
            kind=PEERS,
            what=what,
            ours="the scorer",
            theirs=words,
            ours_seconds=spent[0],
            theirs_seconds=spent[number] if ran else None,
            agreement=differs,
            note=note if ran else "torchmetrics is not installed: pip install .[peers]",
        )


def _torchmetrics(name: str) -> Callable[..., float] | None:
    """The same metric as a function of two tensors; None where it is not installed or has none."""
    if name == "st-lpips" or importlib.util.find_spec("torchmetrics") is None:
        return None
    # By name: nothing of the suite needs it, so it is no dependency.
    image = importlib.import_module("torchmetrics.functional.image")

    if name == "psnr":
        # Its own default takes the range from the images.
        return lambda *two: float(image.peak_signal_noise_ratio(*two, data_range=1.0))

    def luma_ssim(*two: torch.Tensor) -> float:
        weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
        grey = [(one * weights).sum(1, keepdim=True) for one in two]
        return float(image.structural_similarity_index_measure(*grey, data_range=1.0))

    return luma_ssim


def _difference(ours: list[float], theirs: list[float]) -> str:
    largest = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    return "equal" if largest == 0 else f"differs by {largest:.1g} at most"


def _tensor(file: Path) -> torch.Tensor:
    return torch.from_numpy(read_image(file)).permute(2, 0, 1)[None].float() / 255


def _scene(size: int, number: int) -> NDArray[np.uint8]:
    return render_scene(np.random.default_rng(number), size).image
