"""What a visitor of a public studio reads above the tabs: what is limited, why, and where it is not."""

import re
from html import escape

from studio.server import zero_gpu
from studio.server.permissions import Capabilities
from studio.server.settings import Settings
from studio.server.visitors import LIFE
from studio.text import size

_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
COMMAND = "pip install -r requirements.txt && python launch.py"
DUPLICATE = "https://huggingface.co/spaces/{}?duplicate=true"


def note_html(settings: Settings) -> str:
    """The note as HTML; "" where the page is not public."""
    if not settings.public:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in limits(settings.allows))
    return (
        "<details><summary><b>You are a guest in a shared studio.</b> "
        "<span>What is limited, why, and how to lift it</span></summary>"
        f"<ul>{lines}</ul><p>{without_limits(settings)}</p></details>"
    )


def limits(allows: Capabilities) -> list[str]:
    """A sentence for each kind of limit, with its reason."""
    most = dict(allows.most)
    minutes, side, room = (allows.longest or 0) / 60, allows.side or 0, allows.room or 0
    found = [
        f"What you make is yours alone, and is deleted {LIFE // 3600} hours after you last used it: "
        "download what you want to keep.",
        f"A run takes at most {most['training.steps']:,.0f} steps and {minutes:.0f} minutes, an image at most {side} "
        f"pixels a side, and your files at most {size(room)}: the machine is shared, and others wait for their turn.",
        "Only the built-in base model and captioner can be used, and nothing can be published: other models would be "
        "fetched and run on this machine by strangers.",
    ]
    if zero_gpu.on_zero_gpu():
        found.append(
            f"Images are drawn on a GPU that ZeroGPU gives for calls of at most {zero_gpu.SECONDS} seconds and counts "
            "towards your daily quota on Hugging Face. A run takes longer than such a call, so it trains on the CPU."
        )
    return found


def without_limits(settings: Settings) -> str:
    """How to have a studio of one's own, as HTML."""
    own = f"On your own machine nothing is limited: <code>{escape(COMMAND)}</code>"
    if not _NAME.fullmatch(settings.space):
        return own
    link = f'<a href="{DUPLICATE.format(settings.space)}" target="_blank" rel="noopener">Duplicate this Space</a>'
    return (
        f"{link} to have one of your own: there the variable <code>STUDIO_OPEN=1</code> lifts the limits, and the "
        f"secret <code>STUDIO_AUTH=USER:PASS</code> keeps others out. {own}"
    )
