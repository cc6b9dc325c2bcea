"""What every section of a config file is, the values that fields hold, and their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from faithdiff.study.plain import JsonObject


def _one_line(text: str) -> str:
    if text.splitlines() != [text.strip()]:
        raise ValueError("must be a text on one line that neither is empty nor has spaces around")
    return text


Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Label = Annotated[str, AfterValidator(_one_line)]  # heads a row of a table
Group = Literal["lq_encoder", "alignment", "unet"]
Scale = Literal[1, 2, 4, 8]
Precision = Literal["fp32", "bf16", "fp16"]


def _kind(value: object) -> str:
    return "auto" if value == "auto" else "number"


# By a tag and not as a plain union, whose errors would name both kinds for each wrong number.
_Auto = Annotated[Literal["auto"], Tag("auto")]
PositiveOrAuto = Annotated[Annotated[Positive, Tag("number")] | _Auto, Discriminator(_kind)]
NaturalOrAuto = Annotated[Annotated[Natural, Tag("number")] | _Auto, Discriminator(_kind)]


# What a digest can be taken of: sections, plain values, and any nesting of the two.
Hashed: TypeAlias = (
    "BaseModel | Mapping[str, Hashed] | Sequence[Hashed] | str | int | float | bool | None"
)


class Section(BaseModel):
    """A part of a config file: immutable, closed to unknown keys and to infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def digest(*parts: Hashed) -> str:
    """Hash config sections (or any plain values): equal digests mean equal settings."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(section: BaseModel) -> JsonObject:
    return section.model_dump(mode="json")
