"""What of a recipe has no effect: syntax that is not read, and settings that its base does not take."""

from studio.generation.prompts import BREAK, parse, read_prompt


def recipe_problems(
    prompt: str,
    negative_prompt: str = "",
    *,
    guidance: float | None = None,
    clip_skip: int = 1,
    guidance_rescale: float = 0.0,
    title: str = "",
    weighted_prompts: bool = True,
    guidance_embedded: bool = False,
) -> list[str]:
    """A sentence each; [] where everything has its effect.

    title, weighted_prompts, guidance_embedded: of the base, as `basemodels.card.Card` has them. guidance: None where it
    is not known.
    """
    found, negative = read_prompt(prompt), read_prompt(negative_prompt, negative=True)
    problems = [*found.errors, *found.problems]
    problems += [f"Negative prompt: {line}" for line in (*negative.errors, *negative.problems)]
    if not weighted_prompts:
        parts = [part.weight for text in (found.text, negative.text) for part in parse(text)]
        if any(weight not in (1.0, BREAK) for weight in parts):
            problems.append(f"{title} has no attention weights: brackets like (word:1.3) have no effect.")
        if BREAK in parts:
            problems.append(f"{title} does not read prompts in chunks: BREAK has no effect.")
        if clip_skip > 1:
            problems.append(f"Clip skip has no effect on {title}.")
    if guidance_rescale and (guidance_embedded or guidance is not None and guidance <= 1):
        problems.append("CFG rescale has no effect without classifier-free guidance.")
    if negative.text.strip() and guidance_embedded:
        problems.append(f"{title} takes no negative prompt: it has no effect.")
    elif negative.text.strip() and guidance is not None and guidance <= 1:
        problems.append("The negative prompt has no effect at a guidance of 1 or less.")
    return list(dict.fromkeys(problems))
