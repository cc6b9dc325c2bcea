"""Methods that overtook others, and bold that moved."""

from __future__ import annotations

from typing import Any

import pytest
from shared.audited import World


def test_who_overtook_whom(world: World) -> None:
    found = world.audit("first", "sharper", metrics=("psnr",))
    overall = [each for each in found.ranks if each.dataset == "all"]
    assert [(e.winner, e.loser) for e in overall] == [("faithdiff", "separate")]
    assert overall[0].more_than_noise
    assert overall[0].before == pytest.approx(-1, abs=0.1)
    assert overall[0].lead == pytest.approx(2.1, abs=0.1)


def test_a_lead_within_noise_is_called_so(other: World) -> None:
    def level(method: str, metric: str, dataset: str, _: str, image: int) -> float:
        noisy = 1 + 0.6 * (-1) ** image
        return noisy if (method, metric) == ("realesrgan", "psnr") else 0.0

    other.run(level)
    ranks = [r for r in other.audit("first", metrics=("psnr",)).ranks if r.dataset == "all"]
    assert [(r.winner, r.loser, r.more_than_noise) for r in ranks] in (
        [("realesrgan", "faithdiff", False)], [],
    )  # fmt: skip
    found = other.audit("first", ".", metrics=("psnr",))
    assert all(not r.more_than_noise or r.low > 0 for r in found.ranks)


def test_bold_that_moved(other: World) -> None:
    def gan_best(method: str, metric: str, *_: Any) -> float:
        return 9.0 if (method, metric) == ("realesrgan", "psnr") else 0.0

    other.run(gan_best)
    moved = [m for m in other.audit("first").marks if m.table == "main" and m.metric == "psnr"]
    assert {(m.method, m.old, m.new) for m in moved} == {
        ("realesrgan", "second", "best"),
        ("faithdiff", "best", "second"),
    }


@pytest.mark.parametrize(
    ("column", "before", "noun"),
    [
        ("method", "realesrgan", "method"),
        ("level", "I", "level"),
        ("dataset", "Photos", "dataset"),
    ],
)
def test_another_name_for_the_same_images_is_asked_about(
    other: World, column: str, before: str, noun: str
) -> None:
    scores = other.scores()
    scores[column] = scores[column].replace({before: "renamed"})
    scores.to_csv(other.root / "results/tiny/scores.csv", index=False)
    found = other.audit()
    said = f"{noun} {before} of OLD and renamed of NEW have the same images: renamed?"
    assert sum(said in note for note in found.notes) == 1
    assert {"added", "removed"} <= {change.verdict for change in found.comparison.places}
