"""What sections of settings are made of: their base class, their kinds of values, errors about several together."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from fundus_seg.errors import UsageError
from fundus_seg.plugins import FORM, parts_of

TOGETHER = "settings_together"
"""Type of the pydantic errors about settings that are valid alone but not together; `ctx` names them."""

Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A frozen group of settings; unknown ones are refused, and so are texts that look like numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def one_of(kind: str, builtin: Collection[str], parts: Collection[str] = ()) -> tuple[AfterValidator, FieldInfo]:
    """Accepts a name of `builtin`, several of `parts`, or the form package.module:factory, which is not imported here.

    Parts are joined by `+`; whatever their order, the value has them in the order of `parts`.
    """
    return words([*builtin, FORM], lambda name: parts_of(kind, name, builtin, parts))


def words(shown: Collection[str], split: Callable[[str], Collection[str]]) -> tuple[AfterValidator, FieldInfo]:
    """Accepts words joined by `+`, and writes them as `split` orders them: "none" where it gives none.

    Args:
        shown: the words that the help shows.
        split: gives the words of a value.
    """

    def check(name: str) -> str:
        try:
            return "+".join(split(name)) or "none"
        except UsageError as error:
            raise ValueError(str(error)) from error

    return AfterValidator(check), Field(json_schema_extra={"enum": [*shown]})


def together(message: str, *settings: str) -> PydanticCustomError:
    """The error of settings that are valid alone but not together, by their dotted names."""
    return PydanticCustomError(TOGETHER, "{message}", {"message": message, "settings": settings})
