"""Figures: what is drawn is what was given, in colours that everybody can tell apart, and nothing stays open."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tlutils import evaluation, plots

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
