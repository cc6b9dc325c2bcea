"""scores.csv as it is read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from shared.scores import make_scores

from faithdiff.config import Profile
from faithdiff.errors import UserError
from faithdiff.report.tables import load_scores


def test_a_score_file_survives_the_round_trip(profile: Profile, tmp_path: Path) -> None:
    scores = make_scores(profile)
    scores.to_csv(tmp_path / "scores.csv", index=False)
    pd.testing.assert_frame_equal(load_scores(tmp_path / "scores.csv"), scores)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns="status"), "has no column status"),
        (lambda f: pd.concat([f, f.iloc[[3]]]), "occurs twice"),
        (lambda f: f.assign(status="fine"), "status is 'fine'"),
        (lambda f: f.assign(status="failed: "), "status is 'failed: '"),
        (lambda f: f.assign(value="inf"), "value is 'inf', not a finite number"),
        (lambda f: f.assign(value=""), "value is ''"),
        (lambda f: f.assign(seed="first"), "seed is 'first'"),
        (lambda f: f.assign(picture=""), "picture is empty"),
    ],
)
def test_a_corrupted_score_file_is_named(
    profile: Profile,
    tmp_path: Path,
    spoil: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
) -> None:
    file = tmp_path / "scores.csv"
    spoil(make_scores(profile)).to_csv(file, index=False)
    with pytest.raises(UserError, match=re.escape(str(file))) as caught:
        load_scores(file)
    assert message in str(caught.value)


def test_a_missing_or_empty_score_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    for name in ("absent.csv", "empty.csv"):
        with pytest.raises(UserError, match=name):
            load_scores(tmp_path / name)


def test_a_folder_of_results_that_was_copied_is_refused(profile: Profile, tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    scores = make_scores(profile)
    scores.to_csv(file, index=False)
    (own,) = set(scores["profile"])
    load_scores(file, own)
    with pytest.raises(UserError, match=f"results of the profile '{own}', not 'copied'"):
        load_scores(file, "copied")
