from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from molmo_ros.geometry.fusion import Observation, fuse
from molmo_ros.outcome import Code, PointingError

TRUTH = np.array([0.5, -0.1, 0.04])
SIGMAS_M = np.array([0.003, 0.003, 0.008])


def cov_of_a_view(rng: np.random.Generator) -> np.ndarray:
    """Sure across the ray, less so along it, from any side."""
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    return turn @ np.diag(SIGMAS_M**2) @ turn.T


def views(count: int, rng: np.random.Generator) -> list[Observation]:
    covs = [cov_of_a_view(rng) for _ in range(count)]
    return [Observation(rng.multivariate_normal(TRUTH, cov), cov) for cov in covs]


def test_one_view_is_its_own_answer() -> None:
    view = views(1, np.random.default_rng(0))[0]
    fused = fuse([view])
    np.testing.assert_allclose(fused.position_m, view.position_m)
    np.testing.assert_allclose(fused.cov_m2, view.cov_m2)
    assert fused.used == (True,)
    assert fused.disagreement == 0


def test_the_error_falls_with_the_square_root_of_the_views() -> None:
    rng = np.random.default_rng(1)
    rms = {}
    for count in (1, 4, 16):
        errors = [np.sum((fuse(views(count, rng)).position_m - TRUTH) ** 2) for _ in range(300)]
        rms[count] = np.sqrt(np.mean(errors))
    assert rms[4] < 0.55 * rms[1]
    assert rms[16] < 0.29 * rms[1]


def test_the_fused_covariance_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(1000):
        fused = fuse(views(5, rng))
        miss = fused.position_m - TRUTH
        inside += miss @ np.linalg.solve(fused.cov_m2, miss) < 7.815
    assert 0.92 <= inside / 1000 <= 0.98


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_views_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = views(5, rng)
    there, back = fuse(seen), fuse(seen[::-1])
    np.testing.assert_allclose(there.position_m, back.position_m, atol=1e-12)
    assert there.used == back.used[::-1]


@given(st.integers(0, 2**32 - 1))
def test_more_views_never_make_it_less_sure(seed: int) -> None:
    seen = views(4, np.random.default_rng(seed))
    seen = [Observation(TRUTH, each.cov_m2) for each in seen]
    traces = [np.trace(fuse(seen[:count]).cov_m2) for count in range(1, 5)]
    assert all(later <= earlier + 1e-15 for earlier, later in pairwise(traces))


@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_view_of_something_else_is_left_out(at: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        seen = views(5, rng)
        seen.insert(at, Observation(TRUTH + rng.normal(0, 1, 3) * 0.02 + [0.08, 0, 0], cov_of_a_view(rng)))
        fused = fuse(seen)
        assert not fused.used[at]
        assert sum(fused.used) >= 4, "an agreeing view goes once in a thousand times"
        assert np.linalg.norm(fused.position_m - TRUTH) < 0.012


def test_two_of_five_views_may_be_wrong() -> None:
    rng = np.random.default_rng(4)
    seen = views(3, rng)
    seen += [
        Observation(TRUTH + [0.1, 0, 0], cov_of_a_view(rng)),
        Observation(TRUTH - [0, 0.1, 0], cov_of_a_view(rng)),
    ]
    assert fuse(seen).used == (True, True, True, False, False)


def test_two_views_that_contradict_each_other_are_ambiguous() -> None:
    rng = np.random.default_rng(5)
    seen = [Observation(TRUTH, cov_of_a_view(rng)), Observation(TRUTH + [0.1, 0, 0], cov_of_a_view(rng))]
    with pytest.raises(PointingError, match="only 1 of 2 views agree") as caught:
        fuse(seen)
    assert caught.value.outcome.code == Code.AMBIGUOUS_DEPTH


def test_what_all_views_share_is_not_averaged_away() -> None:
    seen = views(50, np.random.default_rng(6))
    shared = np.diag([0.005**2] * 3)
    assert np.linalg.eigvalsh(fuse(seen, shared_cov_m2=shared).cov_m2)[0] >= 0.005**2


def test_honest_covariances_disagree_by_about_one() -> None:
    rng = np.random.default_rng(7)
    assert np.mean([fuse(views(6, rng)).disagreement for _ in range(200)]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("position", "cov", "said"),
    [
        ([0, 0, np.nan], np.eye(3), "position_m"),
        ([0, 0], np.eye(3), "position_m"),
        ([0, 0, 0], np.eye(2), "cov_m2"),
        ([0, 0, 0], np.full((3, 3), np.nan), "cov_m2"),
        ([0, 0, 0], np.diag([1, 1, -1.0]), "cov_m2"),
        ([0, 0, 0], np.diag([1, 1, 0.0]), "singular"),
        ([0, 0, 0], [[1, 0.5, 0], [0, 1, 0], [0, 0, 1]], "symmetric"),
    ],
)
def test_an_observation_that_is_none_is_refused_by_field(position: list, cov: np.ndarray, said: str) -> None:
    with pytest.raises(PointingError, match=said) as caught:
        Observation(np.array(position), np.array(cov))
    assert caught.value.outcome.code == Code.INVALID_REQUEST


@pytest.mark.parametrize(
    ("observations", "arguments"),
    [([], {}), (None, {"gate_probability": 1.0}), (None, {"shared_cov_m2": [1, 2]})],
)
def test_nothing_to_fuse_and_impossible_gates_are_refused(observations: list | None, arguments: dict) -> None:
    seen = views(2, np.random.default_rng(8)) if observations is None else observations
    with pytest.raises(PointingError) as caught:
        fuse(seen, **arguments)
    assert caught.value.outcome.code == Code.INVALID_REQUEST
