"""The measurements of ``make gpu-check``, rehearsed on the CPU, and the page that shows them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shared import ROOT

from faithdiff.errors import UserError
from faithdiff.planning import gpu_check, gpu_check_page
from faithdiff.planning.gpu_check_page import (
    Figure,
    Figures,
    MeasuredOn,
    read,
    table,
    with_table,
    write,
)

PAGE = ROOT / "docs" / "full-size.md"
FIGURES = ROOT / "results" / "gpu-check.json"
H100 = MeasuredOn(
    "NVIDIA H100 80GB HBM3", "550.54", "12.6", "0123456789", False, {"torch": "2.13.0"}
)
REPORT = Figures(
    H100,
    400,
    [
        Figure("parity", "small model, fp32, against the CPU in fp32", error=2e-6),
        Figure(
            "sampler", "2048 px, fp16, 4 tiles", 10, 1.6, memory_gib=20.5, tflops=494.5, error=0
        ),
        Figure("training", "stage 2, 512 px, bf16, micro-batch 8", note="does not fit"),
    ],
)
# What an environment with torch, diffusers, transformers, safetensors and pydantic alone has not.
ABSENT = """accelerate basicsr cv2 dvc lpips matplotlib pandas pyiqa scipy skimage sklearn snakemake
torchvision typer"""
BARE = f"""
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in {ABSENT!r}.split()
        return None if absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
from faithdiff.planning.gpu_check import main
main()
"""


def test_each_figure_stands_with_card_driver_versions_and_commit(tmp_path: Path) -> None:
    text = table(REPORT)
    for part in (
        "NVIDIA H100 80GB HBM3",
        "driver 550.54",
        "CUDA 12.6",
        "torch 2.13.0",
        "0123456789",
    ):
        assert part in text
    assert "| 2048 px, fp16, 4 tiles | 10 | 1.6 |  | 20.5 | 494 | 50% | 0.0e+00 |" in text
    assert "micro-batch 8 | does not fit | | | | | | |" in text
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    write(REPORT, tmp_path / "figures.json", page)
    assert read(tmp_path / "figures.json") == REPORT
    written = page.read_text(encoding="utf-8")
    assert text.strip() in written and gpu_check_page.NOT_RUN not in written
    assert with_table(written, gpu_check_page.NOT_RUN) == with_table(
        PAGE.read_text(encoding="utf-8"), gpu_check_page.NOT_RUN
    )
    with pytest.raises(UserError, match="has no <!-- gpu-check -->"):
        with_table("a page", text)


def test_a_rehearsal_says_that_it_is_one() -> None:
    assert "these numbers say nothing" in table(replace(REPORT, machine=replace(H100, small=True)))


def test_the_page_shows_the_committed_figures_or_says_that_there_are_none() -> None:
    page = PAGE.read_text(encoding="utf-8")
    text = table(read(FIGURES)) if FIGURES.exists() else gpu_check_page.NOT_RUN
    assert with_table(page, text) == page


def test_without_a_gpu_it_says_how_to_rehearse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    assert ended.value.code == 2 and "make gpu-check SMALL=1" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_measures_everything_on_small_networks(tmp_path: Path) -> None:
    """In a process that finds nothing but what a bare environment has."""
    page, out = tmp_path / "page.md", tmp_path / "out.json"
    page.write_text(f"{gpu_check_page.BEGIN}\n{gpu_check_page.END}\n", encoding="utf-8")
    line = [sys.executable, "-c", BARE, "--small", "--out", str(out), "--page", str(page)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    report = read(out)
    assert report.machine.small and not any(row.note for row in report.rows)
    assert {row.section for row in report.rows} == {"parity", "training", "sampler"}
    parity = next(row for row in report.rows if "fp32, against" in row.what)
    assert parity.error is not None and parity.error < 1e-4
    together = [row for row in report.rows if row.section == "sampler" and "fp32" in row.what]
    assert all(row.error is not None and row.error < 1e-3 for row in together)
    assert all(row.seconds and row.tflops for row in report.rows if row.section != "parity")
    assert table(report).strip() in page.read_text(encoding="utf-8")
    assert json.loads(out.read_text(encoding="utf-8"))["machine"]["versions"]["torch"]
