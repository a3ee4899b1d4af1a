"""The loss chart: few points, finite coordinates, plain empty states."""

import re

from studio.training.events import Validation
from studio.training.summary import Course, thin
from studio.web.components.loss_chart import compare_chart, loss_chart


def test_a_long_run_is_thinned_and_keeps_both_ends():
    points = thin(list(range(12_345)))
    assert len(points) == 1000 and points[0] == 0 and points[-1] == 12_344
    assert thin([1, 2]) == [1, 2]


def test_no_loss_yet_says_so():
    assert "No loss yet" in loss_chart([], [], 200)


def test_lines_for_training_held_out_and_base():
    losses = [(step, 1 / step, 1 / step) for step in range(1, 101)]
    chart = loss_chart(losses, [Validation(0, 0.6, 0.6), Validation(50, 0.4, 0.6, spread=0.05)], 200)
    assert all(f'<path class="{name}"' in chart for name in ("train", "held", "base", "raw", "spread"))
    assert max(map(float, re.findall(r'class="train" d="M[^"]*?(\d+\.\d) [\d.]+"', chart))) == 500.0  # half of the run


def test_one_flat_point_and_no_look_is_drawn():
    chart = loss_chart([(1, 0.0, 0.0)], [], 1)
    assert "nan" not in chart and "inf" not in chart and "without adapter" not in chart


def test_the_spread_lies_around_the_held_out_loss_and_never_below_the_image():
    looks = [Validation(0, 0.5, 0.5), Validation(10, 0.4, 0.5, spread=0.1)]
    band = re.search(r'class="spread" d="M([^"]+)"', loss_chart([], looks, 10))
    heights = [float(place.split()[1]) for place in band[1].split("L")]
    assert len(heights) == 4 and heights[1] < heights[2] and max(heights) <= 1000
    assert "± 0.1000" in loss_chart([(10, 0.4, 0.4)], looks, 10)


def test_runs_over_each_other_share_one_scale_and_have_a_colour_each():
    one = Course([(1, 0.9), (100, 0.5)], [(0, 0.8), (100, 0.4)], [(0, 0.8), (100, 0.8)])
    two = Course([(1, 0.9), (50, 0.2)], [(0, 0.8), (50, 0.1)], [(0, 0.8), (50, 0.8)])
    chart = compare_chart([("long", one), ("<b>short", two)])
    ends = [float(x) for x in re.findall(r'class="held run-\d" d="M[^"]*?(\d+\.\d) [\d.]+"', chart)]
    assert ends == [1000.0, 500.0], "half as many steps end half way"
    assert chart.count('class="base run-') == chart.count('class="train thin run-') == 2
    assert "&lt;b&gt;short" in chart and "<b>short" not in chart and "long: validation 0.4000, training 0.5000" in chart


def test_eight_long_runs_stay_a_small_image():
    line = [(step, 1 / (step + 1)) for step in range(100_000)]
    runs = [(f"run {n}", Course(thin(line), thin(line[::100]), thin(line[::100]))) for n in range(8)]
    assert len(compare_chart(runs)) < 500_000
    assert "No loss yet" in compare_chart([("a", Course())])


def test_the_best_step_is_a_labelled_line_with_a_dot_on_the_curve():
    losses, looks = [(step, 0.5, 0.5) for step in range(1, 101)], [Validation(0, 0.6, 0.6), Validation(50, 0.4, 0.6)]
    chart = loss_chart(losses, looks, 200, (50, "picked"))
    assert 'class="mark" style="left:25.00%"' in chart and "picked: step 50</b><i" in chart
    assert 'class="mark left"' in loss_chart(losses[:50], looks, 60, (50, "picked"))
    assert "mark" not in loss_chart(losses, looks, 200)
    assert "step 77</b></div>" in loss_chart(losses, looks, 200, (77, "picked")), "no dot where no loss was measured"
