"""The plot is a valid picture with a bar for every tenth that has answers."""

from __future__ import annotations

from xml.etree import ElementTree

from molmo_ros.training.confidence_figures import Bin
from molmo_ros.training.confidence_plot import reliability_svg


def test_every_tenth_with_answers_has_a_bar_as_high_as_what_came_true() -> None:
    bins = [Bin(0, 0.0, 0.0)] * 7 + [Bin(10, 0.75, 0.5), Bin(0, 0.0, 0.0), Bin(90, 0.97, 1.0)]
    drawn = ElementTree.fromstring(reliability_svg(bins, "mine & <yours>"))
    bars = [e for e in drawn.iter() if e.tag.endswith("rect") and e.get("fill") == "#3b7ea1"]
    half, whole = (float(bar.get("height", 0)) for bar in bars)
    assert half * 2 == whole
    assert next(e.text for e in drawn.iter() if e.tag.endswith("text")) == "mine & <yours>"
