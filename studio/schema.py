"""What a pydantic schema says: one sentence for an error; names, ranges and defaults for forms, flags and tables.

Schemas of numbers that strangers send use `Integer` and `Number`, which take no text, no true or false and no NaN.
"""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

_WORDS = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "greater_than": "must be above {gt}",
    "less_than": "must be below {lt}",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "extra_forbidden": "is not a setting",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "holds a character that it can't have",
    "string_unicode": "holds half a character",
}


def explain(error: ValidationError) -> str:
    """The first complaint as "adapter.rank: must be at least 1 (you gave 0)"."""
    first = error.errors()[0]
    where = ".".join(repr(str(part))[1:-1][:60] for part in first["loc"])  # whoever gave it may have named it too
    words = _WORDS.get(first["type"])
    ctx = {key: f"{end:.10g}" if isinstance(end, float) else end for key, end in first.get("ctx", {}).items()}
    what = words.format(**ctx) if words else first["msg"].removeprefix("Value error, ")
    if not where:  # about several settings, which the words name themselves
        return f"{what}."
    if first["type"] in ("missing", "extra_forbidden"):
        return f"{where}: {what}."
    given = first["input"]
    if isinstance(given, str) and len(given) > 60:
        return f"{where}: {what} (you gave {len(given)})." if "characters" in what else f"{where}: {what}."
    shown = _shown(given)
    return f"{where}: {what} (you gave {shown})." if shown else f"{where}: {what}."


def _shown(value: object) -> str:
    """How it is written; "" when that is long, or can't be done."""
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list of lists without end
        return ""
    return shown if len(shown) <= 100 else ""


def _number_only(value: Any) -> Any:
    """Pydantic reads "20" and True as numbers; a recipe's numbers have to be numbers."""
    if isinstance(value, (str, bytes, bool)):
        raise PydanticCustomError("number_only", "must be a number")
    return value


Integer = Annotated[int, BeforeValidator(_number_only)]
Number = Annotated[float, BeforeValidator(_number_only), Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Setting:
    """One setting of a schema.

    name         dotted where it lies in a section: "adapter.rank"
    description  for people, without its range
    default      None where there is none; see `required`
    kind         its Python type: int, float, bool, str, list …
    low, high    the range, both ends included unless `low_open` or `high_open`; None where it is open-ended
    multiple_of  a number has to divide by this
    choices      what it can be, () where anything in the range will do
    optional     whether it can be None
    """

    name: str
    description: str
    default: Any
    kind: Any
    required: bool = False
    optional: bool = False
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    multiple_of: float | None = None
    choices: tuple[str, ...] = ()
    max_length: int | None = None

    @property
    def range_text(self) -> str:
        """ "1 to 200", "above 0, at most 10", "64 to 2048, a multiple of 8"; "" where there is no range."""
        low = "" if self.low is None else f"{self.low:,.10g}"
        high = "" if self.high is None else f"{self.high:,.10g}"
        if low and high and not (self.low_open or self.high_open):
            words = [f"{low} to {high}"]
        else:
            words = [f"{'above' if self.low_open else 'at least'} {low}"] if low else []
            words += [f"{'below' if self.high_open else 'at most'} {high}"] if high else []
        words += [f"a multiple of {self.multiple_of:g}"] if self.multiple_of else []
        return ", ".join(words)


def settings(model: type[BaseModel], start: str = "") -> Iterator[Setting]:
    """Every setting of a schema in its order, those of its sections behind the section's name."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings(kind, f"{start}{name}.")
        else:
            yield _setting(f"{start}{name}", field)


def setting(model: type[BaseModel], name: str) -> Setting:
    """The setting of that dotted name. Raises KeyError."""
    schema: Any = model
    *sections, last = name.split(".")
    for section in sections:
        schema = schema.model_fields[section].annotation
    return _setting(name, schema.model_fields[last])


def _setting(name: str, field: FieldInfo) -> Setting:
    union = get_origin(field.annotation) in (Union, types.UnionType)
    kinds = get_args(field.annotation) if union else (field.annotation,)
    kind = next(one for one in kinds if one is not type(None))
    rules: dict[str, Any] = {}
    for rule in _rules(field.metadata, kind):
        rules |= {key: value for key in _RULES if (value := getattr(rule, key, None)) is not None}
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return Setting(
        name,
        field.description or "",
        None if field.is_required() else field.get_default(call_default_factory=True),
        kind,
        field.is_required(),
        type(None) in kinds,
        rules.get("ge", rules.get("gt")),
        rules.get("le", rules.get("lt")),
        "gt" in rules,
        "lt" in rules,
        rules.get("multiple_of"),
        tuple(extra.get("enum", choices)),  # type: ignore[arg-type]
        rules.get("max_length"),
    )


_RULES = ("ge", "gt", "le", "lt", "multiple_of", "max_length")


def _rules(metadata: list[Any], kind: Any) -> Iterator[Any]:
    """The rules on a field, and those inside Annotated types that it is made of (`float | None` of a range)."""
    for rule in (*(get_args(kind)[1:] if get_origin(kind) is Annotated else ()), *metadata):
        yield from _rules(rule.metadata, None) if isinstance(rule, FieldInfo) else [rule]


def settings_of(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """(dotted name, default, description with its choices) of every setting, in the schema's order."""
    for one in settings(model):
        choices = f" One of {', '.join(one.choices)}." if one.choices else ""
        text = "…" if isinstance(one.default, list) else "" if one.default is None else str(one.default)
        yield one.name, text.lower() if isinstance(one.default, bool) else text, f"{one.description}{choices}"
