"""How 0.1 was called: what make.py records the answers to, and the tests call again.

A call is an endpoint, its arguments by name, and what else there is to know of it:

    until    states; it is called until it answers one of them
    pick     {name: [key, value, other key]}: the same for a part of it, where one of its tables has that value
    keep     a name for its answer, which later arguments may use as "@NAME@"
    maps     places in the answer whose tables have data for keys
    full     whether it takes seconds, so that only the full tests make it
    starter  whether it may be refused, in one line, once the starter's weights are others
"""

from typing import Any

RECIPE = {
    "prompt": "zsk, a disc", "negative": "a square", "seed": 3, "steps": 1, "guidance": 3.0, "width": 64, "height": 64,
    "adapters": [{"run": "finished", "strength": 0.5, "text_strength": 0.5, "start": 0.1, "end": 0.9,
                  "blocks": "down.1 0.5"}],
    "more": {"base": "sd1", "scheduler": "Euler", "clip_skip": 2},
}  # fmt: skip
TINY = {
    "base": "sd1", "training.batch_size": 1, "training.warmup": 0, "data.resolution": 64, "preview.every": 0,
    "adapter.targets": "attention", "validation.every": 0,
}  # fmt: skip
RUN = {"dataset": "plain", "steps": 1, "rank": 1, "learning_rate": "1e-3", "prompts": "a disc", "more": TINY}
LONG = RUN | {"steps": 100_000, "more": TINY | {"training.checkpoint_every": 100_000}}


def call(endpoint: str, about: dict[str, Any] | None = None, /, **arguments: Any) -> dict[str, Any]:
    return {"endpoint": endpoint, "arguments": arguments} | (about or {})


WAIT = call("job_status", {"until": ["done"]})

CHECKED = {"maps": ["details"], "pick": {"number": ["kind", "trigger absent", "number"]}}

DATASETS = [
    call("list_datasets"),
    call("open_dataset", dataset="shapes"),
    call("dataset_history", dataset="shapes"),
    call("redo", dataset="shapes"),
    call("undo", dataset="shapes"),
    call("import_pictures", files=["@new.png@"], name="shapes"),
    call("save_caption", dataset="shapes", file="new.png", caption="zsk, new"),
    call("list_captioners", {"maps": [""]}),
    call("caption_dataset", dataset="plain", trigger="", overwrite=False, captioner="starter", mode="skip",
         settings={}, download=False),
    WAIT,
    call("stop_captioning"),
    call("check_dataset", CHECKED, dataset="shapes", resolution=64, trigger="other"),
    call("mend_dataset", dataset="shapes", number="@number@", remedy="put the trigger in front"),
    call("score_captions", dataset="plain", trigger=""),
    call("edit_captions", dataset="shapes", operation="add tag", first="round", second="", filter={"has": "zsk"},
         write=False),
    call("edit_captions", dataset="shapes", operation="add tag", first="round", second="", filter={}, write=True),
    call("remove_pictures", dataset="shapes", files=["new.png"]),
    call("export_dataset", dataset="shapes", background="white"),
    call("trigger_report", word="zsk"),
]  # fmt: skip
RUNS = [
    call("list_bases"),
    call("add_base", place="~/bases/sd1"),
    call("list_presets", {"maps": ["", "*"]}, base="sd1"),
    call("list_runs"),
    call("run_status", run="finished"),
    call("run_status", run="paused"),
    call("list_queue"),
    call("resume_training", run="paused"),
    call("run_status", {"until": ["finished"]}, run="paused"),
    call("extend_training", run="finished", steps=1),
    call("run_status", {"until": ["finished"]}, run="finished"),
    call("check_settings", **RUN),
    WAIT,
    call("check_report", {"maps": ["proposal"]}),
    call("start_training", name="long", **LONG),
    call("queue_training", name="third-in-line", **RUN),
    call("pause_training"),
    call("run_status", {"until": ["paused"]}, run="long"),
    call("stop_training"),
    call("run_status", {"until": ["stopped"]}, run="long"),
    call("leave_queue", run="first-in-line"),
    call("start_queue"),
    call("run_status", {"until": ["finished"]}, run="third-in-line"),
    call("compare_runs", {"maps": ["differences", "losses"]}, runs=["finished", "paused"]),
    call("note_run", run="stopped", note="No good."),
    call("delete_run", {"keep": "thrown"}, run="long"),
    call("restore_run", key="@thrown@"),
    call("publish_run", run="finished", repo="someone/shapes", licence="mit", triggers="zsk", about="Shapes.",
         private=True, send=False, token=""),
    WAIT,
    call("publish_result"),
    call("doctor"),
]  # fmt: skip
PICTURES = [
    call("list_adapters"),
    call("add_adapter", file="@adapter@"),
    call("inspect_adapter", adapter={"run": "finished"}),
    call("convert_adapter", {"starter": True}, adapter={"run": "on-starter"}, layout="diffusers"),
    call("job_status", {"until": ["done"], "starter": True}),
    call("resize_adapter", {"starter": True}, adapter={"run": "on-starter"}, rank=1),
    call("job_status", {"until": ["done"], "starter": True}),
    call("export_adapters", name="again", layout="kohya",
         **RECIPE | {"adapters": [{"run": "finished", "strength": 0.5}]}),
    WAIT,
    call("generate", **RECIPE),
    call("draw_grid", {"keep": "grid"}, axes=[{"kind": "strength", "which": "finished", "text": "0, 1"}], **RECIPE),
    WAIT,
    call("grid_result", name="@grid@"),
    call("measured"),
    call("measure_adapter", {"starter": True}, adapter={"run": "on-starter"}, against="plain", seeds=1,
         **RECIPE | {"adapters": [{"run": "on-starter"}], "more": {}}),
    call("job_status", {"until": ["done"], "starter": True}),
    call("measured"),
    call("list_pictures", words="zsk", page=0),
    call("picture_recipe", picture="zsk--every-field-11.png"),
    call("restore_picture", {"keep": "picture"}),
    call("delete_picture", picture="@picture@"),
]  # fmt: skip
CALLS = DATASETS + RUNS + PICTURES
LONG_ONES = {
    "caption_dataset", "stop_captioning", "score_captions", "resume_training", "extend_training", "check_settings",
    "check_report", "start_training", "queue_training", "pause_training", "stop_training", "start_queue", "delete_run",
    "restore_run", "publish_run", "publish_result", "convert_adapter", "resize_adapter", "export_adapters",
    "draw_grid", "grid_result", "measure_adapter", "job_status",
}  # fmt: skip
for one in CALLS:
    if one["endpoint"] in LONG_ONES or "until" in one:
        one["full"] = True

# Command lines that end well; between them they have every flag of 0.1. FOLDER is the fixture's root.
FINISHED, DROPPED = "@ROOT@/workspace/runs/finished/adapter.safetensors", "@ROOT@/workspace/adapters/baked.safetensors"
PLAIN = "@ROOT@/workspace/datasets/plain"
QUICK = [text for key, value in TINY.items() if key != "base" for text in ("--set", f"{key}={value}")]
QUICK += ["--set", "training.steps=1", "--set", "adapter.rank=1"]
COMMANDS = [
    ["--version"],
    ["train", "--settings"],
    ["train", "--data", PLAIN, "--base", "~/bases/sd1", "--name", "checked", "--preset", "SD 1.5, object", *QUICK,
     "--check"],
    ["train", "--data", PLAIN, "--base", "~/bases/sd1", "--name", "by-command", *QUICK],
    ["train", "@ROOT@/workspace/runs/second-in-line/run.toml", "--name", "by-toml"],
    ["train", "--resume", "@ROOT@/workspace/runs/stopped", "--set", "training.steps=@more@"],
    ["generate", "--prompt", "zsk", "--negative-prompt", "x", "--base", "~/bases/sd1", "--adapter", f"{FINISHED}:0.5",
     "--adapter", "finished", "--seed", "2", "--steps", "1", "--guidance", "2", "--size", "64x72", "--out",
     "@ROOT@/out.png"],
    ["base", "~/bases/sd1", "--json", "--download", "--token", "x"],
    ["caption", "--captioners", "--captioner", "blip", "--set", "batch_size=2", "--download"],
    ["caption", PLAIN, "--captioner", "starter", "--trigger", "zsk", "--overwrite"],
    ["caption", PLAIN, "--mode", "refresh"],
    ["inspect", FINISHED, "--base", "~/bases/sd1", "--beside", "finished", "--json"],
    ["convert", FINISHED, "@ROOT@/converted.safetensors", "--layout", "kohya", "--base", "~/bases/sd1"],
    ["resize", FINISHED, "@ROOT@/resized.safetensors", "--rank", "1"],
    ["merge", f"{FINISHED}:0.5", "finished", "@ROOT@/merged.safetensors", "--rank", "1"],
    ["doctor", "--json"],
]  # fmt: skip
