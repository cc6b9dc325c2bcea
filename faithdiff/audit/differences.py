"""What differs between two manifests and lock files, kind by kind, and which methods it touches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from faithdiff.audit.results import Results
from faithdiff.config import CAPTIONER_OPERATIONAL, OPERATIONAL
from faithdiff.study.manifest import DataHashes
from faithdiff.study.plain import Json
from faithdiff.study.rules import BY_NAME, MACHINE, NAMING, RULES, Rule, covers, makes_scores

# Packages that compute something; the others carry files, parse arguments, draw.
COMPUTING = {
    "accelerate", "basicsr", "diffusers", "lpips", "numpy", "opencv-python-headless", "pillow",
    "pyiqa", "safetensors", "scikit-image", "scikit-learn", "scipy", "timm", "tokenizers",
    "torch", "torchvision", "transformers",
}  # fmt: skip
# Settings that change no score though they stand in a section that does, or in none that the table
# of rules knows: how a training logs, where it runs and how fast, and why a setting is as it is.
# What is printed alone is not listed: the table says that no rule before the scores reads it.
WITHOUT_EFFECT = (
    *("deviations", "shards", "training.log_every", "training.checkpoint_every"),
    *sorted(f"training.{name}" for name in OPERATIONAL),
    *sorted(f"captioner.{name}" for name in CAPTIONER_OPERATIONAL),
)
_SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class Difference:
    """Something that is not the same in two manifests or lock files.

    Attributes:
        kind: Data, degradation, weights, config, code, packages, hardware or seeds.
        what: Its name.
        methods: The methods that it can touch; None for all of them.
        can_explain: Whether it can change a score at all.
        remark: What a reader should know besides.
    """

    kind: str
    what: str
    old: str
    new: str
    methods: frozenset[str] | None = None
    can_explain: bool = True
    remark: str = ""


def manifest_differences(old: Results, new: Results) -> list[Difference]:
    """Everything but code, in the order of what lies nearest to the start of a run.

    None where a side has no manifest: what nobody recorded is not called different.
    """
    # What nobody recorded is unknown (`why` says so), and neither equal nor different.
    if not old.manifest or not new.manifest:
        return []
    kinds: tuple[Callable[[Results, Results], Iterable[Difference]], ...] = (
        _data, _degradation, _weights, _config, _definitions, _packages, _hardware, _seeds,
    )  # fmt: skip
    return [difference for kind in kinds for difference in kind(old, new)]


def flatten(value: Json, path: str = "") -> dict[str, Json]:
    """Values by dotted path; lists stay whole."""
    if not isinstance(value, Mapping) or not value:
        return {path: value}
    parts = [flatten(part, f"{path}.{key}" if path else str(key)) for key, part in value.items()]
    return {name: part for flat in parts for name, part in flat.items()}


def _pairs(old: Json, new: Json) -> Iterator[tuple[str, str, str]]:
    """Paths whose values differ, with the two values as text."""
    before, after = flatten(old or {}), flatten(new or {})
    for path in sorted((before.keys() | after.keys()) - {""}):
        if path not in before or path not in after or before[path] != after[path]:
            yield path, _text(before, path), _text(after, path)


def _text(flat: dict[str, Json], path: str) -> str:
    if path not in flat:
        return "absent"
    value = flat[path]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _data(old: Results, new: Results) -> Iterator[Difference]:
    for dataset, before, after in _datasets(old, new):
        parts = [{"index.csv": side.index, "images": side.images} for side in (before, after)]
        for what, a, b in _pairs(*parts):
            yield Difference("data", f"{dataset}: {what}", a, b, _readers(old, new, dataset))


def _degradation(old: Results, new: Results) -> Iterator[Difference]:
    for dataset, before, after in _datasets(old, new):
        for level, a, b in _pairs(before.degradation, after.degradation):
            what = f"{dataset}, level {level}: degradation.jsonl"
            yield Difference("degradation", what, a, b, _readers(old, new, dataset))


def _datasets(old: Results, new: Results) -> Iterator[tuple[str, DataHashes, DataHashes]]:
    before, after = old.made.data, new.made.data
    for dataset in dict.fromkeys([*before, *after]):
        yield dataset, before.get(dataset, DataHashes()), after.get(dataset, DataHashes())


def _readers(old: Results, new: Results, dataset: str) -> frozenset[str] | None:
    """Methods that a dataset can touch: a training set reaches the trained ones alone."""
    # A test set reaches all: each of them restores it.
    if dataset != "train":
        return None
    return frozenset(name for side in (old, new) for name in side.config.trained)


def _weights(old: Results, new: Results) -> Iterator[Difference]:
    for what, a, b in _pairs(old.manifest.get("prior"), new.manifest.get("prior")):
        yield Difference("weights", f"prior: {what}", a, b, _from_prior(old, new))
    before, after = old.made, new.made
    for method in before.published.keys() & after.published.keys():
        for what, a, b in _pairs(before.published[method], after.published[method]):
            yield Difference("weights", f"{method}: {what}", a, b, frozenset([method]))
    # By weights, not by records: seconds and machines differ from run to run, weights must not.
    for name in dict.fromkeys([*before.checkpoints, *after.checkpoints]):
        runs = [side.checkpoints.get(name) for side in (before, after)]
        a, b = (run.weights or "absent" if run else "absent" for run in runs)
        if a != b:
            commits = " and ".join((run.commit or "?")[:9] for run in runs if run)
            owner = name.split("/")[0]
            yield Difference(
                "weights", name, a, b, _users(old, new, owner), remark=f"trained at {commits}"
            )


def _on_prior(*sides: Results) -> frozenset[str]:
    return frozenset(
        name
        for config in (side.config for side in sides)
        for name in (*config.variants, *config.baselines)
        if config.samples_from_prior(name)
    )


def methods_of(rule: Rule, *sides: Results) -> frozenset[str]:
    """The methods of a study that a rule works for, by their config on either side."""
    found: set[str] = set()
    for config in (side.config for side in sides):
        variants, baselines = config.variants, config.baselines
        trained = {name for name, each in baselines.items() if each.trained}
        denoisers = {name for name, each in baselines.items() if each.denoises}
        chosen = {
            "variants": {*variants},
            "trained": {*variants, *trained},
            "trained baselines": trained,
            "denoisers": {*variants, *denoisers},
            # Another sampler of a checkpoint is among them: its held-out loss is the other's.
            "others": {*baselines} - denoisers,
            "all": {*variants, *baselines},
        }
        found |= chosen[rule.methods]
    return frozenset(found)


def _users(old: Results, new: Results, owner: str) -> frozenset[str]:
    """Methods behind a checkpoint: itself and its other samplers, or the variants of a stage 1."""
    if not owner.startswith("stage1-"):
        return _with_its_samplers(old, new, method=owner)
    return _of_recipe(old, new, owner.removeprefix("stage1-"))


def _with_its_samplers(*sides: Results, method: str) -> frozenset[str]:
    others = {
        name
        for side in sides
        for name, baseline in side.config.baselines.items()
        if baseline.checkpoint_of == method
    }
    return frozenset({method, *others})


def _of_recipe(old: Results, new: Results, recipe: str) -> frozenset[str]:
    return frozenset(
        name
        for side in (old, new)
        for name, variant in side.config.variants.items()
        if variant.recipe == recipe
    )


def _config(old: Results, new: Results) -> Iterator[Difference]:
    for path, a, b in _pairs(old.manifest.get("config"), new.manifest.get("config")):
        silent = _is_silent(path)
        methods = _touched(old, new, path)
        yield Difference("config", path, a, b, methods, not silent, "no score" if silent else "")


def _is_silent(path: str) -> bool:
    """Whether a setting can change no score."""
    if path.split(".")[-1] in NAMING:
        return True
    if any(path == part or path.startswith(f"{part}.") for part in WITHOUT_EFFECT):
        return True
    readers = [rule for rule in RULES if _reads(rule, path)]
    # What no rule is known to read may yet matter: to be called harmless takes a reader that is.
    used = any(makes_scores(rule.name) for rule in readers) or path in MACHINE
    return bool(readers) and not used


def _reads(rule: Rule, path: str) -> list[str]:
    """The settings of a rule that hold the one at a path."""
    return [setting for setting in rule.settings(on_prior=True) if covers(setting, path)]


def _touched(old: Results, new: Results, path: str) -> frozenset[str] | None:
    """Methods that a setting can touch, by the rules that read it; None for all."""
    found: set[str] = set()
    readers = [rule for rule in RULES if makes_scores(rule.name) and _reads(rule, path)]
    for rule in readers:
        for setting in _reads(rule, path):
            reached = _reached(old, new, rule, setting, path.split("."))
            if reached is None:
                return None
            found |= reached
    return frozenset(found) if readers else None


def _reached(
    old: Results, new: Results, rule: Rule, setting: str, path: list[str]
) -> frozenset[str] | None:
    """Methods that a setting touches through one rule; None for all."""
    # A difference of a whole section (`recipes` is there on one side alone) names no one of it.
    section, own = setting.partition(".*")[0], setting.count(".*") and len(path) > 1
    # The setting of one method or recipe: only that one, though the rule works for many.
    if own and section in ("variants", "baselines"):
        return _with_its_samplers(old, new, method=path[1])
    if own and section == "recipes":
        return _of_recipe(old, new, path[1])
    methods = None if rule.methods == "all" else methods_of(rule, old, new)
    if setting in rule.reads_on_prior:
        on_prior = _on_prior(old, new)
        methods = on_prior if methods is None else methods & on_prior
    if methods is None:
        return None
    return reach(rule, methods, old, new)


def reach(rule: Rule, methods: frozenset[str], *sides: Results) -> frozenset[str]:
    """Methods that a rule reaches by working for some: a checkpoint has other samplers, too."""
    if "trained" not in rule.methods and rule.methods != "variants":
        return methods
    return methods.union(*(_with_its_samplers(*sides, method=name) for name in methods))


def _from_prior(*sides: Results) -> frozenset[str]:
    """Methods that the prior decides: trained on it or sampling from it."""
    rule = BY_NAME["train_prior"]
    return reach(rule, methods_of(rule, *sides), *sides) | _on_prior(*sides)


def _definitions(old: Results, new: Results) -> Iterator[Difference]:
    """Levels and protocols, which the profile names and the lock file holds."""
    before, after = (side.lock.get("params", {}) for side in (old, new))
    if not before or not after:
        return
    for file in dict.fromkeys([*before, *after]):
        if file.endswith(("levels.yaml", "protocols.yaml")):
            for path, a, b in _pairs(before.get(file), after.get(file)):
                yield Difference("config", f"{file}: {path}", a, b)


def _packages(old: Results, new: Results) -> Iterator[Difference]:
    before, after = old.made.packages, new.made.packages
    # Those that compute nothing in one line: an update of the environment moves a hundred of them.
    others = []
    for name in sorted(before.keys() | after.keys(), key=str.lower):
        a, b = before.get(name, "absent"), after.get(name, "absent")
        if a != b and name.lower().replace("_", "-") in COMPUTING:
            yield Difference("packages", name, a, b)
        elif a != b:
            others.append(f"{name} {a} → {b}")
    if others:
        what = f"{len(others)} that compute no score"
        yield Difference("packages", what, "", "", None, False, ", ".join(others))


def _hardware(old: Results, new: Results) -> Iterator[Difference]:
    machines = [
        [machine.get("hardware") or {} for machine in side.manifest.get("machines", [])]
        for side in (old, new)
    ]
    # Of several machines nobody can say which one became which.
    if len(machines[0]) == len(machines[1]) == 1:
        for what, a, b in _pairs(machines[0][0], machines[1][0]):
            yield Difference("hardware", what, a, b)
    else:
        texts = [sorted(json.dumps(m, sort_keys=True) for m in side) for side in machines]
        if texts[0] != texts[1]:
            counts = (f"{len(side)} machines" for side in texts)
            yield Difference("hardware", "machines", next(counts), next(counts))


def _seeds(old: Results, new: Results) -> Iterator[Difference]:
    for what, a, b in _pairs(old.manifest.get("seeds"), new.manifest.get("seeds")):
        yield Difference("seeds", what, a, b)
