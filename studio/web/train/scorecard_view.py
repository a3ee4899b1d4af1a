"""The verdict on a run and its scorecards as HTML, and where its remedy leads. All text is escaped here."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from studio.text import duration, percent
from studio.web.components.clickable import image_link

VIEWS = {  # the id of a sub-tab of Dataset, and what the button is called
    "dataset:edit": ("many", "Bulk edit"),
    "dataset:images": ("images", "Images"),
    "dataset:check": ("check", "Check"),
}
GOOD = ("learned", "partly learned", "learning")
BAD = ("over-fitting", "overfitting", "nothing learned", "broken", "collapsed", "memorized", "captions")

# A setting may lie in a closed group, which its panel knows; a tab is found by its id, whatever the page's language.
GO_JS = """
const tab = (tabs, id) => document.querySelector(`#${tabs} button[role=tab][data-tab-id=${id}]`);
element.addEventListener('click', event => {
  const hit = event.target.closest('button[data-go]');
  if (!hit) return;
  const [kind, name] = hit.dataset.go.split('|');
  if (kind === 'view') {
    tab('tabs', 'dataset')?.click();
    setTimeout(() => tab('dataset-tabs', name)?.click(), 300);
    return;
  }
  window.studioSettings?.show(name);
});
"""


def kind_of(word: str) -> str:
    """The class of a pill: good, bad or neither."""
    return "good" if word in GOOD else "bad" if word in BAD else "quiet-pill"


def pill(word: str) -> str:
    """A verdict in its colour; "" for none."""
    return f' <span class="pill {kind_of(word)}">{escape(word)}</span>' if word else ""


def sentence_html(text: str) -> str:
    """A sentence that is not broken between a number and its %."""
    return escape(text).replace(" %", "\u00a0%")


def scorecard(
    view: Any, labels: Mapping[str, str], link: Callable[[Path], str] = image_link, folder: Any = None
) -> str:
    """The verdict as a sentence with its remedy, and closed below it the scorecards. "" before a measurement.

    view: a RunView. labels: of the settings. folder: of the run, for the contact sheets.
    """
    found, over = view.verdict, view.state not in ("running", "paused", "queued")
    if found is None or (not over and not view.scores):
        return ""
    head = "Verdict" if over else "Verdict so far"
    remedy = (
        f'<div class="note">{escape(found.remedy)} {remedy_button(found.link, labels)}</div>' if found.remedy else ""
    )
    return (
        f'<section class="finding verdict"><header><b>{head}</b>{pill(found.outcome)}</header>'
        f'<p class="sentence">{sentence_html(found.sentence)}</p>{remedy}{_cards(view, link, folder)}</section>'
    )


def remedy_button(target: str, labels: Mapping[str, str]) -> str:
    """What leads to the setting or view that a remedy means; "" for none."""
    if target in VIEWS:
        name, title = VIEWS[target]
        go = f"view|{name}"
    elif target in labels:
        title, go = labels[target], f"setting|{target.replace('.', '-')}"
    else:
        return ""
    return f'<button type="button" class="link" data-go="{escape(go)}">{escape(title)} →</button>'


def _cards(view: Any, link: Callable[[Path], str], folder: Any) -> str:
    if not view.scores:
        return ""
    sheets = [(one.step, folder / one.sheet) for one in view.scores if one.sheet and folder]
    images = "".join(
        f'<figure><img src="{escape(link(file))}" alt="Scorecard of step {step:,}" loading="lazy">'
        f"<figcaption>step {step:,}</figcaption></figure>"
        for step, file in sheets[-3:]
        if file.is_file()
    )
    strengths: dict[float, float] = next((one.strengths for one in reversed(view.scores) if one.strengths), {})
    found = ", ".join(f"{strength:g}: {percent(loss - 1)}" for strength, loss in strengths.items())
    line = (
        f'<div class="note small">Held-out loss against the base by strength: {escape(found)}.</div>' if found else ""
    )
    return (
        f'<details class="cards"><summary>Scorecard</summary>{_table(view.scores)}{line}{_cost(view)}'
        f'<div class="sheets">{images}</div></details>'
    )


def _table(scores: Sequence[Any]) -> str:
    from studio.training.scorecard.scores import MEASURES

    head = "".join(f"<th>step {one.step:,}</th>" for one in scores)
    rows = ""
    for name, (title, about) in MEASURES.items():
        if any(one.get(name) for one in scores):
            cells = "".join(f"<td>{_cell(name, one.get(name))}</td>" for one in scores)
            rows += f'<tr><th title="{escape(about)}">{escape(title)}</th>{cells}</tr>'
    return (
        '<div class="wide"><table class="compared settings" aria-label="Scorecard">'
        f"<thead><tr><th>Measure</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(name: str, one: Any) -> str:
    if one is None:
        return "–"
    if name == "room":
        return f"{one.value:.1f}"
    spread = f" <small>± {100 * one.spread:.0f}</small>" if one.spread else ""
    return f"{percent(one.value)}{spread}"


def _cost(view: Any) -> str:
    seconds, share = sum(one.seconds for one in view.scores), view.judged.scoring if view.judged else 0.0
    of = f", {100 * share:.0f} % of the run's time" if share else ""
    seen = next((one.encoder for one in view.scores if one.encoder), "")
    eyes = f"Seen by the base's VAE and by {seen} image encoder." if seen else "Seen by the base's VAE alone."
    return f'<div class="note small">Scored in {duration(seconds)}{of}. {escape(eyes)} ± is the standard error.</div>'
