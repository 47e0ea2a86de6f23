"""The real pointing node with a pointer that does as it is told, to provoke what a good model does not do.

Only the model is replaced; cameras, TF, services and threads are the product's own. The words of a request
say what the pointer does.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from typing import cast

import numpy as np

from molmo_ros.nodes.parameters import PointingParameters
from molmo_ros.nodes.pointing_node import LoadPointer, main
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.protocol import ModelDurations, Pointing


class ScriptedPointer:
    def point(
        self,
        image_HW3: np.ndarray,
        target: str,
        *,
        max_points: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Pointing:
        height, width = image_HW3.shape[:2]
        u, v = (width - 1) / 2, (height - 1) / 2

        def at(u: float, v: float, confidence: float, index: int = 0) -> Point2D:
            return Point2D(u=u, v=v, label=target, confidence=confidence, sigma_px=1.0, index=index)

        points: tuple[Point2D, ...] = ()
        if target.startswith("wait"):
            pause = threading.Event()
            for _ in range(int(100 * float(target.split()[1]))):
                if should_stop():
                    raise PointingError(Code.CANCELLED, "stopped between two tokens")
                pause.wait(0.01)
            points = (at(u, v, 0.9),)
        elif target == "a crash":
            raise RuntimeError("the model fell over")
        elif target == "gibberish":
            raise PointingError(Code.UNPARSEABLE, "no points in the answer: 'blah'")
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
            durations=ModelDurations(vision_s=0.001, prefill_s=0.002, decode_s=0.003),
        )


def load(parameters: PointingParameters) -> ScriptedPointer:
    """A model of the name `slow` takes for ever to load, as a broken disk would."""
    if parameters.model == "slow":
        threading.Event().wait()
    return ScriptedPointer()


if __name__ == "__main__":
    sys.exit(main(load_pointer=cast(LoadPointer, load)))
