"""The real pointing node with a pointer that does as it is told, to provoke what a good model does not do.

Only the model is replaced; cameras, TF, services and threads are the product's own. The words of a request
say what the pointer does, the parameter `model` how it loads.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.nodes.pointing_node import main
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.protocol import ModelDurations, OnProgress, Pointing, Reply

DURATIONS = ModelDurations(vision_s=0.0, prefill_s=0.002, decode_s=0.003)


@dataclass(frozen=True)
class Look:
    """What the pointer remembers of a picture: its size and its mean colour."""

    size: tuple[int, int]
    rgb: tuple[float, ...]
    nbytes: int = 1000
    vision_s: float = 0.001
    prefill_s: float = 0.0


class ScriptedPointer:
    """`ballast_mb` megabytes of memory are its own, as weights would be."""

    def __init__(self, ballast_mb: int = 0) -> None:
        self.ballast = np.ones(ballast_mb << 17)

    def look(self, image_HW3: np.ndarray, *, should_stop: Callable[[], bool] = lambda: False) -> Look:
        height, width = image_HW3.shape[:2]
        return Look((width, height), tuple(image_HW3.mean(axis=(0, 1)).tolist()))

    def point(
        self,
        image_HW3: np.ndarray,
        target: str,
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Pointing:
        return self.point_in(self.look(image_HW3), target, max_points=max_points, should_stop=should_stop)

    def point_in(
        self,
        look: Look,
        target: str,
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: OnProgress | None = None,
    ) -> Pointing:
        u, v = (look.size[0] - 1) / 2, (look.size[1] - 1) / 2

        def at(u: float, v: float, confidence: float, index: int = 0) -> Point2D:
            return Point2D(u=u, v=v, label=target, confidence=confidence, sigma_px=1.0, index=index)

        points: tuple[Point2D, ...] = ()
        if target.startswith("wait"):
            pause = threading.Event()
            for token in range(int(100 * float(target.split()[1]))):
                if should_stop():
                    raise PointingError(Code.CANCELLED, "stopped between two tokens")
                if on_progress is not None:
                    on_progress("decode", token + 1, (at(u, v, 0.9),) if token > 10 else ())
                pause.wait(0.01)
            points = (at(u, v, 0.9),)
        elif target == "deaf":
            # Longer than any test lasts, and without looking whether to stop.
            threading.Event().wait(600)
        elif target == "a crash":
            raise RuntimeError("the model fell over")
        elif target == "gibberish":
            raise PointingError(Code.UNPARSEABLE, "no points in the answer: 'blah'")
        elif target == "too much":
            raise PointingError(Code.OUT_OF_MEMORY, "no memory left on cpu")
        elif target == "three things":
            points = (at(u, v, 0.2, 0), at(u + 40, v, 0.8, 1), at(u - 40, v, math.nan, 2))
        elif target == "the corner":
            points = (at(0.0, 0.0, 0.9),)
        elif target != "nothing":
            points = (at(u, v, 0.9),)
        return Pointing(
            points=points[:max_points] if max_points else points,
            answer=f"scripted: {target}",
            absent=not points,
            durations=DURATIONS,
        )

    def ask(
        self, image_HW3: np.ndarray, question: str, *, should_stop: Callable[[], bool] = lambda: False
    ) -> Reply:
        return self.ask_in(self.look(image_HW3), question, should_stop=should_stop)

    def ask_in(
        self,
        look: Look,
        question: str,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: OnProgress | None = None,
    ) -> Reply:
        if question.startswith("wait"):
            self.point_in(look, question, should_stop=should_stop)
        if question == "Which colour is it?":
            return Reply(" ".join(f"{value:.0f}" for value in look.rgb), 0.75, DURATIONS)
        return Reply(f"brightness {sum(look.rgb) / 3:.0f}", 0.75, DURATIONS)


def load(parameters: PointingParameters, tell: Callable[[str], None]) -> ScriptedPointer:
    """A model of the name `slow` takes for ever to load, as a broken disk would; `broken` raises what nobody
    expects; `missing` is not there; `large` takes 200 MB."""
    tell(f"scripted, {parameters.model!r}")
    if parameters.model == "slow":
        threading.Event().wait()
    if parameters.model == "broken":
        raise ZeroDivisionError("a fault in the loading code")
    if parameters.model == "missing":
        raise PointingError(Code.MODEL_UNAVAILABLE, "there is no such model")
    return ScriptedPointer(ballast_mb=200 if parameters.model == "large" else 0)


if __name__ == "__main__":
    sys.exit(main(load_pointer=load))
