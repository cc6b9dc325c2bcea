"""What the tests of official baselines share: their classes, and the arguments of the scripts."""

from __future__ import annotations

import yaml

from shared import ROOT

TABLE = yaml.safe_load((ROOT / "tests/shared/official_arguments.yaml").read_text(encoding="utf-8"))
CLASSES = {
    "diffbir": "baselines.official.diffbir:OfficialDiffBIR",
    "seesr": "baselines.official.seesr:OfficialSeeSR",
    "supir": "baselines.official.supir:OfficialSUPIR",
    "realesrgan": "baselines.official.realesrgan:OfficialRealESRGAN",
}
SCALE = 4
