"""Results that cannot be read or compared: one line, exit code 2."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
from shared.audited import World, run_main
from typer.testing import CliRunner

from faithdiff import cli
from faithdiff.audit.report import Request, audit
from faithdiff.errors import UserError


def spoil_schema(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.rename(columns={"protocol_sha256": "protocol_digest"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_schema, "has no column protocol_sha256"),
        (lambda s: pd.concat([s, s.iloc[[5]]]), "this row occurs twice"),
        (lambda s: s.assign(value=s["value"].where(s.index != 0, "nan")), "'nan', not a finite"),
        (lambda s: s.drop(index=0), "no row for 1 of the 12 images of Photos, level I"),
        (lambda s: s.assign(profile="mini"), "results of the profile 'mini', not 'tiny'"),
        (lambda s: s.iloc[:0], "has no rows"),
    ],
)
def test_corrupted_scores_are_refused_with_the_reason(
    other: World,
    spoil: Callable[[pd.DataFrame], pd.DataFrame],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(other.scores()).to_csv(other.root / "results/tiny/scores.csv", index=False)
    other.commit("Corrupted")
    error = run_main(["audit", "first", "HEAD", "--profile", "tiny"], other, monkeypatch, capsys)
    assert said in error
    sha = other.git("rev-parse", "HEAD")[:9]
    assert f"{sha}:results/tiny/scores.csv" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["HEAD~7"], "The suite: has no results/tiny/scores.csv"),
        (["no-such-branch"], "'no-such-branch' is neither a commit, tag or branch"),
        (["config"], "config: this folder has neither scores.csv nor results/"),
        (["--", "-x"], "'-x' is neither"),
        (["--metric", "fid"], "--metric: 'fid' is not one of"),
        (["first", "--history", "3"], ""),
    ],
)
def test_what_cannot_be_compared_exits_with_2(
    world: World,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not said:
        monkeypatch.chdir(world.root)
        result = CliRunner().invoke(cli.app, ["audit", *arguments, "--profile", "tiny"])
        assert result.exit_code == 0  # one name is where the history ends
        return
    command = ["audit", "--profile", "tiny", *arguments]
    assert said in run_main(command, world, monkeypatch, capsys)


def test_results_of_another_profile_are_named(other: World) -> None:
    with pytest.raises(UserError, match=r"has no results/mini/scores.csv; it has results of tiny"):
        audit(Request("HEAD", ".", "mini"), other.root)
