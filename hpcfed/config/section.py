"""What every section of a recipe is: a frozen pydantic model that knows its settings and refuses all others."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A section; the text below a setting says what it means (docs/SETTINGS.md is made of it)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and not _may_be_bool(cls.model_fields[str(info.field_name)].annotation):
            raise PydanticCustomError("bool", "true and false are no value for this setting")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _nothing_is_no_value(cls, value: Any, info: ValidationInfo) -> Any:
        """An empty text, as an unset variable of a shell gives it, would pass for a setting that is left out."""
        field = cls.model_fields[str(info.field_name)]
        if value == "" and field.default != "":
            cure = "it must have a value" if field.is_required() else "leave it out for its default"
            raise PydanticCustomError("empty", f"is empty; {cure}")
        return value


def _may_be_bool(annotation: Any) -> bool:
    return annotation is bool or any(_may_be_bool(part) for part in get_args(annotation))
