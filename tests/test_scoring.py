"""Scoring: one definition of a hit, a miss and a false alarm, and one of AUC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crykit.errors import InputError
from crykit.scoring import (
    auc,
    group_bootstrap_auc,
    merge_spans,
    poisson_upper_bound,
    read_reference,
    score_events,
    total,
)


def test_half_a_bout_is_enough_and_less_is_not() -> None:
    reference = [(10.0, 20.0)]
    half = score_events(reference, [(15.0, 20.0)], 100.0)
    less = score_events(reference, [(15.1, 20.0)], 100.0)
    assert (half.hit, less.hit) == (1, 0)
    assert half.delay_median_s == pytest.approx(5.0)
    assert less.false_alarms == 0, "what touches a bout is no false alarm"


def test_false_alarms_are_merged_before_they_are_counted() -> None:
    near = score_events([], [(0.0, 1.0), (3.9, 5.0)], 3600.0)
    far = score_events([], [(0.0, 1.0), (4.1, 5.0)], 3600.0)
    assert (near.false_alarms, far.false_alarms) == (1, 2)
    assert far.false_alarms_per_hour == pytest.approx(2.0)
    assert far.recall is None


def test_totals_add_seconds_and_pool_delays() -> None:
    one = score_events([(0.0, 4.0)], [(1.0, 4.0)], 60.0)
    two = score_events([(0.0, 4.0)], [(3.0, 9.0)], 60.0)
    both = total([one, two])
    assert (both.ref, both.hit, both.duration_s) == (2, 1, 120.0)
    assert both.time_precision == pytest.approx(4.0 / 9.0)
    assert both.time_recall == pytest.approx(4.0 / 8.0)
    assert both.delays_s == (1.0,)


spans = st.lists(
    st.tuples(st.floats(0, 500), st.floats(0.1, 30)).map(lambda s: (s[0], s[0] + s[1])), max_size=12
)


@given(spans, spans)
def test_scores_stay_in_their_ranges(reference: list[tuple[float, float]], est: list) -> None:
    score = score_events(merge_spans(reference, 3.0), est, 600.0)
    assert 0 <= score.hit <= score.ref
    assert 0.0 <= score.time_f1 <= 1.0 + 1e-9
    assert score.overlap_s <= min(score.ref_s, score.est_s) + 1e-6


@pytest.mark.data
def test_event_scores_are_those_of_the_reference_tool(data_root: Path) -> None:
    tools = data_root.parent / "tools" / "score_events.py"
    if not tools.is_file():
        pytest.skip("the reference scorer is not beside the recordings")
    theirs: dict = {}
    exec(compile(tools.read_text(), str(tools), "exec"), theirs)
    rng = np.random.default_rng(0)

    def some_spans(n: int, longest_s: float) -> list[tuple[float, float]]:
        starts = rng.uniform(0, 580, n)
        return [(a, a + d) for a, d in zip(starts, rng.uniform(0.3, longest_s, n), strict=True)]

    for _ in range(200):
        reference = merge_spans(some_spans(8, 15.0), 3.0)
        estimate = some_spans(6, 30.0)
        a = theirs["score"](reference, estimate, 600.0)
        ours, sums = score_events(reference, estimate, 600.0), theirs["total"]([a, a])
        twice = total([ours, ours])
        for name in ("ref", "hit", "false_alarms", "ref_s", "est_s", "overlap_s", "time_f1"):
            assert getattr(twice, name) == pytest.approx(sums[name]), name
        assert twice.false_alarms_per_hour == pytest.approx(sums["false_alarms_per_hour"])
        assert ours.delay_median_s == a["delay_median_s"]
    for csv in sorted((data_root / "streams").glob("mixed_*.csv")):
        assert read_reference(csv) == theirs["read_reference"](csv)


def test_auc_is_scikit_learns_ties_included() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    for _ in range(30):
        labels = rng.random(80) < 0.3
        scores = np.round(rng.normal(size=80) + labels, 1)
        assert auc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores))


def test_auc_of_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="0 positive"):
        auc([0, 0], [0.1, 0.2])


def test_clips_of_one_group_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(40) % 2 == 0
    scores = rng.normal(size=40) + labels
    groups = [str(i) for i in range(40)]
    value, low, high, n = group_bootstrap_auc(labels, scores, groups)
    ten = group_bootstrap_auc(np.tile(labels, 10), np.tile(scores, 10), groups * 10)
    assert low < value < high
    assert (n, ten[3]) == (40, 40)
    assert ten[:3] == pytest.approx((value, low, high))


@pytest.mark.parametrize(
    ("count", "bound"), [(0, 2.9957), (1, 4.7439), (5, 10.5130), (40, 52.0694)]
)
def test_poisson_bound_is_the_published_one(count: int, bound: float) -> None:
    assert poisson_upper_bound(count, 1.0) == pytest.approx(bound, abs=1e-4)
    assert poisson_upper_bound(count, 10.0) == pytest.approx(bound / 10.0, abs=1e-5)


def test_a_truth_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("onset_s,event\n1,cry\n")
    with pytest.raises(InputError, match="offset_s"):
        read_reference(path)
