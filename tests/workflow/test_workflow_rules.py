"""The workflow as Snakemake reads it, against the table of rules."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal, TypedDict

import pytest
from shared import ROOT

from faithdiff.study.rules import RULES, Rule

# In a process of its own: the workflow sets variables of the environment, and holds a lock.
LOAD = """
import inspect, json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, ResourceSettings

def table_name(value):
    return inspect.getclosurevars(value).nonlocals.get("name") if callable(value) else None

with SnakemakeApi() as api:
    loaded = api.workflow(
        resource_settings=ResourceSettings(cores=1),
        config_settings=ConfigSettings(config=json.loads(sys.argv[1])),
        snakefile=Path("Snakefile"),
    )
    rules = {
        rule.name: {key: table_name(value) for key, value in rule.params.items()}
        for rule in loaded._workflow.rules
    }
    gpus = loaded._workflow.global_resources.get("gpu").value
    files = {
        rule.name: {"input": [*map(str, rule.input)], "output": [*map(str, rule.output)]}
        for rule in loaded._workflow.rules
    }
json.dump({"params": rules, "gpus": gpus, "files": files}, sys.stdout)
"""


class Loaded(TypedDict):
    """The workflow that Snakemake knows.

    Attributes:
        params: With the name by which one asks the table, by rule.
        gpus: How many its jobs may use at once.
        files: Inputs and outputs by rule.
    """

    params: dict[str, dict[str, str | None]]
    gpus: int | None
    files: dict[str, dict[Literal["input", "output"], list[str]]]


@functools.cache
def loaded(**config: str) -> Loaded:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps({"profile": "test", **config})],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: Loaded = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_rules_of_the_workflow_are_those_of_the_table() -> None:
    assert {*loaded()["params"]} - {"all"} == {rule.name for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_asks_the_table_for_its_own_digests(rule: Rule) -> None:
    wanted = {"code": bool(rule.modules), "config": bool(rule.settings(on_prior=True))}
    params = loaded()["params"][rule.name]
    asked = {key: params[key] for key in ("code", "config") if key in params}
    assert asked == {key: rule.name for key, there in wanted.items() if there}


def test_jobs_on_gpus_are_as_many_at_once_as_there_are_gpus() -> None:
    assert loaded()["gpus"] is None
    assert (loaded(device="cuda", name="on-gpus")["gpus"] or 0) >= 1


@pytest.mark.parametrize("name", ["collect", "tables", "figures", "claims"])
def test_a_result_that_was_deleted_is_asked_for_by_name(name: str) -> None:
    """Snakemake does not miss a file that only stands between two others that are there."""
    files = loaded()["files"]
    assert {*files[name]["output"]} <= {*files["all"]["input"]}


def test_the_place_where_catalogs_look_has_the_same_study() -> None:
    """`workflow/Snakefile` plans the whole study by itself, not its first rule alone."""
    call = [sys.executable, "-m", "snakemake", "-n", "--nolock", "--config", "profile=test"]
    counts = []
    for more in ([], ["--snakefile", "workflow/Snakefile"]):
        done = subprocess.run([*call, *more], cwd=ROOT, text=True, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        stats = done.stdout.partition("Job stats:")[2].partition("total")[0].splitlines()[3:]
        counts.append({line for line in stats if line.split() and line.split()[0] != "all"})
    assert len(counts[0]) > 10
    assert counts[0] == {line for line in counts[1] if line.split()[0] != "study"}


def test_the_graph_alone_is_on_standard_output() -> None:
    """What `dot` is given; messages go to standard error."""
    call = [sys.executable, "-m", "snakemake", "--nolock", "--config", "profile=test", "--dag"]
    done = subprocess.run(call, cwd=ROOT, text=True, capture_output=True, timeout=300)
    assert done.stdout.startswith("digraph snakemake_dag {"), done.stderr
    assert done.stdout.rstrip().endswith("}")


@pytest.mark.slow
def test_a_checkout_that_stays_as_it_is_has_its_results_elsewhere(tmp_path: Path) -> None:
    """As where it is read-only: a folder with links to what a study reads by its path."""
    for part in ("config", "prior", "results/paper"):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / part).symlink_to(ROOT / part)
    call = [sys.executable, "-m", "snakemake", "-n", "-s", str(ROOT / "Snakefile")]
    call += ["--config", "profile=test"]
    done = subprocess.run(call, cwd=tmp_path, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prepare_dataset" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "config", "prior", "results", ".snakemake"
    }  # fmt: skip
