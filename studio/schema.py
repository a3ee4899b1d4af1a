"""What a pydantic schema says, in words: one sentence for an error, a table of settings for help."""

from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

_WORDS = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "greater_than": "must be above {gt}",
    "less_than": "must be below {lt}",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be an ordinary number",
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
    what = words.format(**first.get("ctx", {})) if words else first["msg"].removeprefix("Value error, ")
    if not where:  # about several settings, which the words name themselves
        return f"{what}."
    if first["type"] in ("missing", "extra_forbidden"):
        return f"{where}: {what}."
    given = first["input"]
    if isinstance(given, str) and len(given) > 60:
        return f"{where}: {what} (you gave {len(given)})." if "characters" in what else f"{where}: {what}."
    said = _said(given)
    return f"{where}: {what} (you gave {said})." if said else f"{where}: {what}."


def _said(value: object) -> str:
    """How it is written; "" when that is long, or can't be done."""
    try:
        said = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list of lists without end
        return ""
    return said if len(said) <= 100 else ""


def settings_of(model: type[BaseModel], start: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted name, default, description with its choices) of every setting, in the schema's order."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings_of(kind, f"{start}{name}.")
            continue
        choices = f" One of {', '.join(get_args(kind))}." if get_origin(kind) is Literal else ""
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        text = "…" if isinstance(default, list) else "" if default is None else str(default)
        text = text.lower() if isinstance(default, bool) else text
        yield f"{start}{name}", text, f"{field.description or ''}{choices}"
