"""Words and a picture to points: prompts, the grammar of answers, confidence, and who answers."""

from __future__ import annotations

from pathlib import Path

import molmo_ros


def bundled_model_folder() -> Path:
    """The checkpoint that comes with the package: small, and only at home on the simulated tabletop."""
    return Path(molmo_ros.__file__).parent / "models" / "tabletop"
