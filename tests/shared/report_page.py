"""A report page of made-up pictures, with names that try to break it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from faithdiff.config import Profile
from faithdiff.data.images import sha256_file, write_png

MINI = Path("config/mini.yaml")
EVIL = "</script><img src=x onerror='window.broken=1'>"
NAMES = [f"photo{i}" for i in range(7)] + ["<img src=x onerror=window.broken=1>"]
METHODS = ("bicubic", "faithdiff")


def quick(profile: Profile) -> Profile:
    return profile.model_copy(
        update={"report": profile.report.model_copy(update={"bootstrap": 200})}
    )


def put_pictures(root: Path) -> None:
    rng = np.random.default_rng(3)
    folder = root / "data/mini/Photos"
    for part in ("hq", "lq/I"):
        (folder / part).mkdir(parents=True)
    hashes = {}
    for name in NAMES:
        hq = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        write_png(hq, folder / "hq" / f"{name}.png")
        write_png(hq[::4, ::4], folder / "lq/I" / f"{name}.png")
        for method in METHODS:
            target = root / f"restored/mini/{method}/seed0/Photos/I/{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_png(255 - hq if method == "bicubic" else hq, target)
            hashes[method, name] = sha256_file(target)
    frame = pd.DataFrame({"name": NAMES, "sha256": "", "width": 32, "height": 32, "caption": ""})
    frame.to_csv(folder / "index.csv", index=False)
    file = root / "results/mini/scores.csv"
    scores = pd.read_csv(file, dtype=str, keep_default_na=False)
    known = sorted(set(scores.loc[scores["dataset"] == "Photos", "image"]))
    scores["image"] = scores["image"].replace(dict(zip(known, NAMES, strict=False)))
    for cells in (root / "results/mini/tables").glob("*.cells.json"):
        for old, new in zip(known, NAMES, strict=False):
            rename(cells, old, new)
    for (method, name), sha in hashes.items():
        own = (scores["method"] == method) & (scores["image"] == name) & (scores["level"] == "I")
        scores.loc[own & (scores["restored_sha256"] != ""), "restored_sha256"] = sha
    scores.to_csv(file, index=False)


def rename(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(json.dumps(old), json.dumps(new)), encoding="utf-8")
