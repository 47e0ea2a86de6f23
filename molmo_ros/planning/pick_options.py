"""How a pick and place is done, as far as it can be chosen."""

from __future__ import annotations

from dataclasses import dataclass, field

from molmo_ros.planning.top_grasp import Fingers


@dataclass(frozen=True)
class PickOptions:
    """How picks are made (metres). `table_z_m`: height of the table in the base frame. `tries`: grasps at most.
    `uses_wrist`: look again from above before the grasp. `asks_from_wrist`: ask the model in those pictures too, and
    where it does not see there what it was asked for, or saw nothing from afar, look for it with the hand, from
    `search_height_m` above the table. `reach_m`: where empty spots and things are looked for, as distances from the
    base."""

    table_z_m: float = 0.0
    tries: int = 2
    uses_wrist: bool = True
    asks_from_wrist: bool = True
    search_height_m: float = 0.38
    hover_m: float = 0.14
    approach_m: float = 0.10
    # Things that the fingers close to less than this are not there.
    least_width_m: float = 0.003
    voxel_m: float = 0.015
    reach_m: tuple[float, float] = (0.32, 0.62)
    # With a larger share of the picture hidden by the arm, what is not found may just not be seen.
    most_hidden: float = 0.10
    fingers: Fingers = field(default_factory=Fingers)
