"""What every section of the configuration is made of: kinds of values, and a mapping with known keys only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
COMMIT = r"^[0-9a-f]{40}$"
SHA256 = r"^[0-9a-f]{64}$"
ORCID = r"^https://orcid\.org/\d{4}-\d{4}-\d{4}-\d{3}[\dX]$"
SHARE = r"^\d+/\d+$"


def _number(value: object) -> object:
    """YAML reads ``5e-7`` (without a dot) as text: take it for the number that was meant."""
    if isinstance(value, bool):
        raise ValueError("a number is expected, not true or false")  # noqa: TRY004 - what pydantic expects
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        return float(value)
    return value


def _whole(value: object) -> object:
    value = _number(value)
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError("a whole number is expected")
        return int(value)
    return value


def none(value: object) -> object:
    """A profile's `config:` reaches us as text, null as "None"."""
    return None if value in ("None", "null", "") else value


Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Fraction = Annotated[float, BeforeValidator(_number), Field(ge=0, lt=1)]
NonNegative = Annotated[float, BeforeValidator(_number), Field(ge=0)]
Share = Annotated[float, BeforeValidator(_number), Field(gt=0, le=1)]
Whole = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
Name = Annotated[str, Field(pattern=NAME)]
Precision = Literal["float32", "bfloat16", "float16"]
Step = Literal["sft", "dpo", "reward"]
# Those of scripts/w2s/dpo.py, which must not import this file: each edit here would rerun its trainings.
Loss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "robust",
    "sigmoid_norm",
    "apo_zero",
    "apo_down",
    "nca_pair",
    "sppo_hard",
]
Site = Annotated[str | None, BeforeValidator(none)]


def exactly_one(section: BaseModel, *keys: str) -> None:
    """Refuse a section in which not exactly one of these keys is given."""
    given = [key for key in keys if getattr(section, key) is not None]
    if len(given) != 1:
        raise ValueError(
            f"exactly one of the keys {', '.join(keys)} is needed, got {', '.join(given) or 'none'}"
        )


class Section(BaseModel):
    """A mapping with known keys only."""

    model_config = ConfigDict(extra="forbid", strict=False, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: object) -> object:
        if not isinstance(value, Mapping | cls):
            raise ValueError(f"a mapping of keys is expected, not {value!r}")  # noqa: TRY004
        return value
