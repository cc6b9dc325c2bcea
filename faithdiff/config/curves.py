"""Rows of a study that repeat a method at other values of one setting.

``curves`` of a profile names the setting, the methods and the values. Each pair of method and value
becomes a method of its own before the profile is checked, so the rest of the suite trains, restores
and scores it like any other; figures and tables of curves find it by its name.
"""

from __future__ import annotations

from faithdiff.study.plain import JsonObject

LABELS = {
    "budget": "{value:g} x updates",
    "rates": "{value:g} x learning rates",
    "start_timestep": "start at {value:g}",
    "guidance_scale": "guidance {value:g}",
    "steps": "{value:g} steps",
    "restoration_guidance": "restoration guidance {value:g}",
    "captions": "{value} captions",
}
CAPTIONS = {"none": "no", "given": "given"}  # in labels; others are "seesr's"
TRAINED = ("budget", "rates")
OF_RESTORE = ("start_timestep", "guidance_scale", "steps")  # keys of `restore`
SAMPLED_VARIANT = "faithdiff.train.sampled_variant:SampledVariant"


def row_name(method: str, setting: str, value: float | str) -> str:
    """Name of the row of a method at a value: ``faithdiff-budget-0_5``."""
    text = value if isinstance(value, str) else f"{value:g}".replace(".", "_")
    return f"{method}-{setting}-{text}"


def expanded(data: object) -> object:
    """Add the rows of ``curves`` to the plain data of a profile.

    What does not fit the schema is left for its check. A row that is there already stays as it is:
    a profile that was written out with its rows gives the same profile again.
    """
    if not isinstance(data, dict) or not isinstance(curves := data.get("curves"), dict):
        return data
    sections = {key: data.get(key) or {} for key in ("variants", "baselines")}
    if not all(isinstance(section, dict) for section in sections.values()):
        return data
    sections = {key: dict(section) for key, section in sections.items()}
    for curve in curves.values():
        if not isinstance(curve, dict) or curve.get("setting") not in LABELS:
            continue
        for method in _listed(curve, "methods"):
            for value in _listed(curve, "values"):
                _add(sections, str(method), curve["setting"], value)
    return {**data, **sections}


def _listed(curve: JsonObject, key: str) -> list[int | float | str]:
    values = curve.get(key)
    found = values if isinstance(values, list) else []
    return [value for value in found if isinstance(value, int | float | str)]


def _add(sections: dict[str, JsonObject], method: str, setting: str, value: float | str) -> None:
    home = next((key for key, section in sections.items() if method in section), None)
    name = row_name(method, setting, value)
    if home is None or any(name in section for section in sections.values()):
        return
    own = sections[home][method]
    if not isinstance(own, dict):
        return
    if LABELS[setting].count(":g") and isinstance(value, str):
        return  # a word where a number belongs: the schema says so
    said = CAPTIONS.get(str(value), f"{value}'s") if setting == "captions" else value
    label = f"{own.get('label', method)}, {LABELS[setting].format(value=said)}"
    settings = _group(own, "settings")
    if setting in TRAINED and home == "variants":
        sections[home][name] = {**own, "label": label, setting: value}
    elif setting in TRAINED:
        sections[home][name] = {**own, "label": label, "settings": {**settings, setting: value}}
    else:
        sections["baselines"][name] = {
            "label": label,
            "implementation": own.get("implementation", SAMPLED_VARIANT),
            "checkpoint_of": own.get("checkpoint_of") or method,
            "settings": {
                **(settings if own.get("checkpoint_of") else {}),
                "sampling": {**_group(settings, "sampling"), setting: value},
            },
        }


def _group(section: JsonObject, key: str) -> JsonObject:
    group = section.get(key)
    return group if isinstance(group, dict) else {}
