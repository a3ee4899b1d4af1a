"""Types of the operations' parameters: what each is, in what range, said once for every face."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, create_model

from studio.training.config import RunConfig

MOST_FILES = 20_000  # names in one list

Layout = Annotated[Literal["kohya", "diffusers"], Field(description="Whose names the layers get: kohya or diffusers.")]
Rank = Annotated[int, Field(ge=1, le=1024, description="The largest rank that a layer keeps.")]
DatasetName = Annotated[str, Field(max_length=255, description="Name of a dataset, as in the Dataset tab.")]
FileName = Annotated[str, Field(max_length=1024, description="Name of an image of the dataset.")]
Caption = Annotated[str, Field(max_length=20_000, description="The caption.")]
Trigger = Annotated[str, Field(max_length=200, description="Trigger word.")]
RunName = Annotated[str, Field(max_length=255, description="Name of a run.")]
AnyRun = Annotated[str, Field(max_length=255, description="Name of a run; empty: the current or newest one.")]
BaseName = Annotated[str, Field(max_length=1024, description="Base model: a name of list_bases.")]
Download = Annotated[bool, Field(description="Download the model where it is missing.")]
ImageName = Annotated[str, Field(max_length=255, description="Name of an image in the workspace's outputs.")]
Page = Annotated[int, Field(ge=0, le=1_000_000, description="Page, counted from 0.")]
Resolution = Annotated[int, Field(ge=16, le=4096, description="Side in pixels that will be trained at.")]
Places = Annotated[int, Field(ge=-10_000, le=10_000, description="Places further back; negative: forward.")]
Seeds = Annotated[int, Field(ge=1, le=8, description="How many seeds to measure with.")]


def _short(path: Path) -> Path:
    if len(path.name.encode()) > 255:
        raise ValueError("has a longer name than files have")
    return path


Upload = Annotated[Path, AfterValidator(_short)]


def _json(kind: type) -> BeforeValidator:
    def parsed(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value or ("[]" if kind is list else "{}"))
        except (ValueError, RecursionError):
            raise ValueError("is not JSON") from None

    return BeforeValidator(parsed)


Table = Annotated[dict[str, Any], _json(dict)]  # a JSON object, or its text
List = Annotated[list[Any], _json(list)]  # a JSON array, or its text
Files = Annotated[
    list[Annotated[str, Field(max_length=1024)]],
    _json(list),
    Field(max_length=MOST_FILES, description="Names of images of the dataset."),
]


def _of_run(key: str) -> tuple[Any, Any]:
    """(annotation, field) of one dotted setting of RunConfig, for a model of parameters; empty as the base has it."""
    model: Any = RunConfig
    for part in key.split("."):
        field = model.model_fields[part]
        model = field.annotation
    text = f"{field.description.rstrip('.')}. Empty: the base's."
    return Annotated[field.annotation, *field.metadata] | None, Field(None, description=text)


# The settings that a run is begun with. Every other one goes by `more`, under its dotted name.
RunSettings: type[BaseModel] = create_model(
    "RunSettings",
    steps=_of_run("training.steps"),
    rank=_of_run("adapter.rank"),
    learning_rate=_of_run("training.learning_rate"),
    prompts=(str, Field("", max_length=60_000, description="Preview prompts, one a line.")),
    more=(Table, Field({}, description='More settings of a run, such as {"training.batch_size": 4}.')),
)
