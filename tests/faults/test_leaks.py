"""Memory stays flat while many images go through one process."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from faithdiff.data.artifacts import ARTIFACTS_FILE, load_artifacts
from faithdiff.data.images import read_image, write_png
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.restore.arrays import to_image, to_tensor
from faithdiff.score.metrics import prepare_all
from faithdiff.score.protocols import definitions_of
from faithdiff.score.scorer import Pair, Scorer

IMAGES, WARM = 500, 50
ALLOWED = 4.0  # MB of growth after the warm-up; one image of 64 px is 0.05 MB as float32


def resident() -> float:
    """MB that this process uses: what was freed goes back to the system before it is counted."""
    gc.collect()
    # Else a leak would hide in what other tests of this process have freed (glibc keeps it).
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth(work: Callable[[int], object], images: int = IMAGES) -> tuple[float, float]:
    """MB after the warm-up and at the end."""
    start = 0.0
    for number in range(images):
        if number == WARM:
            start = resident()
        work(number)
    return start, resident()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="NOT TESTED: needs Linux' /proc")
def test_memory_is_flat_over_500_images_of_restore_and_score(
    whole: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    lq = whole.layout.lq("Photos", "II") / "astronaut_face.png"
    hq = whole.layout.dataset("Photos") / "hq" / "astronaut_face.png"
    method = find_method(whole, "faithdiff")
    restorer = method.load(whole, whole.layout.checkpoint("faithdiff", 0))
    weights = whole.profile.score.weights
    metrics = prepare_all(definitions_of(whole.profile), weights, load_artifacts(ARTIFACTS_FILE))
    scorer = Scorer(metrics, weights)

    def work(number: int) -> None:
        restored = restorer.restore(to_tensor(read_image(lq)), ["a face"], [number])[0]
        file = Path("out") / f"{number % 7}.png"
        write_png(to_image(restored), file)
        assert scorer.score(Pair(file, hq))["ycbcr", "psnr"][1] == "ok"

    start, end = growth(work)
    with capsys.disabled():
        print(f"\nresident after {WARM} images {start:.1f} MB, after {IMAGES} {end:.1f} MB")
    assert end - start < ALLOWED


def test_the_measure_sees_a_leak() -> None:
    kept: list[bytes] = []
    start, end = growth(lambda number: kept.append(os.urandom(400_000)), 400)
    assert end - start > ALLOWED and len(kept) == 400
