"""Recipes: short YAML files of departures from a program's defaults."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from hangtag.errors import RecipeError


class Recipe(BaseModel):
    """Base of every program's settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


R = TypeVar("R", bound=BaseModel)


def load_recipe(path: str | Path | None, model: type[R], overrides: dict[str, Any] | None = None) -> R:
    """Return the recipe in a YAML file, checked against `model`; `overrides` that are not None win.

    `path` None stands for an empty file: the defaults.

    Raises:
        RecipeError: the file is missing or not YAML, a key is unknown (the nearest valid one is named), or a
            value is refused.
    """
    source = str(path) if path else "options"
    values: Any = {}
    if path is not None:
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise RecipeError(f"{source}: {error.strerror or error}; expected a YAML recipe") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(f"{source}: not YAML ({str(error).splitlines()[0]})") from None
        if not isinstance(values, dict):
            raise RecipeError(f"{source}: got {type(values).__name__}, expected `key: value` lines")
    values |= {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_explain(error, model)}") from None


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    problem = error.errors()[0]
    # Of a union pydantic names the member as well, as in order.literal['facet','free'].
    path = (str(part) for part in problem["loc"])
    field = ".".join(part for part in path if not part.startswith(("literal[", "list[")))
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key `{field}`; {hint}"
    if problem["type"] == "missing":
        return f"`{field}` is missing; it has no default"
    got = "" if not field else f" (got {problem['input']!r:.60})"
    return f"`{field or 'recipe'}`: {problem['msg']}{got}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        inner = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
