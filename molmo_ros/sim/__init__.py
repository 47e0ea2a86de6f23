"""The simulated tabletop: a table, household things in named colours, an arm and an RGB-D camera.

Read in this order: `colours`, `objects` (what lies on the table; `household` and `clutter` hold more of it),
`worlds` (what may be in a scene), `scene` and `surroundings` (how a seed becomes a scene), `mujoco_model` (the
MuJoCo model), `tabletop` (reset and render), `truth` and `free_space` (what training and tests may know).
"""

import os

os.environ.setdefault(
    "MUJOCO_GL", "egl"
)  # MuJoCo reads it when it is imported, by whichever module comes first
