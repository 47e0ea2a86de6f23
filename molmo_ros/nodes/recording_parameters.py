"""Parameters of recorded requests: a group of `NODE_PARAMETERS`."""

from __future__ import annotations

from molmo_ros.nodes.parameter_table import Parameter

RECORDING_PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "record",
        "",
        "Folder in which every request is recorded as an MCAP bag of its own, with what was seen and what came of it "
        "(docs/recording.md). Empty: nothing is recorded.",
        change="inactive",
    ),
    Parameter(
        "record_max_megabytes",
        10_000.0,
        "Room that the recorded requests of this node may take; the oldest go first.",
        "MB",
        (100.0, 1.0e8),
        change="inactive",
    ),
)
