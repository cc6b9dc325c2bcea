"""What can explain a change, asked of manifests alone."""

from __future__ import annotations

import copy
from typing import Any, cast

import pandas as pd
import pytest
from shared import ROOT

from faithdiff.audit.differences import Difference, manifest_differences
from faithdiff.audit.report import Request, audit
from faithdiff.audit.results import Results
from faithdiff.config import CAPTIONER_OPERATIONAL, OPERATIONAL

CONFIG = {
    "profile": "mini",
    "restore": {"steps": 20},
    "training": {"prefetch": 0, "loss": "mse", "optimiser": {"eps": 0}},
    "data": {"train_level": "mix"},
    "seed": 0,
    "device": "cpu",
    "captioner": {"top_p": 0.7},
    "a": {"setting": {"of": {"tomorrow": 6}}},
    "report": {"bootstrap": 6},
    "variants": {"faithdiff": {"label": "FaithDiff", "recipe": "released"}},
    "baselines": {
        "bicubic": {"label": "Bicubic"},
        "gan": {"label": "Real-ESRGAN", "trained": True},
        "supir": {"label": "SUPIR", "trained": True, "denoises": True, "settings": {"a": 1}},
        "supir-own": {"label": "SUPIR, own", "checkpoint_of": "supir"},
    },
}


def changes(path: str, value: Any) -> list[Difference]:
    """What the audit says of two manifests that differ in one value."""
    sides = []
    for last in (False, True):
        manifest = copy.deepcopy({"config": CONFIG, "prior": {"weights": "one"}})
        *parents, key = path.split("/")
        node: Any = manifest
        for part in parents:
            node = node[part]
        if last:
            node[key] = value
        sides.append(Results(cast(Any, None), "mini", pd.DataFrame(), manifest, {}, {}))
    return manifest_differences(*sides)


@pytest.mark.parametrize(
    ("path", "value", "methods"),
    [
        ("config/restore/steps", 10, {"faithdiff", "supir", "supir-own"}),
        # The perceptual loss of a Real-ESRGAN that is trained here is the prior's VAE.
        ("prior/weights", "two", {"faithdiff", "supir", "supir-own", "gan"}),
        ("config/baselines/supir/settings", {"a": 2}, {"supir", "supir-own"}),
        ("config/training/loss", "l1", {"faithdiff", "supir", "supir-own"}),
        ("config/training/optimiser", {"eps": 1}, {"faithdiff", "supir", "supir-own", "gan"}),
        ("config/data/train_level", "II", {"faithdiff", "supir", "supir-own", "gan"}),
        ("config/seed", 7, None),
        ("config/device", "cuda", None),
        ("config/a/setting/of/tomorrow", 7, None),
    ],
)
def test_a_difference_names_the_methods_that_it_can_touch(
    path: str, value: Any, methods: set[str] | None
) -> None:
    (found,) = changes(path, value)
    assert found.can_explain
    assert found.methods == (None if methods is None else frozenset(methods))


@pytest.mark.parametrize(
    "path",
    ["report/bootstrap", "curves", "shards", "baselines/supir/label", "variants/faithdiff/label"],
)
def test_what_only_the_report_reads_explains_no_score(path: str) -> None:
    (found,) = changes(f"config/{path}", "7")
    assert not found.can_explain


@pytest.mark.parametrize(
    "path",
    [
        *(f"training/{name}" for name in sorted(OPERATIONAL)),
        *(f"captioner/{name}" for name in sorted(CAPTIONER_OPERATIONAL)),
    ],
)
def test_where_a_model_runs_explains_no_score(path: str) -> None:
    (found,) = changes(f"config/{path}", 7)
    assert not found.can_explain


@pytest.mark.parametrize("profile", ["mini", "mini-seeds"])
def test_the_committed_results_can_be_audited(profile: str) -> None:
    """They have rows that no table has: the held-out loss at single timesteps."""
    found = audit(Request("HEAD", "HEAD", profile), ROOT, False)
    changes = found.comparison.changes
    assert any("t = 149" in change.column.label for change in changes)
    # Metrics whose weights nobody fetched have no value on either side.
    assert {change.verdict for change in changes} == {"identical", "no value"}
