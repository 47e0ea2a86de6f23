"""The simulated tabletop: a table, household things in named colours, an arm and an RGB-D camera.

Read in this order: `colours` and `objects` (what lies on the table), `scene` (how a seed becomes a scene),
`world` (the MuJoCo model), `tabletop` (reset and render), `truth` (what training and tests may know).
"""
