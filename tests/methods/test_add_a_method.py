"""docs/add-a-method.md: its lines run as they stand, the study itself as far as its plan."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from shared import ROOT
from shared.whole import PARTS, copy_suite


def lines() -> list[str]:
    text = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for line in block.splitlines() if line]


def test_twenty_lines_are_enough() -> None:
    assert len(lines()) <= 20


def test_the_lines_work(tmp_path: Path) -> None:
    copy_suite(tmp_path, [*PARTS, "results", "prior"])
    script = "\n".join(lines())
    # The whole of `mini` takes minutes and has a test of its own at a smaller size.
    assert script.count("snakemake --cores all") == 1
    script = script.replace("snakemake --cores all", "snakemake --dry-run --cores all")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "mymethod: keeps the contract" in done.stdout
    assert "restored/mine/mymethod/seed0/Scenes/II/manifest.json" in done.stdout
