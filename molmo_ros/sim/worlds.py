"""The worlds that scenes are drawn from: which things, words, cameras, light and photographs each has.

A model knows the world that it was trained on and no other. So a world, once it has been trained on, stays as
it is, and draws the same pictures for the same seeds forever; what is new goes into a new one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from molmo_ros.sim.clutter import BUILDERS as CLUTTER
from molmo_ros.sim.colours import COLOURS, DULL_COLOURS, TEN_COLOURS, NamedColour
from molmo_ros.sim.objects import KINDS
from molmo_ros.sim.photo import PhotoRange
from molmo_ros.sim.textures import HELD_OUT_TEXTURES, TEXTURE_COUNT, TRAINING_TEXTURES

Range = tuple[float, float]


@dataclass(frozen=True)
class CameraRange:
    """Where cameras stand and how wide they see (of a picture 4 wide and 3 high).

    `fovy_deg` is the vertical field of view, without the part `held_out_fovy_deg`, which is kept for tests.
    `elevation_deg` is drawn evenly over angles or, with `even_in_height`, over the camera's height.
    `half_height_m` bounds half the height of what is in view at the table's middle: a wide lens far away would
    shrink things to a dozen pixels, a narrow one nearby would see three things.
    """

    fovy_deg: Range = (40.0, 60.0)
    held_out_fovy_deg: Range | None = None
    elevation_deg: Range = (30.0, 85.0)
    even_in_height: bool = True
    around_deg: Range = (-60.0, 60.0)
    away_m: Range = (0.6, 1.1)
    half_height_m: Range = (0.0, 0.37)


@dataclass(frozen=True)
class LightRange:
    """How light falls: the leanings of the key and the fill light, and smallest and largest shares of
    (ambient, key, fill, head), which are then scaled to a `total` brightness."""

    total: Range = (0.98, 1.20)
    key_lean_deg: Range = (15.0, 48.0)
    fill_lean_deg: Range = (20.0, 65.0)
    least: tuple[float, float, float, float] = (0.30, 0.30, 0.05, 0.08)
    most: tuple[float, float, float, float] = (0.42, 0.52, 0.18, 0.20)


@dataclass(frozen=True)
class World:
    """What a world may contain.

    `kinds` and the names in `palette` are its words; `clutter` are shapes that no word names, at most
    `most_clutter` of them in a scene. `kinds_per_scene`: fewest and most kinds on one table. `most_twins`:
    copies of one thing besides itself. `overlap`: how much of a thing's box in the picture may lie on another's,
    first and after many tries. `tipped_share`: of the kinds that can, how many lie on their side.
    `shows_handles`: mugs stand so that their handle is not hidden behind them, which would make them cylinders.
    """

    name: str
    kinds: tuple[str, ...] = KINDS
    palette: tuple[NamedColour, ...] = COLOURS
    clutter: tuple[str, ...] = ()
    most_objects: int = 8
    most_clutter: int = 0
    kinds_per_scene: tuple[int, int] = (2, 8)
    most_twins: int = 2
    overlap: Range = (0.15, 0.45)
    tipped_share: float = 0.0
    shows_handles: bool = False
    textures: tuple[int, ...] = tuple(range(TEXTURE_COUNT))
    held_out_textures: tuple[int, ...] = ()
    camera: CameraRange = field(default_factory=CameraRange)
    light: LightRange = field(default_factory=LightRange)
    photo: PhotoRange = field(default_factory=PhotoRange)

    @property
    def colours(self) -> tuple[str, ...]:
        """The colour words."""
        return tuple(colour.name for colour in self.palette)

    def colour(self, name: str) -> NamedColour:
        """That colour, also one of the dull ones that clutter wears. Raises KeyError for any other name."""
        return {colour.name: colour for colour in (*DULL_COLOURS, *self.palette)}[name]

    @property
    def slots(self) -> int:
        """Most things on one table, clutter included."""
        return self.most_objects + self.most_clutter


#: Eight kinds in eight colours, upright, in friendly pictures.
FIRST = World("first")

#: Sixteen kinds in ten colours, also lying, among clutter, seen by all sorts of cameras: 50 to 90 degrees wide
#: (38.5 to 73.7 high), from 25 degrees above the table to straight overhead.
TABLETOP = World(
    "tabletop",
    kinds=(*KINDS, "box", "cup", "plate", "can", "carton", "banana", "lemon", "screwdriver"),
    palette=TEN_COLOURS,
    clutter=tuple(CLUTTER),
    most_objects=10,
    most_clutter=3,
    most_twins=3,
    overlap=(0.3, 0.6),
    tipped_share=0.3,
    shows_handles=True,
    textures=tuple(range(TRAINING_TEXTURES)),
    held_out_textures=tuple(range(TRAINING_TEXTURES, TRAINING_TEXTURES + HELD_OUT_TEXTURES)),
    camera=CameraRange(
        fovy_deg=(38.5, 73.7),
        held_out_fovy_deg=(53.5, 57.0),
        elevation_deg=(25.0, 90.0),
        even_in_height=False,
        around_deg=(-75.0, 75.0),
        away_m=(0.4, 1.1),
        half_height_m=(0.26, 0.38),
    ),
    light=LightRange(
        total=(0.80, 1.28),
        key_lean_deg=(8.0, 58.0),
        least=(0.22, 0.24, 0.02, 0.03),
        most=(0.44, 0.66, 0.22, 0.22),
    ),
    photo=PhotoRange(
        exposure=0.12,
        warmth=0.05,
        tint=0.016,
        gamma=(0.84, 1.18),
        blur_px_at_640=(0.0, 1.5),
        noise_levels=(0.5, 7.0),
        jpeg_share=0.6,
    ),
)

#: The same and one kind more, which the bundled model has never seen: what fine-tuning is shown on.
WORKSHOP = replace(TABLETOP, name="workshop", kinds=(*TABLETOP.kinds, "stapler"))

WORLDS = {world.name: world for world in (FIRST, TABLETOP, WORKSHOP)}

#: What the bundled model was trained on; the simulator node, the demo and the evaluation draw from it.
DEFAULT_WORLD = TABLETOP


def world_named(name: str) -> World:
    """The world of that name. Raises ValueError, naming those that there are."""
    if name not in WORLDS:
        raise ValueError(f"no world is called {name!r}; there are {', '.join(WORLDS)}")
    return WORLDS[name]
