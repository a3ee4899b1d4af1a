"""Numbers as people read them: plain functions for every layer."""


def pluralize(count: int, what: str) -> str:
    """`1 image`, `1,200 images`, `2 losses`."""
    ending = "es" if what.endswith("ss") else "s"
    return f"{count:,} {what}{ending * (count != 1)}"


def size(count: int) -> str:
    """`34 MB` for 34,000,000 bytes."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{count / one:.1f} {unit}" if count < 10 * one else f"{count / one:,.0f} {unit}"
    return f"{count} bytes"


def duration(seconds: float | None) -> str:
    """`42 s`, `3 min`, `2 h 05 min`; `–` where it is unknown or absurd."""
    if seconds is None or not 0 <= seconds < 1e9:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def percent(share: float) -> str:
    """`−12 %` for −0.12, `+3 %` for 0.03, with a real minus sign."""
    return f"{100 * share:+.0f} %".replace("-", "−")
