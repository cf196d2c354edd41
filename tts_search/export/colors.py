"""The colours of values: scales from red to green for a light, a dark and an unknown background. Knows numbers only.

The first two hold equal steps of OKLCH with lightness in one direction throughout, away from the background as the
value rises. So the order of two values shows without any hue, and the ends stay apart for red-green colour-blind eyes;
tests hold them to that.
"""

from __future__ import annotations

from collections.abc import Sequence

LIGHT = ("#ffa194", "#f49a76", "#e49658", "#d1943b", "#ba9320", "#8f8d23", "#628435", "#337844", "#00694f")
DARK = ("#9e2d26", "#a94419", "#b25b0c", "#b7720f", "#ba8824", "#b1a233", "#9fbb56", "#84d382", "#60e7b4")
ANY = ("#d63b3b", "#b88000", "#2c964b")  # dark enough for white, light enough for black


def color(value: float, scale: Sequence[str] = LIGHT) -> str:
    """The colour of a value in [0, 1] as `#rrggbb`."""
    place = min(max(value, 0.0), 1.0) * (len(scale) - 1)
    low = min(int(place), len(scale) - 2)
    pairs = zip(channels(scale[low]), channels(scale[low + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - low)):02x}" for a, b in pairs)


def ink(background: str) -> str:
    """Black or white, whichever reads better on a colour; the contrast is at least 4.5 on any."""
    return "#000000" if luminance(background) > 0.179 else "#ffffff"


def channels(hex_color: str) -> tuple[int, int, int]:
    """Red, green and blue of `#rrggbb`, 0 to 255."""
    return int(hex_color[1:3], 16), int(hex_color[3:5], 16), int(hex_color[5:7], 16)


def luminance(hex_color: str) -> float:
    """Relative luminance in [0, 1] (WCAG 2)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in channels(hex_color))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
