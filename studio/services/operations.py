"""Operations: functions of `services` that the page, the endpoints, MCP and the command line all call.

    @operation()
    def resize_adapter(workspace: Workspace, adapter: AdapterName, rank: Rank = 8) -> Job:
        '''Reduce an adapter to a smaller rank by SVD and save it next to the original.'''

Name, summary, parameters, ranges, defaults and permission are read from the function itself, so that each exists once:
`web/api.py` makes an endpoint (and MCP tool) of every operation, `cli/operations.py` a command, and the page's handlers
call the function. Every face, the page and Python included, goes through the same check of the arguments.

- The first parameter is the workspace. It comes from the request, never from the caller.
- Parameters before a `*` are public. Those behind it are for Python and the page: objects that JSON can't hold.
- `**fields: Expanded[Model]` stands for the fields of a pydantic model, each as a parameter of its own.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from studio.errors import ConfigError
from studio.schema import explain

Model = TypeVar("Model", bound=BaseModel)


class Expanded(Generic[Model]):
    """Annotation of `**fields`: each field of the pydantic model is a parameter of the operation."""


@dataclass(frozen=True)
class Operation:
    """What the faces need to know of one operation.

    fields    public parameters in order, as pydantic fields with annotation, description, range and default
    needs     the permission of `studio.server.permissions` that it takes, or ""
    device    whether it computes on the device, one call at a time
    waits     whether an endpoint answers the result of the job instead of the job
    upload    the parameter that takes uploaded files, or ""
    file      whether it answers a file: "image" or "download", or ""
    answer    what a caller outside Python gets, made of (workspace, the function's result)
    aliases   names that older programs call it by
    renamed   {parameter: what it is called under those older names}
    """

    name: str
    function: Callable[..., Any]
    summary: str
    fields: dict[str, FieldInfo]
    model: type[BaseModel]
    needs: str = ""
    device: bool = False
    waits: bool = False
    upload: str = ""
    file: str = ""
    answer: Callable[[Any, Any], Any] | None = None
    aliases: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, workspace: Any, *args: Any, **kwargs: Any) -> Any:
        """Check the arguments and run it. Raises StudioError."""
        return self.function(workspace, *args, **kwargs)

    def answered(self, workspace: Any, result: Any) -> Any:
        """The result as JSON holds it."""
        return plain(self.answer(workspace, result) if self.answer else result)


OPERATIONS: dict[str, Operation] = {}


def operation(
    *,
    needs: str = "",
    device: bool = False,
    waits: bool = False,
    upload: str = "",
    file: str = "",
    answer: Callable[[Any, Any], Any] | None = None,
    aliases: tuple[str, ...] = (),
    renamed: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of services as an operation; see `Operation` for what the arguments mean.

    The returned function checks its public arguments as the faces do and raises ConfigError in one sentence.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name, fields = function.__name__, _fields(function)
        model = create_model(
            name,
            __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False),
            **{key: (info.annotation, info) for key, info in fields.items()},  # type: ignore[call-overload]
        )
        private = {p.name for p in _parameters(function) if p.kind is p.KEYWORD_ONLY}
        if fields.keys() & {"model_config", "schema"} or name in OPERATIONS:
            raise ValueError(f"{name} can't be registered: its name or one of its parameters is taken.")

        @functools.wraps(function)
        def checked(workspace: Any, *args: Any, **kwargs: Any) -> Any:
            if len(args) > len(fields):
                raise TypeError(f"{name} takes at most {len(fields)} arguments")
            given = dict(zip(fields, args)) | {key: value for key, value in kwargs.items() if key not in private}
            hidden = {key: value for key, value in kwargs.items() if key in private}
            if needs:
                workspace.allows.need(needs)
            return function(workspace, **_validated(model, fields, given), **hidden)

        summary = inspect.cleandoc(function.__doc__ or "")
        OPERATIONS[name] = Operation(
            name, checked, summary, fields, model, needs, device, waits, upload, file, answer, aliases, renamed or {}
        )
        return checked

    return register


def all_operations() -> dict[str, Operation]:
    """Every operation by name. Importing the services registers theirs."""
    from studio.services import (  # noqa: F401
        adapter_files,
        adapters,
        base_models,
        caption_words,
        captioning,
        captions,
        checkpoints,
        datasets,
        evaluation,
        gallery,
        generation,
        grids,
        influence,
        masks,
        planning,
        preview_lines,
        publishing,
        reruns,
        run_data,
        run_library,
        run_queue,
        runs,
        scorecards,
        system,
        uncooking,
    )

    return OPERATIONS


def plain(value: Any) -> Any:
    """A value as JSON holds it: jobs by their state, dataclasses and models as tables, paths by their names alone."""
    if hasattr(value, "as_answer"):
        return value.as_answer()
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    return value.name if isinstance(value, Path) else value


def _validated(model: type[BaseModel], fields: dict[str, FieldInfo], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments as the function takes them. Empty ones are left to their defaults, as in a form."""
    values = {
        key: value
        for key, value in given.items()
        if key not in fields or fields[key].is_required() or not _is_empty(value, fields[key])
    }
    try:
        checked = model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    return {key: getattr(checked, key) for key in fields}


def _is_empty(value: Any, field: FieldInfo) -> bool:
    return value is None or (isinstance(value, str) and value == "" and field.annotation is not str)


def _parameters(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """All but the workspace."""
    signature = inspect.signature(function)
    return iter(list(signature.parameters.values())[1:])


def _fields(function: Callable[..., Any]) -> dict[str, FieldInfo]:
    """The public parameters as pydantic fields."""
    found: dict[str, FieldInfo] = {}
    for parameter in _parameters(function):
        if parameter.kind is parameter.VAR_KEYWORD:
            (model,) = typing.get_args(parameter.annotation)
            found |= {name: info for name, info in model.model_fields.items() if name not in found}
        elif parameter.kind is not parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                found[parameter.name] = FieldInfo.from_annotation(parameter.annotation)
            else:
                found[parameter.name] = FieldInfo.from_annotated_attribute(parameter.annotation, parameter.default)
            if not found[parameter.name].description:
                raise ValueError(f"{function.__name__}: {parameter.name} has no description.")
    return found
