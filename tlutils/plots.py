"""Every figure of the book, in one style; each function returns a matplotlib Figure and shows nothing itself."""

import numpy as np

# Okabe and Ito's palette: told apart with every common form of colour blindness.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "black": "#222222",
    "gray": "#888888",
}

# One colour and one marker for each method, the same in every chapter.
METHODS = {
    "svm": ("SVM on pixels", COLOURS["gray"], "s"),
    "scratch": ("network from scratch", COLOURS["vermilion"], "^"),
    "probe": ("frozen backbone, linear probe", COLOURS["blue"], "o"),
    "fine_tune": ("probe, then fine-tune", COLOURS["green"], "D"),
}

_STYLE = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 6,
}


def figure(rows=1, columns=1, size=(6.4, 4), **options):
    """An empty figure in the book's style.

    Args:
        rows: Rows of axes.
        columns: Columns of axes.
        size: Width and height in inches.
        **options: As for ``matplotlib.pyplot.subplots``.

    Returns:
        ``(figure, axes)``
    """
    import matplotlib.pyplot as plt

    with plt.rc_context(_STYLE):
        fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **options)
    plt.close(fig)  # a notebook would otherwise show it twice
    return fig, axes


def images(pictures, titles=None, columns=10, side=0.85):
    """A grid of images.

    Args:
        pictures: uint8, shape (N, height, width, 1 or 3).
        titles: One short text an image, or ``None``.
        columns: Images a row.
        side: Size of one image in inches.

    Returns:
        matplotlib.figure.Figure
    """
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    height = side * (1.28 if titles is not None else 1.05)
    fig, axes = figure(rows, columns, (columns * side * 1.05, rows * height), squeeze=False)
    for i, axis in enumerate(axes.flat):
        axis.axis("off")
        if i < len(pictures):
            gray = pictures[i].shape[-1] == 1
            axis.imshow(pictures[i].squeeze() if gray else pictures[i], cmap="gray", vmin=0, vmax=255)
            if titles is not None:
                axis.set_title(str(titles[i]), fontsize=9, pad=2)
    return fig


def budgets(summary, methods=None, highlight=None, chance=None):
    """Accuracy against labels a class, one line a method, intervals as bars.

    Args:
        summary: Rows with ``method``, ``labels_per_class``, ``mean``, ``low``, ``high``.
        methods: Which methods, in order; ``None`` takes all of ``METHODS`` that occur.
        highlight: A label budget to mark with a vertical band, or ``None``.
        chance: Accuracy of guessing, drawn as a dotted line, or ``None``.

    Returns:
        matplotlib.figure.Figure
    """
    present = {row["method"] for row in summary}
    methods = methods or [method for method in METHODS if method in present]
    fig, axis = figure()
    ticks = sorted({row["labels_per_class"] for row in summary})
    spread = np.linspace(-0.035, 0.035, len(methods)) if len(methods) > 1 else [0]
    for shift, method in zip(spread, methods):
        label, colour, marker = METHODS[method]
        rows = sorted((row for row in summary if row["method"] == method), key=lambda row: row["labels_per_class"])
        x = np.array([row["labels_per_class"] for row in rows]) * np.exp(shift)
        mean, low, high = (np.array([row[key] for row in rows]) for key in ("mean", "low", "high"))
        axis.errorbar(x, mean, [mean - low, high - mean], color=colour, marker=marker, label=label, capsize=3)
    if chance is not None:
        axis.axhline(chance, color=COLOURS["black"], linestyle=":", linewidth=1)
        axis.text(ticks[0], chance, "chance", ha="left", va="bottom", fontsize=9)
    if highlight is not None:
        axis.axvspan(highlight * 0.86, highlight * 1.16, color="#F3E9B5", zorder=0)
    axis.set_xscale("log")
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="labels per class", ylabel="test accuracy")
    axis.legend(loc="lower right", frameon=True, facecolor="white", framealpha=1, edgecolor="none")
    return fig


def curves(history, best_epoch=None):
    """Loss and accuracy by epoch, as :class:`~tlutils.training.Fit` holds them.

    Args:
        history: Dict of lists, one value an epoch.
        best_epoch: An epoch to mark, counted from 1.

    Returns:
        matplotlib.figure.Figure
    """
    metric = next((name for name in ("accuracy", "mae") if name in history), None)
    panels = [name for name in ("loss", metric) if name]
    fig, axes = figure(1, len(panels), (4.2 * len(panels), 3.2), squeeze=False)
    for axis, name in zip(axes[0], panels):
        for key, label, colour in (
            (name, "training", COLOURS["blue"]),
            (f"val_{name}", "validation", COLOURS["orange"]),
        ):
            if key in history:
                axis.plot(range(1, len(history[key]) + 1), history[key], color=colour, label=label)
        if best_epoch:
            axis.axvline(best_epoch, color=COLOURS["gray"], linestyle=":", label="kept")
        axis.set(xlabel="epoch", ylabel="mean absolute error" if name == "mae" else name)
    axes[0][0].legend()
    return fig


def confusion(report):
    """The confusion matrix of a :class:`~tlutils.evaluation.Report`: counts, shaded by their share of each true class.

    Args:
        report: A Report of a classifier.

    Returns:
        matplotlib.figure.Figure
    """
    counts = report.confusion
    shade = counts / counts.sum(axis=1, keepdims=True).clip(1)
    n = len(counts)
    side = max(3.6, 0.42 * n + 1.4)
    fig, axis = figure(size=(side, side * 0.92))
    axis.imshow(shade, cmap="Blues", vmin=0)
    for i in range(n):
        for j in range(n):
            if counts[i, j]:
                axis.text(
                    j, i, counts[i, j], ha="center", va="center", fontsize=8, color="w" if shade[i, j] > 0.5 else "k"
                )
    axis.set_xticks(range(n), report.class_names, rotation=90 if max(map(len, report.class_names)) > 3 else 0)
    axis.set_yticks(range(n), report.class_names)
    axis.set(xlabel="predicted", ylabel="true")
    axis.grid(False)
    return fig


def neighbours(points, labels, class_names, labelled, wrong, title):
    """A map of images in which the nearest labelled image has named all others.

    Args:
        points: Positions on the map, shape (N, 2).
        labels: Integer classes, shape (N,); each point is written as the name of its class.
        class_names: Names of the classes; a name longer than one character is written as its number.
        labelled: Boolean mask, shape (N,): the images whose labels are known, drawn in a box.
        wrong: Boolean mask, shape (N,): the images that got a wrong name, drawn in another colour and larger.
        title: Title.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axis = figure(size=(5.6, 5.2))
    short = all(len(name) == 1 for name in class_names)
    for mask, colour, size, weight in (
        (~labelled & ~wrong, COLOURS["blue"], 9, "normal"),
        (~labelled & wrong, COLOURS["vermilion"], 13, "bold"),
        (labelled, COLOURS["black"], 13, "bold"),
    ):
        box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": COLOURS["black"]} if mask is labelled else None
        for (x, y), label in zip(points[mask], labels[mask]):
            text = class_names[label] if short else str(label)
            axis.text(x, y, text, color=colour, size=size, weight=weight, ha="center", va="center", bbox=box)
    margin = 0.06 * np.ptp(points, axis=0)
    xlim, ylim = zip(points.min(axis=0) - margin, points.max(axis=0) + margin)
    axis.set(xlim=xlim, ylim=ylim, xticks=[], yticks=[], title=title)
    axis.spines[:].set_visible(True)
    return fig


def penalties(strengths, series, ylabels):
    """What a measured score does as the penalty of a head changes: one panel a score, one below the other.

    Args:
        strengths: scikit-learn's C, the inverse of the penalty, from strong to weak.
        series: Dict of label budget → list of scores, one array a panel, each as long as ``strengths``.
        ylabels: One label a panel.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axes = figure(len(ylabels), 1, (5.6, 2.6 * len(ylabels)), squeeze=False, sharex=True)
    looks = zip(("vermilion", "orange", "green", "blue"), "^sDo")
    for (name, scores), (colour, marker) in zip(series.items(), looks):
        for axis, values in zip(axes[:, 0], scores):
            axis.plot(strengths, values, color=COLOURS[colour], marker=marker, label=name)
    for axis, ylabel in zip(axes[:, 0], ylabels):
        axis.set(xscale="log", ylabel=ylabel)
    axis.set_xlabel("C (strong penalty ← → weak)")
    axis.legend(title="labels per class")
    return fig


def lines(x, series, xlabel, ylabel):
    """One line a series.

    Args:
        x: Positions on the horizontal axis.
        series: Dict of name → values, each as long as ``x``; up to six.
        xlabel: What the horizontal axis measures, with its unit.
        ylabel: What the vertical axis measures.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axis = figure(size=(5.6, 3.6))
    looks = zip(("gray", "orange", "blue", "green", "vermilion", "purple"), "s^oDvP")
    for (name, values), (colour, marker) in zip(series.items(), looks):
        axis.plot(x, values, color=COLOURS[colour], marker=marker, label=name)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend()
    return fig


def intervals(rows, xlabel, baseline=None):
    """Means with intervals, one line of text a row, such as the settings of one experiment.

    Args:
        rows: ``(label, mean, low, high)`` from top to bottom.
        xlabel: What the axis measures, and what the interval covers.
        baseline: A value to mark with a dotted line, or ``None``.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axis = figure(size=(6.4, 0.42 * len(rows) + 1.1))
    labels, mean, low, high = zip(*rows)
    mean, low, high = map(np.array, (mean, low, high))
    axis.errorbar(mean, range(len(rows)), xerr=[mean - low, high - mean], fmt="o", color=COLOURS["blue"], capsize=3)
    if baseline is not None:
        axis.axvline(baseline, color=COLOURS["gray"], linestyle=":")
    axis.set_yticks(range(len(rows)), labels)
    axis.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
    return fig
