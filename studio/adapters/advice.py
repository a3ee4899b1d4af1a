"""What an examination means, as sentences for a person."""

from collections import Counter
from statistics import median

from studio.adapters.block_map import BlockMap
from studio.adapters.examine import ALL, NEARLY_ALL, Examination

DEAD = 1e-4  # ‖delta‖ / ‖W‖ below which nothing is to be seen
STRONG = 0.25  # from here a block may break images,
OUTLIER = 3.0  # when it is also so many times the median block
ALIKE, AGAINST = 0.4, -0.2  # cosine of two adapters
CLEARLY = 0.75  # a rank below this share of the present one is worth a resize


def verdict(found: Examination) -> str:
    """The load report in one line."""
    fit = found.fit
    if found.facts["not_finite"]:
        return f"Damaged: numbers that are not finite in {found.facts['not_finite'][0]}. Use an earlier copy."
    if not fit.matched:
        made = f"for {found.facts['family']}" if found.facts["family"] else "for another base model"
        return f"Made {made}: none of its {fit.total} layers fits the loaded base, so it can't be used here."
    line = f"{fit.matched} of {fit.total} layers are applied"
    if len(fit.unused):
        line += f"; {len(fit.unused)} unused: " + ", ".join(
            f"{why} ({count})" for why, count in Counter(why for _, why in fit.unused).most_common(3)
        )
    return line + "."


def advice(found: Examination) -> list[str]:
    """One sentence for each thing worth knowing or doing; most important first."""
    return [*_where(found.where), *_others(found), *_rank(found)]


def _where(where: BlockMap | None) -> list[str]:
    if where is None:
        return []
    lines = []
    parts = {part: where.of_component(part) for part in where.components}
    changed = {part: cell.share for part, cell in parts.items() if cell.applied}
    if changed and max(changed.values()) < DEAD:
        return ["It changes no weight by more than a ten-thousandth: an image with it will be the base's own."]
    for part, share in changed.items():
        if share < DEAD:
            name = "text encoder" if part.startswith("text_encoder") else part
            lines.append(f"The {name} part is dead: its layers are in the file, but change nothing visible.")
    shares = {block: where.of_block(block).share for block in where.blocks if where.of_block(block).applied}
    usual = median(shares.values()) if shares else 0.0
    for block, share in sorted(shares.items(), key=lambda one: -one[1])[:3]:
        if share >= STRONG and share >= OUTLIER * usual and len(shares) > 2:
            lines.append(
                f"{block} is over-strong: its weights change by {100 * share:.0f} %, {share / usual:.0f} times the "
                f"median block. If images break, give that block less: {block} 0.5."
            )
    if usual >= STRONG:
        lines.append(f"All of it is strong: the median block changes by {100 * usual:.0f} %. Try strengths below 1.")
    return lines


def _others(found: Examination) -> list[str]:
    lines = []
    for name, cosine in found.overlaps.items():
        cosine = round(cosine, 2) or 0.0  # no −0.00
        if cosine >= ALIKE:
            lines.append(f"It pushes the same way as {name} (overlap {cosine:+.2f}): with both on, lower one of them.")
        elif cosine <= AGAINST:
            lines.append(f"It works against {name} (overlap {cosine:+.2f}): each undoes a part of the other.")
        else:
            lines.append(f"It hardly meets {name} (overlap {cosine:+.2f}): the two can be used together.")
    return lines


def _rank(found: Examination) -> list[str]:
    kept, ranks = found.kept.get(ALL, ()), [int(rank) for rank in found.facts["ranks"]]
    enough, rank = found.rank_for(), max(ranks, default=0)
    if not enough:
        return []
    share = 100 * kept[enough - 1]
    if found.facts["kind"] != "LoRA":
        return [f"As a plain LoRA it would need rank {enough} to keep {share:.1f} % of it."]
    if enough <= CLEARLY * rank:
        return [
            f"Rank {enough} keeps {share:.1f} % of it: resized from {rank}, the file is about {rank / enough:.1f} "
            "times smaller."
        ]
    return [f"It uses its rank: {100 * NEARLY_ALL:.0f} % of its energy takes {enough} of {rank} directions."]
