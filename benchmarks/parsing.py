"""How long the parser takes for an answer of a megabyte in each point format, and for ordinary ones.

    tools/run python benchmarks/parsing.py [--quick] [--check] [--json FILE]

Long answers repeat what a model says, or only its beginning, which is what a model that has lost its way does;
the goal holds for both. Times are processor time of one thread, the least of several runs.
"""

from __future__ import annotations

import time

from figures import Figure, parser, report

from molmo_ros.pointing.formats import FORMATS

MEGABYTE = 1_000_000
SIZE = (640, 480)
GOAL_S = 1.0

#: Format: an answer, and a piece of which a long one may consist.
SAID = {
    "molmo": ('<points x1="12.0" y1="30.4" x2="55.1" y2="31.9" alt="cups">cups</points>', '<point x="1.0" '),
    "graspmolmo": ('<point x="12.0" y="30.4" alt="cup">cup</point>', 'x="1.0" y="1.0" '),
    "molmo2": ('<points coords="1 1 900 400 2 911 800">cups</points>', "1 1 900 400 "),
    "molmo2_compact_v1": ("<points cups\t-\t1 99.0 80.0 2 1.0 2.0/>", "<points a\t"),
    "molmo2_compact_v2": ("<points cups\t-\t1 990 800/>", "<points a\t-\t1 "),
    "robopoint": ("[(0.52, 0.31), (0.55, 0.30)]", "(0.5, "),
    "qwen2_5_vl": ('[{"point_2d": [320, 120], "label": "cup"}]', '{"label": "'),
    "qwen2_5_vl_xml": ('<points x1="64" y1="48" alt="cup">cup</points>', 'alt="'),
    "qwen2_vl": ('[{"point_2d": [320, 120], "label": "cup"}]', '"point_2d": ['),
    "qwen3_vl": ('[{"point_2d": [320, 120], "label": "cup"}]', '{"point_2d": [1, 2], '),
    "gemini_robotics_er": ('[{"point": [250, 500], "label": "cup"}]', "[[[[{{{{"),
    "moondream": ('{"points": [{"x": 0.5, "y": 0.25}]}', '{"x": 0.1, '),
    "florence2_boxes": ("cup<loc_99><loc_199><loc_300><loc_400>", "<loc_1>"),
    "florence2_outlines": ("cup<loc_9><loc_9><loc_90><loc_9><loc_90><loc_90><sep>", "<loc_1><"),
}


def seconds(name: str, answer: str, repeats: int) -> float:
    """Least processor time to read an answer."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        FORMATS[name].read(answer, SIZE)
        times.append(time.process_time() - started)
    return min(times)


def measure(repeats: int) -> list[Figure]:
    """Both long answers and the ordinary one, for every format."""
    figures = []
    for name in FORMATS:
        answer, piece = SAID[name]
        inside = answer[: len(answer) // 2] + piece * (MEGABYTE // len(piece))
        for what, text in (
            ("repeated whole", answer * (MEGABYTE // len(answer))),
            ("lost at its beginning", inside),
        ):
            figures.append(Figure(f"{name}, 1 MB, {what}", seconds(name, text, repeats), "s", GOAL_S))
        figures.append(Figure(f"{name}, one answer", 1e6 * seconds(name, answer, 100 * repeats), "us"))
    return figures


def main() -> int:
    options = parser(__doc__ or "", "one run of each instead of five").parse_args()
    return report(measure(1 if options.quick else 5), options, "reading answers")


if __name__ == "__main__":
    raise SystemExit(main())
