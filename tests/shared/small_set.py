"""A prepared test set of a few small images, for methods that are asked to restore it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from faithdiff.methods.method import Study
from faithdiff.study.files import write_text_atomic
from shared.pictures import picture, save

# Of a profile that extends `mini`: its `data`, with this set in place of the other two.
DATA = {
    "levels": ["II"],
    "test": {"Photos": None, "Scenes": None, "Set": {"source": "folder", "path": "raw"}},
}


def save_lq(study: Study, names: Iterable[str], side: int) -> None:
    """Write LQ images of the test set `Set` at level II, each with the caption `of <its name>`."""
    rows = []
    for number, name in enumerate(names):
        save(picture(number, side), study.layout.lq("Set", "II") / f"{name}.png")
        rows.append(f"{name},of {name}\n")
    index = study.layout.dataset("Set") / "index.csv"
    write_text_atomic("name,caption\n" + "".join(rows), index)


def failed(manifest: dict[str, Any]) -> dict[str, str]:
    """Why images of a restored set have no result, by name."""
    return {n: i["failed"] for n, i in manifest["images"].items() if "failed" in i}
