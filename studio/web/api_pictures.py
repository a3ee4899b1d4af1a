"""Named endpoints about pictures and adapters. See api.py."""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import GenerationError
from studio.services import adapter_files, evaluation, gallery, generation, grids
from studio.services import adapters as actions_adapters
from studio.services.base_models import DEFAULT_SIZE
from studio.services.generation import draw, recipe_line
from studio.services.jobs import latest
from studio.web.components.fields import setting
from studio.web.endpoint import endpoint, job_facts, json_of
from studio.workspace import Workspace

EXAMPLE = '[{"run": NAME, "strength": 0.8}, {"file": NAME, "strength": 0.5, "start": 0.2}]'
AXES = '[{"kind": "strength", "text": "0, 0.5, 1"}, {"kind": "seed", "text": "1-3"}]'


def picture_endpoints(workspace: Workspace) -> None:
    """Add them to the page being built."""

    def composed(prompt, negative, seed, steps, guidance, width, height, adapters, more):
        """A Recipe of an endpoint's inputs. Raises StudioError."""
        fields = json_of(more, dict, "more") | {"prompt": prompt, "negative_prompt": negative or "", "seed": seed}
        fields |= {"steps": steps, "guidance": guidance, "width": width, "height": height}
        for key in ("source", "mask", "adapters"):  # files of this machine are never named from outside
            fields.pop(key, None)
        uses = [_use(workspace, entry) for entry in json_of(adapters, list, "adapters")]
        return generation.compose(workspace, uses, **fields)

    def add_adapter(file):
        """Check an adapter file and keep it in the workspace. Answers the name to give to generate."""
        if not file:
            raise GenerationError("There is no file to add: give one .safetensors file.")
        return adapter_files.add_adapter_file(workspace, Path(file)).partition(":")[2]

    def list_adapters():
        """What can be put on a picture: {"run": NAME} or {"file": NAME} each."""
        return [
            {kind: name} for kind, _, name in (key.partition(":") for _, key in adapter_files.list_adapters(workspace))
        ]

    def generate(prompt, negative, seed, steps, guidance, width, height, adapters, more):
        """Draw one picture and save it in the workspace. Answers the picture and its recipe."""
        from studio.generation import save_image

        recipe = composed(prompt, negative, seed, steps, guidance, width, height, adapters, more)
        image = draw(recipe.model_copy(update={"count": 1}))
        return str(save_image(image, recipe, workspace.outputs)), recipe_line(recipe)

    def draw_grid(axes, prompt, negative, seed, steps, guidance, width, height, adapters, more):
        """Draw a grid in the background: see job_status, then grid_result. Answers the grid's name."""
        recipe = composed(prompt, negative, seed, steps, guidance, width, height, adapters, more)
        typed = [_axis(entry) for entry in json_of(axes, list, "axes")]
        grids.start_grid(workspace, recipe, grids.axes_of(workspace, recipe, typed))
        return latest["grid"].name

    def grid_result(name):
        """The sheet of a grid, of the newest one if no name is given."""
        grid = grids.grid_named(workspace, name) if name else grids.newest(workspace)
        if grid is None or not grid.sheet.is_file():
            raise GenerationError("There is no sheet yet: draw a grid, and wait until it is done.")
        return str(grid.sheet)

    def inspect_adapter(adapter):
        """What is in an adapter: kind, rank, layers, family, trigger words, and how many layers fit the starter."""
        from studio.basemodels import load_base
        from studio.generation.adapter_info import read_adapter_info

        facts = read_adapter_info(adapter_files.adapter_path(workspace, _key(adapter)), load_base().modules())
        return asdict(facts) | {"line": facts.line}

    def convert_adapter(adapter, layout):
        """Write the adapter in another layout, "kohya" or "diffusers", in the background. Answers the job."""
        return job_facts(actions_adapters.convert(workspace, _key(adapter), layout, "starter", None))

    def resize_adapter(adapter, rank):
        """Write the adapter at a smaller rank, in the background. Answers the job."""
        return job_facts(actions_adapters.resize(workspace, _key(adapter), rank, "starter", None))

    def export_adapters(name, layout, prompt, negative, seed, steps, guidance, width, height, adapters, more):
        """Bake the adapters with their strengths into one new file, in the background. Answers the job."""
        recipe = composed(prompt, negative, seed, steps, guidance, width, height, adapters, more)
        return job_facts(actions_adapters.export(workspace, recipe, name or "", layout, None, ""))

    def measure_adapter(
        adapter, against, seeds, prompt, negative, seed, steps, guidance, width, height, adapters, more
    ):
        """Measure the adapter over strengths in the background: see job_status, then measured."""
        wanted = f"{evaluation.SET}{against}" if against else evaluation.OWN
        recipe = composed(prompt, negative, seed, steps, guidance, width, height, adapters, more)
        return job_facts(evaluation.start_measuring(workspace, recipe, _key(adapter), wanted, int(seeds or 0)))

    def measured():
        """What was measured last: a row for each strength, and the range that is suggested."""
        found = evaluation.newest(workspace)
        return _plain(asdict(found)) if found else {}

    def list_pictures(words, page):
        """Pictures of the workspace, newest first, 48 a page; words are looked for in their recipes."""
        found = gallery.find(workspace, words or "", int(page or 0))
        return _plain(asdict(found))

    def picture_recipe(picture):
        """The recipe inside one of the workspace's pictures, with its adapters."""
        path = grids.picture_path(workspace, picture)
        values, adapters, problems = generation.restored(workspace, path)
        for key in ("source", "mask"):
            values.pop(key, None)
        return _plain({"recipe": values, "adapters": adapters, "problems": problems})

    def delete_picture(picture):
        """Put one of the workspace's pictures aside; restore_picture brings the last one back."""
        gallery.remove(workspace, picture)
        return True

    def restore_picture():
        """Bring back the picture that was deleted last. Answers its name."""
        return gallery.put_back(workspace)

    with gr.Column(visible=False):
        answer = gr.JSON(label="answer")
        text = gr.Textbox(label="answer")
        yes = gr.Checkbox(label="whether it was done")
        picture = gr.Image(label="picture", type="filepath", format="png")
        whole = {"precision": 0}
        adapter = gr.JSON(label='adapter: {"run": NAME} or {"file": NAME}', value={})
        recipe = [
            gr.Textbox(label="prompt", value=""),
            gr.Textbox(label="negative prompt", value=""),
            gr.Number(label="seed", value=0, **whole),
            gr.Number(label="steps", value=setting("preview.steps").default, **whole),
            gr.Number(label="guidance", value=setting("preview.guidance").default),
            gr.Number(label="width in pixels", value=DEFAULT_SIZE, **whole),
            gr.Number(label="height in pixels", value=DEFAULT_SIZE, **whole),
            gr.JSON(label=f"adapters: {EXAMPLE}", value=[]),
            gr.JSON(label='more, such as {"scheduler": "DPM++ 2M Karras", "clip_skip": 2, "base": NAME}', value={}),
        ]
        axes = gr.JSON(label=f"axes, one to three: {AXES}", value=[])
        name = gr.Textbox(label="name", value="")
        layout = gr.Textbox(label="layout: kohya or diffusers", value="kohya")
        endpoint(add_adapter, [gr.File(label="file: one .safetensors")], text)
        endpoint(list_adapters, [], answer)
        endpoint(inspect_adapter, [adapter], answer)
        endpoint(convert_adapter, [adapter, layout], answer)
        endpoint(resize_adapter, [adapter, gr.Number(label="rank", value=8, **whole)], answer)
        endpoint(export_adapters, [name, layout, *recipe], answer)
        endpoint(generate, recipe, [picture, gr.Textbox(label="recipe")], concurrency_id="device")
        endpoint(draw_grid, [axes, *recipe], text)
        endpoint(grid_result, [name], gr.Image(label="sheet", type="filepath", format="png"))
        against = gr.Textbox(label="dataset to compare with; empty: the one it was trained on", value="")
        endpoint(measure_adapter, [adapter, against, gr.Number(label="seeds", value=3, **whole), *recipe], answer)
        endpoint(measured, [], answer)
        endpoint(
            list_pictures, [gr.Textbox(label="words", value=""), gr.Number(label="page", value=0, **whole)], answer
        )
        which = gr.Textbox(label="picture: a name", value="")
        endpoint(picture_recipe, [which], answer)
        endpoint(delete_picture, [which], yes)
        endpoint(restore_picture, [], text)


def _key(entry: Any) -> str:
    """ "run:NAME" or "file:NAME" of {"run": NAME} or {"file": NAME}."""
    for kind in ("run", "file"):
        if isinstance(entry, dict) and isinstance(entry.get(kind), str):
            return f"{kind}:{entry[kind]}"
    raise GenerationError('Each adapter must be {"run": NAME} or {"file": NAME}, and may have a "strength".')


def _use(workspace: Workspace, entry: Any) -> dict[str, Any]:
    key, fields = _key(entry), ("strength", "text_strength", "start", "end", "blocks")
    return generation.use_of(workspace, key, **{name: entry[name] for name in fields if name in entry})


def _axis(entry: Any) -> grids.Typed:
    if not isinstance(entry, dict):
        raise GenerationError(f"Each axis must be a table, as in {AXES}.")
    picks = entry.get("adapters") or entry.get("picks") or []
    with suppress(GenerationError):
        picks = [_key(pick) for pick in picks]
    return grids.Typed(
        str(entry.get("kind", "")), str(entry.get("which", "")), str(entry.get("text", "")), tuple(map(str, picks))
    )


def _plain(value: Any) -> Any:
    """For JSON: paths by their names alone."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value.name if isinstance(value, Path) else value
