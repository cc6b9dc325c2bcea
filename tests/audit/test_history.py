"""A metric over the last commits, and git bisect."""

from __future__ import annotations

import re
import subprocess
import sys

from shared import ROOT
from shared.audited import World, write

from faithdiff.audit.history import history, history_sections
from faithdiff.audit.history_plot import history_figure, to_png
from faithdiff.audit.report import Request


def test_history_marks_the_commits_where_a_metric_moved(world: World) -> None:
    found = history(Request(profile="tiny", metrics=("psnr",)), 10, world.root)
    assert [c.subject for c in found.commits] == [
        "First results", "Results of the colour fix", "Results of a worse baseline",
    ]  # fmt: skip
    points = {s.method: [p.verdict for p in s.points] for s in found.series}
    assert points["faithdiff"] == ["", "better", "identical"]
    assert points["realesrgan"] == ["", "identical", "worse"]
    (section,) = history_sections(found)
    assert "Results of the colour fix" in section.lines[1]
    own = next(s for s in found.series if s.method == "faithdiff")
    assert all(p.low < p.mean < p.high for p in own.points)
    figure = to_png(history_figure(found))
    assert figure.startswith(b"\x89PNG")
    assert figure == to_png(history_figure(found))
    assert len(history(Request(profile="tiny"), 2, world.root).commits) == 2


def test_git_bisect_finds_the_commit_as_documented(other: World) -> None:
    text = (ROOT / "docs/audit.md").read_text("utf-8")
    recipe = re.search(r"(?s)<!-- bisect -->\n```sh\n(.*?)```", text)
    assert recipe is not None
    commands = recipe.group(1).replace("mini", "tiny").replace("v1.0", "first")
    wrapper = other.root.parent / "bin" / "faithdiff"
    write(wrapper, f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -c '
                   '"from faithdiff.cli import main; main()" "$@"\n')  # fmt: skip
    wrapper.chmod(0o755)
    done = subprocess.run(
        ["sh", "-ec", f'PATH="{wrapper.parent}:$PATH"\n{commands}'],
        cwd=other.root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "is the first bad commit" in done.stdout, done.stdout + done.stderr
    assert "Results of a worse baseline" in done.stdout
