"""Colours that people name, each with room to vary while its name stays right."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class NamedColour:
    """A box in HSV (hue in degrees, saturation and value in 0..1) whose every colour carries the name."""

    name: str
    hue_deg: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]

    def draw(self, rng: np.random.Generator) -> RGB:
        """One colour of this name, as RGB in 0..1."""
        hue = rng.uniform(*self.hue_deg) % 360.0
        return colorsys.hsv_to_rgb(hue / 360.0, rng.uniform(*self.saturation), rng.uniform(*self.value))

    def middle(self) -> RGB:
        """The middle of the box, as RGB in 0..1."""
        hue = (sum(self.hue_deg) / 2 % 360.0) / 360.0
        return colorsys.hsv_to_rgb(hue, sum(self.saturation) / 2, sum(self.value) / 2)


# Red, orange and yellow keep at least 17 degrees of hue between them, blue and purple 42: their names
# must survive warm and cold light.
COLOURS = (
    NamedColour("red", (-8.0, 4.0), (0.80, 0.95), (0.68, 0.86)),
    NamedColour("green", (108.0, 148.0), (0.60, 0.85), (0.42, 0.68)),
    NamedColour("blue", (212.0, 230.0), (0.72, 0.92), (0.58, 0.88)),
    NamedColour("yellow", (47.0, 55.0), (0.78, 0.95), (0.86, 0.98)),
    NamedColour("orange", (22.0, 30.0), (0.86, 0.98), (0.88, 0.98)),
    NamedColour("purple", (272.0, 292.0), (0.50, 0.78), (0.48, 0.72)),
    NamedColour("white", (0.0, 360.0), (0.00, 0.03), (0.86, 0.94)),
    NamedColour("black", (0.0, 360.0), (0.00, 0.15), (0.05, 0.12)),
)

COLOUR_NAMES = tuple(colour.name for colour in COLOURS)

#: Ten for later worlds (see `worlds`). This black is light enough for shading to show shapes; brown is far
#: darker than orange, pink far paler than red.
TEN_COLOURS = (
    *(colour for colour in COLOURS if colour.name != "black"),
    NamedColour("black", (0.0, 360.0), (0.00, 0.12), (0.10, 0.17)),
    NamedColour("pink", (330.0, 345.0), (0.34, 0.52), (0.88, 0.98)),
    NamedColour("brown", (17.0, 27.0), (0.58, 0.76), (0.30, 0.42)),
)

#: What no colour word names: clutter wears it, so that not everything on a table has a name.
DULL_COLOURS = (
    NamedColour("beige", (34.0, 46.0), (0.14, 0.28), (0.62, 0.78)),
    NamedColour("grey", (0.0, 360.0), (0.00, 0.06), (0.38, 0.58)),
    NamedColour("slate", (195.0, 215.0), (0.14, 0.26), (0.34, 0.48)),
    NamedColour("olive", (62.0, 78.0), (0.30, 0.46), (0.36, 0.50)),
)

_BY_NAME = {colour.name: colour for colour in COLOURS}


def colour_named(name: str) -> NamedColour:
    """The colour of that name. Raises KeyError for a name that is not in `COLOUR_NAMES`."""
    return _BY_NAME[name]


def distance(a: RGB, b: RGB) -> float:
    """How different two colours look: CIE76 (Euclidean in CIE L*a*b*, D65); about 2 is just noticeable."""
    return float(np.linalg.norm(lab(a) - lab(b)))


def lab(rgb: RGB) -> np.ndarray:
    """CIE L*a*b* (D65) of an sRGB colour in 0..1 (IEC 61966-2-1)."""
    c = np.asarray(rgb, dtype=np.float64)
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    xyz = _RGB_TO_XYZ @ linear / _D65
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_D65 = np.array([0.95047, 1.0, 1.08883])
