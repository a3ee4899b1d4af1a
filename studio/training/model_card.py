"""The model card of an adapter: README.md as the Hugging Face Hub reads it."""

from html import escape
from typing import Any

from studio.hub import is_hub_id
from studio.training.config import RunConfig, config_from, dotted
from studio.training.preview_prompts import prompt_and_strength
from studio.training.publication import Publication
from studio.training.reading import RunView

ALWAYS = (
    "training.steps",
    "training.batch_size",
    "training.learning_rate",
    "training.optimizer",
    "training.schedule",
    "training.seed",
    "adapter.kind",
    "adapter.rank",
    "adapter.targets",
)
KINDS = {
    "lora": "LoRA",
    "dora": "DoRA",
    "tucker": "LoRA with a Tucker core",
    "loha": "LoHa",
    "lokr": "LoKr",
    "oft": "OFT",
    "oftv2": "OFT (PEFT's)",
}
DRAWN_ELSEWHERE = ("lora", "tucker")  # kinds that diffusers loads


def model_card(
    view: RunView,
    config: RunConfig,
    wanted: Publication,
    images: list[tuple[int, str, str]],
    before: dict[str, str],
) -> str:
    """The whole text. config: without paths; images: (step, prompt, file); before: {prompt: the base's image}."""
    from huggingface_hub import ModelCardData

    newest = {prompt: (step, file) for step, prompt, file in images}
    facts: dict[str, Any] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "lora", "lora-studio"],
        "widget": [
            {"text": prompt, "output": {"url": file}}
            for prompt, (_, file) in newest.items()
            if prompt_and_strength(prompt)[1] == 1
        ],
    }
    if wanted.licence:
        facts["license"] = wanted.licence
    if is_hub_id(config.base):
        facts |= {"base_model": config.base, "base_model_relation": "adapter"}
    if wanted.triggers:
        facts["instance_prompt"] = ", ".join(wanted.triggers)
    if not facts["widget"]:
        del facts["widget"]
    parts = [f"---\n{ModelCardData(**facts).to_yaml()}\n---", f"# {_plain(view.name)}"]
    if wanted.about.strip():
        parts.append(wanted.about.strip())
    parts.append(_about(view, config))
    if view.verdict:
        parts.append(f"**Verdict**: {_plain(view.verdict.sentence)}")
    if wanted.triggers:
        words = ", ".join(f"`{_code(word)}`" for word in wanted.triggers)
        parts.append(f"## Trigger words\n\nUse {words} in the prompt to call what was learned.")
    parts.append(_images(newest, before))
    parts.append(_use(view.name, config, wanted))
    parts.append(_settings(config))
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(view: RunView, config: RunConfig) -> str:
    base = "the starter model of LoRA Studio" if config.base == "starter" else f"`{_code(config.base)}`"
    kind, rank = KINDS[config.adapter.kind], config.adapter.rank
    sentence = f"{kind} of rank {rank} for {base}, trained for {view.step:,} steps."
    measured = [one for one in view.validations if one.step and one.base_loss]
    if not measured:
        return sentence
    best = min(measured, key=lambda one: one.loss)
    change = f"{100 * (best.loss / best.base_loss - 1):+.0f} %".replace("-", "−")
    return (
        f"{sentence} On held-out images its loss is {best.loss:.4f}, the base model's {best.base_loss:.4f} ({change}), "
        "at the same noise and timesteps."
    )


def _images(newest: dict[str, tuple[int, str]], before: dict[str, str]) -> str:
    if not newest:
        return ""
    rows = ["| prompt | base model | with the adapter |", "| --- | --- | --- |"]
    for prompt, (step, file) in newest.items():
        first = f"![]({before[prompt]})" if prompt in before and before[prompt] != file else ""
        rows.append(f"| {_plain(prompt)} | {first} | ![]({file}) step {step:,} |")
    return "## Previews\n\nThe same seed in both columns.\n\n" + "\n".join(rows)


def _use(name: str, config: RunConfig, wanted: Publication) -> str:
    if config.adapter.kind not in DRAWN_ELSEWHERE or not is_hub_id(config.base):
        return f"## Use\n\nDrop `{_code(name)}.safetensors` into LoRA Studio, or another program that reads such files."
    where = wanted.repo or "owner/name"
    return (
        "## Use\n\n```python\nfrom diffusers import DiffusionPipeline\n\n"
        f"pipeline = DiffusionPipeline.from_pretrained({config.base!r})\n"
        f"pipeline.load_lora_weights({where!r}, weight_name={name + '.safetensors'!r})\n```"
    )


def _settings(config: RunConfig) -> str:
    usual = dotted(config_from({"data.folder": "x"}))
    rows = [
        (key, value)
        for key, value in dotted(config).items()
        if (key in ALWAYS or value != usual[key]) and key not in ("name", "preview.prompts") and value not in ("", None)
    ]
    lines = "\n".join(f"| {key} | {_plain(str(value))} |" for key, value in rows)
    return f"## Settings\n\nAll of them are in `run.toml`.\n\n| setting | value |\n| --- | --- |\n{lines}"


def _plain(text: str) -> str:
    """A person's text in a line of Markdown: no HTML, no cell of a table, no image or link of its own."""
    text = escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#!" else letter for letter in text)


def _code(text: str) -> str:
    """The same between backticks."""
    return " ".join(text.split()).replace("`", "'").replace("|", "/")
