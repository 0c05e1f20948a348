"""Figures: what is drawn is what was given, in colours that everybody can tell apart, and nothing stays open."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tlutils import data, evaluation, plots

mpl.use("Agg")

OKABE_ITO = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"}


@pytest.fixture(autouse=True)
def nothing_stays_open():
    import matplotlib.pyplot as plt

    plt.close("all")
    yield
    assert plt.get_fignums() == []


def summary():
    return [
        {"method": method, "labels_per_class": budget, "mean": mean, "low": mean - 0.05, "high": mean + 0.04}
        for method, level in (("scratch", 0.2), ("svm", 0.5), ("probe", 0.6))
        for budget, mean in ((1, level), (10, level + 0.1), (50, level + 0.3))
    ]


def report():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    return evaluation.report(
        rng.normal(size=(60, 3)) + 2 * np.eye(3)[labels], labels, class_names=("ant", "bee", "wasp")
    )


FIGURES = {
    "budgets": lambda: plots.budgets(summary(), highlight=10, chance=0.1),
    "curves": lambda: plots.curves({"loss": [2, 1], "val_loss": [2, 1.5], "accuracy": [0.2, 0.6]}, best_epoch=2),
    "confusion": lambda: plots.confusion(report()),
    "residuals": lambda: plots.residuals(evaluation.report(np.array([[1.0], [2.5]]), np.array([1.0, 2.0]))),
    "roc": lambda: plots.threshold_curves(report(), "roc", threshold=0.5),
    "precision-recall": lambda: plots.threshold_curves(report(), "precision-recall"),
    "threshold": lambda: plots.threshold_curves(report(), "threshold", threshold=0.4),
    "intervals": lambda: plots.intervals([("one", 0.5, 0.4, 0.7), ("two", 0.6, 0.5, 0.8)], "accuracy", baseline=0.55),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_returned_with_its_axes_labelled(draw):
    figure = draw()
    assert isinstance(figure, Figure)
    for axis in figure.axes:
        assert axis.get_xlabel()
        assert axis.get_ylabel() or [label.get_text() for label in axis.get_yticklabels()]
    figure.canvas.draw()  # nothing fails when it is shown


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_the_style_of_the_book_stays_in_the_book(draw):
    before = dict(mpl.rcParams)
    draw()
    assert dict(mpl.rcParams) == before


def test_colours_are_those_of_okabe_and_ito():
    chromatic = {name: colour.lower() for name, colour in plots.COLOURS.items() if name not in ("black", "gray")}
    assert set(chromatic.values()) <= OKABE_ITO
    for name in ("black", "gray"):
        red, green, blue = (plots.COLOURS[name][i : i + 2] for i in (1, 3, 5))
        assert red == green == blue
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)


def test_methods_differ_in_colour_and_in_marker():
    labels, colours, markers = zip(*plots.METHODS.values())
    assert len(set(labels)) == len(set(colours)) == len(set(markers)) == len(plots.METHODS)
    assert set(colours) <= set(plots.COLOURS.values())


def lines_of(axis):
    """Label → (x, y, colour) of what ``errorbar`` drew."""
    return {
        bars.get_label(): (bars.lines[0].get_xdata(), bars.lines[0].get_ydata(), to_hex(bars.lines[0].get_color()))
        for bars in axis.containers
    }


def test_budgets_shows_each_method_where_it_was_measured():
    axis = plots.budgets(summary(), chance=0.1).axes[0]
    lines = lines_of(axis)
    assert list(lines) == [plots.METHODS[method][0] for method in ("svm", "scratch", "probe")]
    x, y, colour = lines[plots.METHODS["probe"][0]]
    np.testing.assert_allclose(y, [0.6, 0.7, 0.9])
    np.testing.assert_allclose(x, [1, 10, 50], rtol=0.04)  # drawn side by side
    assert colour == plots.METHODS["probe"][1].lower()
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "10", "50"]
    assert any(text.get_text() == "chance" for text in axis.texts)


def test_the_bars_of_budgets_end_where_the_intervals_end():
    axis = plots.budgets(summary(), methods=["svm"]).axes[0]
    (bars,) = axis.containers
    (collection,) = bars.lines[2]
    ends = np.array([segment[:, 1] for segment in collection.get_segments()])
    np.testing.assert_allclose(ends, [[0.45, 0.54], [0.55, 0.64], [0.75, 0.84]])


def test_a_budget_can_be_marked():
    plain, marked = plots.budgets(summary()).axes[0], plots.budgets(summary(), highlight=10).axes[0]
    (band,) = set(map(str, marked.patches)) - set(map(str, plain.patches))
    x0, x1 = marked.patches[0].get_extents().transformed(marked.transData.inverted()).intervalx
    assert x0 < 10 < x1
    assert band


def test_curves_shows_every_epoch_and_marks_the_one_that_was_kept():
    history = {"loss": [3, 2, 1], "val_loss": [3, 2.5, 2.7], "accuracy": [0.1, 0.2, 0.3], "val_accuracy": [0, 0.1, 0.1]}
    left, right = plots.curves(history, best_epoch=2).axes
    drawn = {line.get_label(): line for line in left.lines}
    np.testing.assert_array_equal(drawn["training"].get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(drawn["training"].get_ydata(), [3, 2, 1])
    np.testing.assert_array_equal(drawn["validation"].get_ydata(), [3, 2.5, 2.7])
    assert set(drawn["kept"].get_xdata()) == {2}
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss", "accuracy")


def test_curves_of_a_regression_show_its_error():
    axes = plots.curves({"loss": [1.0, 0.5], "mae": [0.8, 0.4]}).axes
    assert [axis.get_ylabel() for axis in axes] == ["loss", "mean absolute error"]
    assert len(plots.curves({"loss": [1.0]}).axes) == 1


def test_the_confusion_matrix_writes_every_count_in_its_place():
    found = report()
    axis = plots.confusion(found).axes[0]
    written = {(round(t.get_position()[1]), round(t.get_position()[0])): int(t.get_text()) for t in axis.texts}
    expected = {(i, j): n for (i, j), n in np.ndenumerate(found.confusion) if n}
    assert written == expected
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ant", "bee", "wasp"]
    (image,) = axis.images
    np.testing.assert_allclose(image.get_array().sum(axis=1), 1)  # shares of the true class


def test_counts_can_be_read_on_their_background():
    axis = plots.confusion(report()).axes[0]
    (image,) = axis.images
    for text in axis.texts:
        column, row = map(round, text.get_position())
        background = image.cmap(image.norm(image.get_array()[row, column]))[:3]
        assert contrast(mpl.colors.to_rgb(text.get_color()), background) >= 4.5  # WCAG, normal text


def contrast(one, other):
    def luminance(rgb):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_shown_with_their_own_gray_values(channels):
    pictures = np.random.default_rng(0).integers(60, 90, (7, 8, 8, channels), dtype=np.uint8)
    figure = plots.images(pictures, titles=list("abcdefg"), columns=3)
    assert len(figure.axes) == 9
    assert [axis.get_title() for axis in figure.axes[:7]] == list("abcdefg")
    for axis, picture in zip(figure.axes, pictures):
        (shown,) = axis.images
        assert np.array_equal(shown.get_array(), picture.squeeze())
        assert shown.get_clim() == (0, 255)  # not stretched to the darkest and brightest of this one
    assert not any(axis.images for axis in figure.axes[7:])
    assert not any(axis.axison for axis in figure.axes)


def test_intervals_are_listed_from_top_to_bottom():
    axis = FIGURES["intervals"]().axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one", "two"]
    bottom, top = axis.get_ylim()
    assert bottom > top  # the first row is the upper one
    (bars,) = axis.containers
    ends = np.array([segment[:, 0] for segment in bars.lines[2][0].get_segments()])
    np.testing.assert_allclose(ends, [[0.4, 0.7], [0.5, 0.8]])
    assert axis.get_xlabel() == "accuracy"


# --- networks and their costs -----------------------------------------------------------------------------------------

UNIT = [("+", [["1×1, wider", "3×3 depthwise", ("×", [["average pool", "dense"], []])], []]), "ReLU"]


def boxes(axis):
    return {
        text.get_text(): to_hex(patch.get_edgecolor())
        for text, patch in zip([t for t in axis.texts if t.get_text() not in "+×‖"], axis.patches, strict=True)
    }


def test_a_block_diagram_shows_every_box_once_in_the_colour_of_what_it_does():
    fig = plots.block_diagrams({"unit": UNIT, "chain": ["3×3 conv", "max pool"]})
    unit, chain = fig.axes
    assert (unit.get_title(), chain.get_title()) == ("unit", "chain")
    colours = {name: value.lower() for name, value in plots.COLOURS.items()}
    assert boxes(unit) == {
        "1×1, wider": colours["orange"],
        "3×3 depthwise": colours["green"],
        "average pool": colours["gray"],
        "dense": colours["orange"],
        "ReLU": colours["black"],
    }
    assert boxes(chain) == {"3×3 conv": colours["blue"], "max pool": colours["gray"]}


def test_the_boxes_of_a_block_diagram_follow_each_other_and_lie_inside():
    (axis,) = plots.block_diagrams({"unit": UNIT}).axes
    height = {text.get_text(): text.get_position()[1] for text in axis.texts if text.get_text()}
    order = ["1×1, wider", "3×3 depthwise", "average pool", "dense", "×", "+", "ReLU"]
    assert sorted(order, key=height.get, reverse=True) == order
    for patch in axis.patches:
        box = patch.get_path().get_extents()
        assert axis.get_xlim()[0] < box.x0 < box.x1 < axis.get_xlim()[1]
        assert axis.get_ylim()[0] < box.y0 < box.y1 < axis.get_ylim()[1]


def test_paths_of_a_block_diagram_stand_side_by_side():
    (axis,) = plots.block_diagrams({"unit": [("concat", [["a"], ["b", "c"], []])]}).axes
    extents = {t.get_text(): p.get_path().get_extents() for t, p in zip(axis.texts, axis.patches)}
    assert extents["a"].x1 < extents["b"].x0
    assert extents["b"].x0 == extents["c"].x0
    assert extents["a"].y0 == extents["b"].y0 > extents["c"].y1


def test_channels_draws_a_bar_a_layer():
    layers = [("in", 16, ""), ("wider", 48, "1×1"), ("filter", 48, "depthwise")]
    first, second = plots.channels({"one": layers, "other": layers[:1]}).axes
    assert [bar.get_width() for bar in first.patches] == [16, 48, 48]
    assert [label.get_text() for label in first.get_yticklabels()] == ["in", "wider", "filter"]
    assert first.get_ylim()[0] > first.get_ylim()[1], "the input stands on top"
    assert len(second.patches) == 1


POINTS = [("small", 1e6, 0.5), ("middle", 1e7, 0.7), ("wasteful", 5e7, 0.6), ("large", 1e9, 0.8)]


@pytest.mark.parametrize(
    ("budget", "best"), [(1e6, "small"), (6e7, "middle"), (1e10, "large"), (10, None), (None, None)]
)
def test_the_best_within_the_budget_is_marked(budget, best):
    (axis,) = plots.trade_off(POINTS, "cost", "accuracy", budget).axes
    assert {t.get_text() for t in axis.texts} == {name for name, _, _ in POINTS}
    assert [t.get_text() for t in axis.texts if t.get_weight() == "bold"] == ([best] if best else [])
    dots = {line.get_xydata()[0][0]: to_hex(line.get_color()) for line in axis.lines if len(line.get_xydata()) == 1}
    for name, cost, _ in POINTS:
        faded = budget is not None and cost > budget
        expected = "#bbbbbb" if faded else plots.COLOURS["vermilion" if name == best else "blue"].lower()
        assert dots[cost] == expected


def test_names_of_a_trade_off_stay_where_they_are_and_do_not_overlap():
    crowd = [(f"network {i}", 1e6 * 1.3**i, 0.7 + 0.002 * (i % 3)) for i in range(6)]
    frames = [plots.trade_off(crowd, "cost", "accuracy", budget) for budget in (1e6, 1e9)]
    places = [[(t.get_position(), t.xyann) for t in fig.axes[0].texts] for fig in frames]
    assert places[0] == places[1]
    fig = frames[1]
    fig.draw_without_rendering()
    extents = [t.get_window_extent() for t in fig.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(extents) for b in extents[:i])


def test_profiles_show_each_series_with_its_intervals():
    series = {"a": [(0.5, 0.6, 0.5, 0.7), (1, 0.8, 0.7, 0.9)], "b": [(1, 0.4, 0.4, 0.4)]}
    axis = plots.profiles(series, "depth", "accuracy", ylim=(0, 1), title="five", percent=True).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b"]
    assert axis.lines[0].get_xydata().tolist() == [[0.5, 0.6], [1, 0.8]]
    segments = axis.containers[0].lines[2][0].get_segments()
    assert np.allclose(segments, [[[0.5, 0.5], [0.5, 0.7]], [[1, 0.7], [1, 0.9]]])
    assert (axis.get_ylim(), axis.get_title()) == ((0, 1), "five")
    assert axis.xaxis.get_major_formatter()(0.25, 0) == "25%"


def test_matrices_hold_their_numbers_and_frames():
    figure = plots.matrices([("in", np.array([[0.5, np.nan]]), ["column 1"]), ("out", np.eye(2), ["row 0"])], "step")
    first, second = figure.axes
    assert [text.get_text() for text in first.texts] == ["+0.50"]
    assert len(second.texts) == 4
    assert first.patches[0].get_xy() == (0.5, -0.5)
    assert (second.patches[0].get_xy(), second.patches[0].get_width()) == ((-0.5, -0.5), 2)
    assert figure.get_suptitle() == "step"


def test_a_matrix_is_dark_where_it_is_good_whatever_good_means():
    values = [[0.9], [0.5]]
    texts = [["0.900"], ["0.500"]]
    figure = plots.matrix([("accuracy", values, texts, True), ("error", values, texts, False)], ["one", "other"])
    up, down = (axis.images[0].get_array()[:, 0] for axis in figure.axes)
    assert up[0] > up[1] and down[0] < down[1]
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.900", "0.500"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["one", "other"]


def test_clouds_show_every_point_of_every_set():
    points = {"a": np.zeros((3, 2)), "b": np.ones((4, 2)), "left out": np.ones((2, 2))}
    (axis,) = plots.clouds(points, ["a", "b"], "seen by the pixels").axes
    assert [len(cloud.get_offsets()) for cloud in axis.collections] == [3, 4]
    colours = {to_hex(cloud.get_facecolor()[0]) for cloud in axis.collections}
    assert len(colours) == 2 and axis.get_title() == "seen by the pixels"


def test_guesses_put_each_candidate_at_its_score_and_outcome():
    entries = [("letters", 1.0, 0.9), ("textures", 0.2, 0.5), ("letters", 0.8, 0.8)]
    figure = plots.guesses({"digits": entries, "tilt": entries[:1]}, ["letters", "textures"], "LogME", ["a", "b"])
    first, second = figure.axes
    assert first.collections[0].get_offsets().tolist() == [[1.0, 0.9], [0.8, 0.8]]
    assert first.collections[1].get_offsets().tolist() == [[0.2, 0.5]]
    assert len(second.collections) == 1
    assert (first.get_xlabel(), second.get_ylabel()) == ("LogME", "b")


def test_a_tangent_touches_its_curve_with_its_slope():
    x = np.linspace(-1, 1, 21)
    figure = plots.tangents(x, {"square": (x**2, 2 * x), "line": (x, np.ones(21))}, 15, "x", ["y", "slope"], "at 0.5")
    above, below = figure.axes
    tangent = next(line for line in above.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-")
    (x0, x1), (y0, y1) = tangent.get_data()
    assert (y1 - y0) / (x1 - x0) == pytest.approx(2 * x[15])
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((x[15], x[15] ** 2))
    points = [(line.get_xdata().item(), line.get_ydata().item()) for line in below.lines if line.get_marker() == "o"]
    assert points == [(x[15], 2 * x[15]), (x[15], 1)]
    again = plots.tangents(x, {"square": (x**2, 2 * x), "line": (x, np.ones(21))}, 3, "x", ["y", "slope"])
    assert [a.get_ylim() for a in again.axes] == [a.get_ylim() for a in figure.axes]  # the frames can be compared


def test_pushes_are_the_target_minus_the_probabilities():
    figure = plots.pushes(["a", "b", "c"], [0.2, 0.5, 0.3], [0, 1, 0], "step")
    left, right = figure.axes
    assert [bar.get_height() for bar in left.patches] == [0.2, 0.5, 0.3, 0, 1, 0]
    assert [bar.get_height() for bar in right.patches] == pytest.approx([-0.2, 0.5, -0.3])
    up, down = to_hex(right.patches[1].get_facecolor()), to_hex(right.patches[0].get_facecolor())
    assert up != down and down == to_hex(right.patches[2].get_facecolor())
    assert figure.get_suptitle() == "step"


def test_fits_are_straight_lines_through_the_points():
    points = np.array([[0, 1], [2, 5], [4, 30]])
    (axis,) = plots.fits(points, {"MSE": (2, 1), "MAE": (1, 0)}, "x", "y", moved=2, limits=(0, 40), title="t").axes
    first, last = axis.lines[-2:]
    assert (first.get_xdata().tolist(), first.get_ydata().tolist()) == ([0, 4], [1, 9])
    assert (last.get_ydata().tolist(), axis.get_ylim()) == ([0, 4], (0, 40))
    (mark,) = (line for line in axis.lines if line.get_marker() == "X")
    assert (mark.get_xdata().item(), mark.get_ydata().item()) == (4, 30)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["MSE", "MAE"]


def test_intervals_of_a_slider_share_their_axis():
    rows = [("one", 0.5, 0.4, 0.7), ("two", 0.6, 0.5, 0.8)]
    (axis,) = plots.intervals(rows, "accuracy", xlim=(-1, 2), title="20 labels").axes
    assert axis.get_xlim() == (-1, 2) and axis.get_title() == "20 labels"


def test_a_penalty_path_marks_exact_zeros_by_hollow_dots():
    strengths = np.array([0.1, 1.0, 10.0])
    coefficients = np.array([[3.0, 2.0, 0.0], [-1.0, 0.0, 0.0], [0.5, 1e-9, 0.0]])
    above, below = plots.penalty_path(strengths, coefficients, {"test": [0.5, 0.8, 0.1]}, 1, "λ = 1").axes
    curves = [line for line in above.lines if len(line.get_xdata()) == 3]
    np.testing.assert_array_equal([line.get_ydata() for line in curves], coefficients)
    dots = {line.get_markerfacecolor(): line for line in above.lines if line.get_marker() == "o"}
    assert sorted(dots["white"].get_ydata()) == [0.0]
    assert sorted(dots[plots.COLOURS["vermilion"]].get_ydata()) == [1e-9, 2.0]
    for line in dots.values():
        assert set(line.get_xdata()) == {1.0}
    assert [line.get_ydata() for line in below.lines if line.get_marker() == "o"] == [[0.8]]


def test_the_ball_of_a_penalty_touches_the_minimum_that_it_holds():
    optimum, start = np.array([2.0, 1.0]), np.array([0.0, 2.0])
    panels = {
        "L1": (1, np.zeros(2), [optimum, [1.0, 0.0]]),
        "L2": (2, np.zeros(2), [optimum, [0.8, 0.6]]),
        "L2-SP": (2, start, [optimum, [0.3, 2.4]]),
    }
    figure = plots.penalty_balls(lambda w: ((w - optimum) ** 2).sum(axis=-1), optimum, panels, ((-1, 3), (-1, 3)))
    for axis, (power, centre, path) in zip(figure.axes, panels.values(), strict=True):
        corners = axis.patches[0].get_xy()
        sizes = (np.abs(corners - centre) ** power).sum(axis=1)
        np.testing.assert_allclose(sizes, (np.abs(path[-1] - centre) ** power).sum())
        dots = {line.get_marker(): line.get_xydata()[0].tolist() for line in axis.lines}
        assert dots["o"] == path[-1] and dots["x"] == optimum.tolist()
        assert dots.get("D") == (start.tolist() if axis.get_title() == "L2-SP" else None)


def test_a_scatter_of_fits_shows_every_fit_their_mean_and_what_they_should_say():
    points = np.random.default_rng(0).random((7, 2))
    labels, errors = ("score of 3", "score of 8"), {"variance": [3.0, 2.0, 1.0]}
    figure = plots.scatter_of_fits(points, (1, 0), ((-1, 2), (-1, 2)), [0.1, 1, 10], errors, 2, labels, "error")
    left, right = figure.axes
    np.testing.assert_array_equal(left.lines[0].get_xydata(), points)
    by_marker = {line.get_marker(): line.get_xydata() for line in left.lines}
    np.testing.assert_allclose(by_marker["D"], [points.mean(axis=0)])
    np.testing.assert_array_equal(by_marker["X"], [[1, 0]])
    assert right.lines[1].get_xydata().tolist() == [[10, 1]]
    assert (left.get_xlabel(), left.get_ylabel()) == labels


def bowl(points):
    return (np.array([4.0, 1.0]) * np.asarray(points) ** 2).sum(axis=-1)


def test_steps_on_a_curve_lie_on_it_one_panel_a_run():
    runs = {"slow": [1.0, 0.5, 0.25], "fast": [1.0, -2.0, 4.0], "third": [1.0]}
    figure = plots.steps_on_a_curve(np.square, runs, (-3, 3), (0, 9), "w", "loss")
    slow, fast, _, unused = figure.axes
    assert (slow.get_title(), fast.get_title(), unused.axison) == ("slow", "fast", False)
    curve, steps, first = fast.lines
    assert curve.get_xdata()[[0, -1]].tolist() == [-3, 3]
    assert steps.get_xydata().tolist() == [[1, 1], [-2, 4], [4, 16]]
    assert first.get_xydata().tolist() == [[1, 1]]
    assert fast.get_ylim() == (0, 9)


def test_a_trajectory_is_drawn_until_it_leaves_the_map_and_its_loss_to_the_end():
    path = [[1.0, 1.0], [0.5, 1.0], [3.0, 0.0], [0.0, 0.0]]
    figure = plots.trajectory(bowl, path, ((-2, 2), (-2, 2)), (1e-3, 1e2), "rate", ("a", "b"))
    plane, course = figure.axes
    assert plane.lines[0].get_xydata().tolist() == path[:3]
    assert course.lines[0].get_ydata().tolist() == [5, 2, 36, 0]
    assert (plane.get_xlabel(), plane.get_ylabel(), course.get_ylim()) == ("a", "b", (1e-3, 1e2))
    assert figure.get_suptitle() == "rate"
    inside = plots.trajectory(bowl, path[:2], ((-2, 2), (-2, 2)), (1e-3, 1e2)).axes[0]
    assert inside.lines[0].get_xydata().tolist() == path[:2]


def test_logarithmic_lines_show_measurement_theory_bands_and_marks():
    series = {"one": [1.0, 0.1, 0.01], "other": [1.0, 0.5, 0.25]}
    bands = {"other": ([0.9, 0.4, 0.2], [1.1, 0.6, 0.3])}
    figure = plots.log_lines([1, 2, 3], series, "step", "gap", {"one": [1, 0.2, 0.02]}, bands, {"here": 2})
    (axis,) = figure.axes
    assert axis.lines[0].get_ydata().tolist() == [1, 0.1, 0.01]
    theory = [line for line in axis.lines if line.get_linestyle() == ":" and len(line.get_xdata())]
    assert [line.get_ydata().tolist() for line in theory] == [[1, 0.2, 0.02]]
    (band,) = axis.collections
    assert band.get_paths()[0].get_extents().ymin == pytest.approx(0.2)
    (mark,) = [line for line in axis.lines if line.get_linestyle() == "--"]
    assert set(mark.get_xdata()) == {2} and [text.get_text() for text in axis.texts] == ["here"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["one", "other", "theory"]
    assert (axis.get_xscale(), axis.get_yscale()) == ("linear", "log")
    alone = plots.log_lines([1, 2], {"one": [1, 2]}, "x", "y", log_x=True).axes[0]
    assert alone.get_legend() is None and alone.get_xscale() == "log"


def test_settled_puts_every_last_value_above_its_setting():
    (axis,) = plots.settled([0.5, 2.0], [[1e-3, 1e-3], [0.1, 0.4]], "rate", "loss", {"bound": 1.0}).axes
    dots = [line.get_xydata().tolist() for line in axis.lines if line.get_marker() == "."]
    assert dots == [[[0.5, 1e-3], [0.5, 1e-3]], [[2.0, 0.1], [2.0, 0.4]]]
    assert set(axis.lines[-1].get_xdata()) == {1.0} and axis.texts[0].get_text() == "bound"
    assert [(label.get_position()[0], label.get_text()) for label in axis.get_xticklabels()] == [
        (0.5, "0.5"),
        (1, "1"),
        (2, "2"),
    ]


def test_loss_surfaces_share_colours_and_do_not_jump_between_radii():
    x, y = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    panels = {"deep": (x, y, 1e-9 + x**2 + y**2), "high": (x, y, 10 + x)}
    levels = [0.01, 0.1, 1, 10]
    places = []
    for radius in (0.1, 1.0):
        figure = plots.loss_surfaces(panels, radius, levels, title=f"up to {radius}")
        figure.draw_without_rendering()
        deep, high, bar = figure.axes
        assert (deep.get_title(), high.get_title(), bar.get_ylabel()) == ("deep", "high", "loss")
        assert deep.get_xlim() == deep.get_ylim() == (-radius, radius)
        assert {shade.get_clim() for axis in (deep, high) for shade in axis.collections[:1]} == {(0.01, 10)}
        places.append([axis.get_position().bounds for axis in (deep, high)])
    np.testing.assert_allclose(places[0], places[1], atol=1e-3)


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_a_reliability_diagram_shows_every_bin_with_its_interval(binning):
    found = report()
    fig = plots.reliability({"before": found, "after": found.subset(slice(0, 30))}, bins=8, binning=binning)
    first, second, counts, _ = fig.axes
    assert (first.get_title(), second.get_title(), first.get_ylabel()) == ("before", "after", "accuracy")
    assert (counts.get_xlabel(), counts.get_ylabel()) == ("confidence", "images")
    rows = found.reliability(8, binning)
    (bars,) = (container for container in first.containers if container.get_label() == "measured")
    assert bars.lines[0].get_xydata().tolist() == [[row["confidence"], row["accuracy"]] for row in rows]
    ends = np.array([segment[:, 1] for segment in bars.lines[2][0].get_segments()])
    np.testing.assert_allclose(ends, [row["interval"] for row in rows], atol=1e-9)
    assert [bar.get_height() for bar in counts.patches] == [row["images"] for row in rows]
    error = evaluation.calibration_error(found.confidence, found.correct, 8, binning)
    assert first.texts[0].get_text() == f"ECE {error:.3f}"
    assert first.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]
    alone = plots.reliability(found, lowest=0.4, intervals=False).axes
    assert len(alone) == 2 and alone[0].get_xlim()[0] == alone[0].get_ylim()[0] == 0.4
    (dots,) = (line for line in alone[0].lines if line.get_label() == "measured")
    assert dots.get_xydata().tolist() == [[row["confidence"], row["accuracy"]] for row in found.reliability(15)]


def test_residuals_stand_above_what_is_true():
    true = np.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]])
    found = evaluation.report(true + np.array([[0.5, 0], [0, -1], [0, 0]]), true)
    first, second = plots.residuals(found, ["age (years)", "height (cm)"]).axes
    assert first.collections[0].get_offsets().tolist() == [[1, 0.5], [2, 0], [3, 0]]
    assert second.collections[0].get_offsets().tolist() == [[5, 0], [6, -1], [7, 0]]
    assert (first.get_xlabel(), second.get_xlabel()) == ("age (years)", "height (cm)")
    with pytest.raises(ValueError, match="1 names, but 2 outputs"):
        plots.residuals(found, ["age"])


def test_curves_of_thresholds_are_those_of_scikit_learn():
    from sklearn import metrics

    found = report()
    positive, probability = found.labels == 1, found.probabilities[:, 1]
    roc = plots.threshold_curves(found, "roc", ["bee"]).axes[0]
    false, true, _ = metrics.roc_curve(positive, probability, drop_intermediate=False)
    np.testing.assert_allclose(roc.lines[0].get_xydata(), np.stack([false, true], axis=1))
    area = metrics.roc_auc_score(positive, probability)
    assert [text.get_text() for text in roc.get_legend().get_texts()] == [f"bee: area {area:.3f}", "guessing"]
    curve = plots.threshold_curves(found, "precision-recall", ["bee"]).axes[0]
    precision, recall, _ = metrics.precision_recall_curve(positive, probability)
    np.testing.assert_allclose(curve.lines[0].get_xydata()[::-1], np.stack([recall, precision], axis=1)[:-1])


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_a_threshold_is_marked_where_it_leads(threshold):
    found = report()
    positive, called = found.labels == 1, found.probabilities[:, 1] >= threshold
    precision, recall, false = positive[called].mean(), called[positive].mean(), called[~positive].mean()

    def marks(kind):
        lines = plots.threshold_curves(found, kind, ["bee"], threshold).axes[0].lines
        return [line.get_xydata()[0].tolist() for line in lines if len(line.get_xydata()) == 1]

    assert marks("roc") == [pytest.approx([false, recall])]
    assert marks("precision-recall") == [pytest.approx([recall, precision])]
    assert marks("threshold") == [pytest.approx([threshold, precision]), pytest.approx([threshold, recall])]
    axis = plots.threshold_curves(found, "threshold", ["bee"], threshold).axes[0]
    for line, value in zip((line for line in axis.lines if len(line.get_xydata()) > 2), (precision, recall)):
        corners = line.get_path().vertices  # as drawn: steps, from the highest threshold down
        assert corners[np.flatnonzero(corners[:, 0] >= threshold)[-1], 1] == pytest.approx(value)
    beyond = plots.threshold_curves(found, "roc", ["bee"], 1.1).axes[0]
    assert not any(len(line.get_xydata()) == 1 for line in beyond.lines)


def test_curves_of_thresholds_must_be_of_a_kind_and_few():
    found = report()
    assert len(plots.threshold_curves(found).axes[0].lines) == 4  # three classes and the diagonal
    worst = found.class_names[found.areas[:, 1].argmin()]
    assert plots.threshold_curves(found, "threshold").axes[0].get_title() == f"“{worst}” against the rest"
    with pytest.raises(ValueError, match="not 'lift'"):
        plots.threshold_curves(found, "lift")
    with pytest.raises(ValueError, match="shows 1 to 1 classes, not 2"):
        plots.threshold_curves(found, "threshold", ["ant", "bee"])
    with pytest.raises(ValueError, match="shows 1 to 6 classes, not 0"):
        plots.threshold_curves(evaluation.report(np.zeros((3, 2)), np.zeros(3, int)))


def test_the_gallery_of_mistakes_shows_the_images_that_were_mistaken():
    pictures = np.random.default_rng(1).integers(0, 256, (60, 6, 6, 1), dtype=np.uint8)
    found = report()
    examples = data.from_arrays("insects", (pictures, found.labels)).train
    fig = plots.most_confused(found, examples, pairs=2, n=3)
    lines = np.array(fig.axes).reshape(2, -1)
    for line, (true, predicted, count) in zip(lines, found.most_confused(2)):
        assert line[0].texts[0].get_text() == f"{true}, taken\nfor {predicted}\n({count} of 60)"
        names = found.class_names
        wrong = np.flatnonzero((found.labels == names.index(true)) & (found.predictions == names.index(predicted)))
        wrong = wrong[np.argsort(-found.confidence[wrong])][:3]
        shown = [axis for axis in line[1:] if axis.images]
        assert [axis.get_title() for axis in shown] == [f"{found.confidence[i]:.0%}" for i in wrong]
        for axis, i in zip(shown, wrong, strict=True):
            assert np.array_equal(axis.images[0].get_array(), pictures[i, :, :, 0])
    perfect = evaluation.report(np.eye(3), np.arange(3))
    with pytest.raises(ValueError, match="all 3 images were predicted right"):
        plots.most_confused(perfect, examples)


@pytest.mark.parametrize("together", [False, True])
def test_heat_maps_lie_on_their_images(together):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    maps = np.zeros((3, 4, 4))
    maps[0, 0, 0], maps[1, 1, 1], maps[1, 2, 2] = 2, 4, -1
    fig = plots.heatmaps(pictures, maps, ["a", "b", "c"], columns=2, together=together)
    axes = np.array(fig.axes).reshape(4, 2)
    orange, blue = (mpl.colors.to_rgb(plots.COLOURS[name]) for name in ("orange", "blue"))
    for i, largest in enumerate([4 if together else 2, 4, 1]):
        upper, lower = axes[2 * (i // 2), i % 2], axes[2 * (i // 2) + 1, i % 2]
        assert upper.get_title() == "abc"[i]
        assert np.array_equal(upper.images[0].get_array(), pictures[i])
        np.testing.assert_allclose(lower.images[0].get_array(), pictures[i].mean(axis=-1))
        heat = lower.images[1].get_array()
        np.testing.assert_allclose(heat[..., 3], 0.8 * np.abs(maps[i]) / largest)
        assert (heat[..., :3][maps[i] > 0] == orange).all() and (heat[..., :3][maps[i] < 0] == blue).all()
    assert not axes[2, 1].images
    with pytest.raises(ValueError, match="3 images, but 2 maps"):
        plots.heatmaps(pictures, maps[:2])


def test_severities_mark_where_accuracy_and_confidence_stand():
    curves = {"blur": [(0.9, 0.8), (0.7, 0.75), (0.4, 0.7)], "noise": [(0.9, 0.8), (0.5, 0.9), (0.1, 0.95)]}
    pictures = {kind: np.full((4, 4, channels), 90, "uint8") for kind, channels in (("blur", 1), ("noise", 3))}
    figure = plots.severities(pictures, curves, 1, "severity 1")
    assert [axis.get_title() for axis in figure.axes[::2]] == list(curves)
    for axis, (kind, pairs) in zip(figure.axes[1::2], curves.items()):
        drawn = {line.get_label(): line for line in axis.lines}
        assert list(drawn["accuracy"].get_ydata()) == [accuracy for accuracy, _ in pairs]
        assert list(drawn["mean confidence"].get_ydata()) == [confidence for _, confidence in pairs]
        marks = {float(line.get_ydata()[0]) for line in axis.lines if len(line.get_xdata()) == 1}
        assert marks == set(pairs[1]), kind
        assert {int(line.get_xdata()[0]) for line in axis.lines if len(line.get_xdata()) == 1} == {1}
