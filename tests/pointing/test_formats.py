"""Every format asks and is read by its name, and no text at all makes the reading fail or slow."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator

import pytest

from molmo_ros.pointing.formats import FORMATS, point_format

SIZE = (640, 480)

#: What models say, and the points in percent of a picture of `SIZE`.
ANSWERS: dict[str, tuple[str, list[tuple[float, float]]]] = {
    "molmo": (
        'Counting the <points x1="12.0" y1="30.4" x2="55.1" y2="31.9" alt="cups & "mugs"">cups</points> shows a '
        "total of 2.",
        [(12.0, 30.4), (55.1, 31.9)],
    ),
    "graspmolmo": (
        ' <point x="61.5" y="40.6" alt="Where to grasp the object">mug</point>',
        [(61.5, 40.6)],
    ),
    "molmo2": ('<points coords="1 1 900 400 2 911 800">cups</points>', [(90, 40), (91.1, 80)]),
    "molmo2_compact_v1": ("<points cups\t-\t1 99.0 80.0 2 1.0 2.0/>", [(99, 80), (1, 2)]),
    "molmo2_compact_v2": ("<points cups\t-\t1 990 800/>", [(99, 80)]),
    "robopoint": ("[(0.52, 0.31), (0.55, 0.30)]", [(52, 31), (55, 30)]),
    "qwen2_5_vl": ('```json\n[{"point_2d": [320, 120], "label": "mug"}]\n```', [(50, 25)]),
    "qwen2_5_vl_xml": ('<points x1="64" y1="48" x2="320" y2="240" alt="a">a</points>', [(10, 10), (50, 50)]),
    "qwen2_vl": ('[{"point_2d": [500, 250], "label": "mug"}]', [(50, 25)]),
    "qwen3_vl": ('[{"point_2d": [500, 250], "label": "a \\"mug\\""}]', [(50, 25)]),
    "gemini_robotics_er": ('[{"point": [250, 500], "label": "mug"}]', [(50, 25)]),
    "moondream": ('{"points": [{"x": 0.5, "y": 0.25}]}', [(50, 25)]),
    "florence2_boxes": ("</s><s>mug<loc_99><loc_199><loc_300><loc_400></s>", [(20, 30)]),
    "florence2_outlines": ("mug<loc_99><loc_199><loc_300><loc_199><loc_300><loc_400></s>", [(20, 30)]),
}

#: Prose that may stand around an answer without a word of another format in it.
PROSE = "Sure! Of the 3 things I see, here & there: "


def places(name: str, answer: str) -> list[tuple[float, float]]:
    return [(point.x, point.y) for point in FORMATS[name].read(answer, SIZE).points]


def test_every_format_has_an_example_here() -> None:
    assert list(ANSWERS) == list(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_read_in_its_scale(name: str) -> None:
    answer, points = ANSWERS[name]
    assert places(name, answer) == [pytest.approx(point) for point in points]


@pytest.mark.parametrize("name", FORMATS)
def test_several_answers_in_mixed_prose_are_read_one_after_the_other(name: str) -> None:
    answer, points = ANSWERS[name]
    mixed = f"{PROSE}{answer} Then {answer} And so on, 100%."
    assert places(name, mixed) == [pytest.approx(point) for point in 2 * points]


@pytest.mark.parametrize("name", FORMATS)
def test_an_answer_cut_off_says_nothing_that_the_whole_one_would_not_have_said(name: str) -> None:
    answer = f"{PROSE}{ANSWERS[name][0]} and {ANSWERS[name][0]}"
    whole, heard = places(name, answer), 0
    for end in range(len(answer) + 1):
        cut = places(name, answer[:end])
        assert cut == whole[: len(cut)] and len(cut) >= heard
        heard = len(cut)
    assert heard == len(whole)


@pytest.mark.parametrize("name", FORMATS)
def test_numbers_alone_are_never_points(name: str) -> None:
    assert places(name, "45 60, 45.0 60.0, [45, 60] and 450 600; x: 45, y: 60; 45%") == []


def test_a_format_in_pixels_needs_the_size_that_the_model_saw() -> None:
    for name in ("qwen2_5_vl", "qwen2_5_vl_xml"):
        assert FORMATS[name].read(ANSWERS[name][0], (1280, 960)).points[0].x < 50
        for size in (None, (0, 480)):
            with pytest.raises(ValueError, match="pixels of the model's input"):
                FORMATS[name].read(ANSWERS[name][0], size)


@pytest.mark.parametrize("group", ["2 2 911 800", "0.5 2 911 800"])
def test_a_point_in_a_second_picture_or_at_a_time_is_none_in_the_one_that_was_shown(group: str) -> None:
    answer = f'<points coords="1 1 900 400;{group}">cups</points>'
    assert places("molmo2", answer) == [(90, 40)]
    assert places("molmo2", f'<tracks coords="{group}">cups</tracks>') == []


def test_formats_in_other_scales_do_not_care_about_the_size() -> None:
    for name, entry in FORMATS.items():
        if entry.extent is not None:
            assert entry.read(ANSWERS[name][0]) == entry.read(ANSWERS[name][0], (17, 9))


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("molmo", " There are none."),
        ("molmo", "This isn't in the image."),
        ("molmo2", "There are none."),
        ("qwen2_5_vl", "```json\n[]\n```"),
        ("qwen3_vl", "There is no mug in the picture."),
        ("robopoint", "[]"),
        ("moondream", '{"points": []}'),
    ],
)
def test_absence_is_an_answer_and_counts_as_none(name: str, answer: str) -> None:
    reading = FORMATS[name].read(answer, SIZE)
    assert reading.absent and reading.count == 0 and not reading.points


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "answer", ["", "A mug on a table.", '[{"point_2d": [9999, 1], "label": "there is no"}]']
)
def test_an_answer_that_is_not_understood_is_neither(name: str, answer: str) -> None:
    reading = FORMATS[name].read(answer, SIZE)
    assert not reading.absent and not reading.points and reading.count is None


def test_counting_is_heard_beside_the_points() -> None:
    assert FORMATS["molmo"].read(ANSWERS["molmo"][0]).count == 2
    assert FORMATS["molmo2"].read("Counting the " + ANSWERS["molmo2"][0] + " shows a total of 2.").count == 2


@pytest.mark.parametrize("name", FORMATS)
def test_the_question_names_the_target_once_even_when_it_holds_braces(name: str) -> None:
    plain, tricky = "the red cup", "the {target} & {request} mug"
    assert FORMATS[name].prompt(plain).count(plain) == 1
    assert FORMATS[name].prompt(tricky) == FORMATS[name].prompt(plain).replace(plain, tricky)


def test_a_wrong_name_is_answered_with_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"'percent'.*molmo, .*qwen3_vl"):
        point_format("percent")


@pytest.mark.parametrize("name", ["molmo_point", "MolmoPoint", "molmo-point"])
def test_molmo_point_is_refused_by_name_with_the_reason(name: str) -> None:
    with pytest.raises(ValueError, match=r"MolmoPoint .*special tokens.*molmo2"):
        point_format(name)


#: Pieces of all formats, and what breaks parsers.
SCRAPS = [
    *("<point ", "<points ", "<tracks ", "</point>", "</points>", ">", "/>", ' x="', ' y="', ' x1="1.0" y1="2.0"'),
    *(' alt="', ' coords="', "1 1 900 400", ";", "\t", "\t-\t", "Click(", "(0.5, 0.5)", "(61.5, 40.6)", "p=615,406"),
    *('{"point_2d": [', '"point": [1, 2]', '"x": 0.1, "y": 0.2}', '"label": "', "```json", "[[[[", "}}", "\\", '\\"'),
    *("<loc_5>", "<loc_", "<sep>", "</s>", "<poly>", "There are none.", " shows a total of ", "not in the image"),
    *("0", "1000", "-1", "100.0", "1e9999", "9" * 40, ".", ",", " ", "\n", "\0", "\ud800", "٣", "é", "🍵", '"', "&"),
]  # fmt: skip


def fuzzed(count: int, seed: int) -> Iterator[str]:
    """Mutated real answers, and soup of tags and numbers."""
    chance = random.Random(seed)
    answers = [answer for answer, _ in ANSWERS.values()]
    for _ in range(count):
        if chance.random() < 0.3:
            yield "".join(chance.choices(SCRAPS, k=chance.randrange(1, 25)))
            continue
        text = chance.choice(answers)
        for _ in range(chance.randrange(1, 6)):
            start = chance.randrange(len(text) + 1)
            end = min(len(text), start + chance.randrange(8))
            text = (
                text[:start] + chance.choice([*SCRAPS, "", "", text[end:], text[start:end] * 2]) + text[end:]
            )
        yield text


def check(answer: str, names: Iterable[str] = FORMATS) -> int:
    """Reads an answer in these formats; how many points were found."""
    found = 0
    for name in names:
        reading = FORMATS[name].read(answer, SIZE)
        assert not (reading.absent and reading.points), (name, answer)
        for point in reading.points:
            assert 0 <= point.x <= 100 and 0 <= point.y <= 100, (name, answer)
            if not name.startswith("florence2"):
                assert float(answer[slice(*point.x_span)]) * 100 == pytest.approx(point.x * point.extent.x)
                assert float(answer[slice(*point.y_span)]) * 100 == pytest.approx(point.y * point.extent.y)
        found += len(reading.points)
    return found


def test_no_answer_makes_the_reading_fail() -> None:
    # A parser that finds nothing would pass the checks: most of these answers still hold points.
    assert sum(map(check, fuzzed(5_000, seed=1))) > 5_000


@pytest.mark.slow
def test_none_of_200_000_answers_makes_the_reading_fail() -> None:
    chance = random.Random(3)
    found = sum(check(answer, chance.sample(list(FORMATS), 4)) for answer in fuzzed(200_000, seed=2))
    assert found > 50_000


def seconds(name: str, text: str) -> float:
    """Processor time to read a text."""
    started = time.process_time()
    FORMATS[name].read(text, SIZE)
    return time.process_time() - started


def is_linear(name: str, short: str, long: str, times: int) -> bool:
    """Whether so many times the text takes hardly longer than so many times; with the square it would be far more."""
    # Other work on the machine may slow one measurement down, hardly five.
    return any(seconds(name, long) < 3 * times * max(seconds(name, short), 1e-4) for _ in range(5))


@pytest.mark.parametrize("times", [8, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", FORMATS)
def test_reading_takes_time_in_proportion_to_the_answer(name: str, times: int) -> None:
    prefixes = ["", '<point x="1" y="2" alt="', '<points coords="', '[{"point_2d": [1, 2], "label": "']
    scraps = [*SCRAPS, ANSWERS[name][0], '<point x="1" y="2" alt="', '<points coords="" ', 'alt="" ', "a\t"]
    scraps += ['<points coords="1 1 900 400 ', "<points a\t-\t1 1 1 "]
    for scrap in scraps:
        for prefix in prefixes:
            short, long = (prefix + scrap * (size // len(scrap)) for size in (4_000, 4_000 * times))
            assert is_linear(name, short, long, times), (prefix, scrap)
