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


def intervals(rows, xlabel, baseline=None, xlim=None, title=""):
    """Means with intervals, one line of text a row, such as the settings of one experiment.

    Args:
        rows: ``(label, mean, low, high)`` from top to bottom.
        xlabel: What the axis measures, and what the interval covers.
        baseline: A value to mark with a dotted line, or ``None``.
        xlim: Limits of the axis, the same for all frames of a slider; ``None`` fits the data.
        title: Title.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axis = figure(size=(6.4, 0.42 * len(rows) + (1.4 if title else 1.1)))
    labels, mean, low, high = zip(*rows)
    mean, low, high = map(np.array, (mean, low, high))
    axis.errorbar(mean, range(len(rows)), xerr=[mean - low, high - mean], fmt="o", color=COLOURS["blue"], capsize=3)
    if baseline is not None:
        axis.axvline(baseline, color=COLOURS["gray"], linestyle=":")
    axis.set_yticks(range(len(rows)), labels)
    axis.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5), xlim=xlim, title=title)
    return fig


# What a box of a block diagram does to its tensor, by the words in it; the first that occurs decides.
_BOX_COLOURS = (
    ("depthwise", COLOURS["green"]),
    ("attention", COLOURS["purple"]),
    ("1×1", COLOURS["orange"]),
    ("dense", COLOURS["orange"]),
    ("conv", COLOURS["blue"]),
    ("pool", COLOURS["gray"]),
    ("average", COLOURS["gray"]),
)
_BOX, _GAP, _SHORTCUT = (2.3, 0.62), 0.5, 0.55  # width and height of a box, length of a line, width of an empty path


def block_diagrams(diagrams, columns=2):
    """Drawings of the units that networks repeat, from the image's side (top) to the output (bottom).

    A unit is a path: a list whose items follow each other. An item is the text of a box, or ``(join, paths)`` for paths
    side by side that meet in a circle, such as ``("+", [["3×3 conv", "3×3 conv"], []])``: two convolutions with a
    shortcut around them. An empty path is a line. Paths may hold further paths.

    Args:
        diagrams: Dict of title → path.
        columns: Drawings side by side.

    Returns:
        matplotlib.figure.Figure: convolutions that look at neighbours are blue, those of one channel each green, those
        of one position each (1×1) orange, pooling gray, attention purple.
    """
    columns = min(columns, len(diagrams))
    rows = [list(diagrams.items())[i : i + columns] for i in range(0, len(diagrams), columns)]
    sizes = [[_path_size(path) for _, path in row] for row in rows]
    widths = [max(row[i][0] for row in sizes if i < len(row)) for i in range(columns)]
    heights = [max(height for _, height in row) + 2 * _GAP for row in sizes]
    scale = 0.5  # inches a unit
    size = (scale * sum(widths) + 0.3 * columns, scale * sum(heights) + 0.4 * len(rows))
    options = {"gridspec_kw": {"width_ratios": widths, "height_ratios": heights}, "squeeze": False}
    fig, axes = figure(len(rows), columns, size, **options)
    for axis in axes.flat:
        axis.axis("off")
    for r, row in enumerate(rows):
        for axis, width, (title, path) in zip(axes[r], widths, row):
            axis.set(xlim=(-width / 2, width / 2), ylim=(-heights[r], 0), aspect="equal")
            axis.set_title(title, fontsize=11)
            end = _draw_path(axis, path, 0, -_GAP)
            _line(axis, 0, 0, 0, -_GAP)
            _line(axis, 0, end, 0, end - _GAP, arrow=True)
    return fig


def _path_size(path):
    sizes = [_item_size(item) for item in path]
    return max([_SHORTCUT, *(w for w, _ in sizes)]), sum(h for _, h in sizes) + _GAP * max(len(path) - 1, 0)


def _item_size(item):
    if isinstance(item, str):
        return _BOX[0] + 0.25, _BOX[1]
    sizes = [_path_size(path) for path in item[1]]
    return sum(w for w, _ in sizes), max(h for _, h in sizes) + 2 * _GAP + _BOX[1]


def _line(axis, x, y, to_x, to_y, arrow=False):
    style = {"color": COLOURS["black"], "linewidth": 1.2}
    if arrow:
        axis.annotate("", (to_x, to_y), (x, y), arrowprops={"arrowstyle": "->", **style})
    else:
        axis.plot([x, to_x], [y, to_y], solid_capstyle="round", **style)


def _draw_path(axis, path, x, y):
    """Draw a path whose top is at (x, y); return the y of its end."""
    for i, item in enumerate(path):
        if i:
            _line(axis, x, y, x, y - _GAP)
            y -= _GAP
        if isinstance(item, str):
            _draw_box(axis, item, x, y)
            y -= _BOX[1]
        else:
            y = _draw_paths(axis, *item, x, y)
    return y


def _draw_box(axis, text, x, y):
    from matplotlib.colors import to_rgb
    from matplotlib.patches import FancyBboxPatch

    colour = next((colour for word, colour in _BOX_COLOURS if word in text.lower()), "#FFFFFF")
    tint = tuple(1 - 0.38 * (1 - part) for part in to_rgb(colour))
    edge = COLOURS["black"] if colour == "#FFFFFF" else colour
    corner = (x - _BOX[0] / 2, y - _BOX[1])
    axis.add_patch(FancyBboxPatch(corner, *_BOX, boxstyle="round,pad=0,rounding_size=0.12", fc=tint, ec=edge, lw=1.2))
    axis.text(x, y - _BOX[1] / 2, text, ha="center", va="center", fontsize=9, color=COLOURS["black"])


def _draw_paths(axis, join, paths, x, y):
    """Draw paths side by side and the circle in which they meet; return the y of the circle's lower end."""
    sizes = [_path_size(path) for path in paths]
    left = x - sum(w for w, _ in sizes) / 2
    bottom = y - max(h for _, h in sizes) - 2 * _GAP
    radius = _BOX[1] / 2
    centres = []
    for path, (width, _) in zip(paths, sizes):
        centre = left + width / 2
        centres.append(centre)
        end = _draw_path(axis, path, centre, y - _GAP)
        _line(axis, centre, y, centre, y - _GAP)
        _line(axis, centre, end, centre, bottom + _GAP / 2)
        left += width
    _line(axis, min(*centres, x), y, max(*centres, x), y)
    _line(axis, min(*centres, x), bottom + _GAP / 2, max(*centres, x), bottom + _GAP / 2)
    _line(axis, x, bottom + _GAP / 2, x, bottom)
    text = {"concat": "‖"}.get(join, join)
    axis.text(
        x, bottom - radius, text, ha="center", va="center", fontsize=11, bbox={"boxstyle": "circle,pad=0.2", "fc": "w"}
    )
    return bottom - _BOX[1]


def channels(blocks, columns=2):
    """How many channels a tensor has after each layer of a block: a bar a layer, from the block's input to its output.

    Args:
        blocks: Dict of title → list of ``(text, channels, kind)``; ``kind`` is ``"3×3"``, ``"depthwise"``, ``"1×1"``,
            ``"pool"`` or ``""`` and decides the colour, as in :func:`block_diagrams`.
        columns: Panels side by side.

    Returns:
        matplotlib.figure.Figure
    """
    colours = {"3×3": "blue", "depthwise": "green", "1×1": "orange", "pool": "gray", "": "black"}
    columns = min(columns, len(blocks))
    rows = -(-len(blocks) // columns)
    counts = [*map(len, blocks.values())]
    longest = [max(counts[i : i + columns]) for i in range(0, len(counts), columns)]
    options = {"gridspec_kw": {"height_ratios": [n + 3 for n in longest]}, "squeeze": False}
    fig, axes = figure(rows, columns, (3.4 * columns, 0.27 * sum(longest) + 0.85 * rows), **options)
    for number, (axis, (title, layers)) in enumerate(zip(axes.flat, blocks.items())):
        for i, (_, width, kind) in enumerate(layers):
            axis.barh(i, width, color=COLOURS[colours[kind]], height=0.7)
            axis.text(width, i, f" {width}", va="center", fontsize=8)
        axis.set_yticks(range(len(layers)), [text for text, _, _ in layers], fontsize=9)
        axis.set(ylim=(longest[number // columns] - 0.4, -0.6), xlim=(0, 1.15 * max(width for _, width, _ in layers)))
        axis.set_title(title, fontsize=11)
        axis.grid(False)
        axis.set_xlabel("channels")
    for axis in axes.flat[len(blocks) :]:
        axis.axis("off")
    return fig


def trade_off(points, xlabel, ylabel, budget=None, title=""):
    """Points with names: what something costs against what it brings, on a logarithmic scale of the cost.

    Args:
        points: ``(name, cost, value)``.
        xlabel: What the horizontal axis measures, with its unit.
        ylabel: What the vertical axis measures.
        budget: The highest cost allowed: what is dearer fades, and the best of the rest is marked. ``None`` marks
            nothing.
        title: Title; give all frames of a slider titles of one line.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axis = figure(size=(6.4, 5.2))
    _, x, y = zip(*points)
    axis.set(xscale="log", xlabel=xlabel, ylabel=ylabel, title=title)
    axis.set_xlim(min(x) / 1.6, max(x) * 1.6)
    margin = 0.08 * (max(y) - min(y))
    axis.set_ylim(min(y) - margin, max(y) + margin)
    affordable = [point for point in points if budget is None or point[1] <= budget]
    best = max(affordable, key=lambda point: (point[2], -point[1])) if affordable and budget is not None else None
    if budget is not None:
        axis.axvspan(budget, max(x) * 1.6, color="#EEEEEE", zorder=0)
        axis.axvline(budget, color=COLOURS["black"], linestyle=":", linewidth=1.5)
    for point, place in zip(points, _label_places(fig, axis, points)):
        inside, marked = point in affordable, point is best
        colour = COLOURS["vermilion"] if marked else COLOURS["blue"] if inside else "#BBBBBB"
        marker, size = ("D", 10) if marked else ("o", 6)
        axis.plot(*point[1:], marker, color=colour, markersize=size)
        weight, text = ("bold" if marked else "normal"), (COLOURS["black"] if inside else "#777777")
        axis.annotate(point[0], point[1:], textcoords="offset points", fontsize=9, weight=weight, color=text, **place)
    return fig


def _label_places(fig, axis, points, font=9):
    """For each point, on which side its name stands: the first of four where it covers no point and no other name."""
    fig.draw_without_rendering()
    per_point = fig.dpi / 72
    spots = [axis.transData.transform(point[1:]) / per_point for point in points]
    frame = axis.get_window_extent()
    edges = frame.x0 / per_point, frame.x1 / per_point
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots]
    places = []
    for (name, *_), (x, y) in zip(points, spots):
        width, half = 0.56 * font * len(name), 0.6 * font
        options = [
            ((x + 9, y - half, x + 9 + width, y + half), {"xytext": (9, 0), "ha": "left", "va": "center"}),
            ((x - 9 - width, y - half, x - 9, y + half), {"xytext": (-9, 0), "ha": "right", "va": "center"}),
            (
                (x - width / 2, y + 8, x + width / 2, y + 8 + 2 * half),
                {"xytext": (0, 8), "ha": "center", "va": "bottom"},
            ),
            ((x - width / 2, y - 8 - 2 * half, x + width / 2, y - 8), {"xytext": (0, -8), "ha": "center", "va": "top"}),
        ]

        def collisions(option):
            (left, low, right, high), _ = option
            outside = (left < edges[0]) + (right > edges[1])
            return outside + sum(left < c and a < right and low < d and b < high for a, b, c, d in taken)

        box, place = min(options, key=collisions)
        taken.append(box)
        places.append(place)
    return places


def matrix(panels, rows, columns=None):
    """Tables of numbers as shaded cells, one a panel, side by side; dark is good.

    Args:
        panels: Tuples ``(title, values, texts, higher_is_better)``: values of shape (rows, columns), and a short text a
            cell. Each panel has its own scale, because each may have its own unit.
        rows: Names of the rows.
        columns: Names of the columns, the same in all panels; ``None`` for a single column without a name.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axes = figure(1, len(panels), (1.7 * len(panels) + 1.2, 0.46 * len(rows) + 1.5), squeeze=False, sharey=True)
    for axis, (title, values, texts, higher_is_better) in zip(axes[0], panels):
        values = np.asarray(values, float)
        good = values if higher_is_better else -values
        shade = (good - good.min()) / max(np.ptp(good), 1e-12)
        axis.imshow(0.08 + 0.77 * shade, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (i, j), share in np.ndenumerate(shade):
            axis.text(j, i, texts[i][j], ha="center", va="center", fontsize=11, color="w" if share > 0.6 else "k")
        axis.set_xticks(range(values.shape[1]), columns or [""] * values.shape[1], rotation=45, ha="right", fontsize=9)
        axis.set_title(title, fontsize=10.5)
        axis.grid(False)
        axis.tick_params(length=0)
    axes[0][0].set_yticks(range(len(rows)), rows)
    return fig


def clouds(points, names, title):
    """Images of several data sets on one map, a colour and a marker for each set.

    Args:
        points: Dict of name → positions, shape (N, 2).
        names: Which sets, in the order of the legend; up to six.
        title: Title.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axis = figure(size=(5.6, 5.0))
    looks = zip(("black", "blue", "green", "orange", "purple", "vermilion"), "osDv^P")
    for name, (colour, marker) in zip(names, looks):
        x, y = np.asarray(points[name]).T
        axis.scatter(x, y, s=16, marker=marker, color=COLOURS[colour], alpha=0.55, linewidths=0, label=name)
    axis.set(xticks=[], yticks=[], title=title)
    axis.spines[:].set_visible(True)
    fig.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, markerscale=1.6, frameon=False)
    return fig


def guesses(panels, groups, xlabel, ylabels):
    """Scores against what came out, one panel a target, below each other: a perfect ranking climbs from left to right.

    Args:
        panels: Dict of title → list of ``(group, score, outcome)``.
        groups: Names of the groups, each with a colour and a marker of its own; up to five.
        xlabel: What the score is.
        ylabels: What the outcome of each panel is, with its unit.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axes = figure(len(panels), 1, (5.0, 2.6 * len(panels) + 1.0), squeeze=False)
    looks = dict(zip(groups, zip(("blue", "green", "orange", "purple", "gray"), "oD^sv")))
    for axis, (title, entries), ylabel in zip(axes[:, 0], panels.items(), ylabels):
        for group, (colour, marker) in looks.items():
            found = [(score, outcome) for name, score, outcome in entries if name == group]
            if found:
                axis.scatter(*zip(*found), color=COLOURS[colour], marker=marker, s=42, label=group)
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(groups), frameon=False)
    return fig


def profiles(series, xlabel, ylabel, ylim=None, title="", percent=False):
    """One line a series with intervals as bars, such as accuracy against the depth at which networks were cut.

    Args:
        series: Dict of name → list of ``(x, mean, low, high)``; up to six.
        xlabel: What the horizontal axis measures.
        ylabel: What the vertical axis measures, and what the bars cover.
        ylim: Limits of the vertical axis, so that several figures can be compared; ``None`` fits the data.
        title: Title.
        percent: Write the horizontal axis in per cent.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axis = figure(size=(5.6, 4.2))
    looks = zip(("vermilion", "blue", "green", "purple", "orange", "gray"), "^osDvP")
    for (name, points), (colour, marker) in zip(series.items(), looks):
        x, mean, low, high = np.array(points, float).T
        style = {"color": COLOURS[colour], "marker": marker, "label": name, "capsize": 3}
        axis.errorbar(x, mean, [np.maximum(mean - low, 0), np.maximum(high - mean, 0)], **style)
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=ylim, title=title)
    if percent:
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.legend(loc="lower right", fontsize=9.5, ncols=2 if len(series) > 3 else 1)  # where it does not jump
    return fig


def matrices(panels, title="", limit=1.0):
    """Small matrices side by side, with their numbers and some of their rows or columns framed.

    Args:
        panels: ``(title, matrix, frames)``: a matrix (rows, columns), where NaN leaves a place empty, and the names of
            what to frame, such as ``["row 2", "column 0"]``.
        title: Title of the whole.
        limit: The value of the darkest shade, in either direction.

    Returns:
        matplotlib.figure.Figure
    """
    from matplotlib.patches import Rectangle

    widths = [matrix.shape[1] for _, matrix, _ in panels]
    height = max(matrix.shape[0] for _, matrix, _ in panels)
    size = (0.62 * sum(widths) + 0.6 * len(panels), 0.52 * height + 1.2)
    fig, axes = figure(1, len(panels), size, squeeze=False, width_ratios=widths)
    for axis, (name, matrix, frames) in zip(axes[0], panels):
        axis.imshow(matrix, cmap="PuOr", vmin=-limit, vmax=limit)
        for (row, column), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                colour = "w" if abs(value) > 0.6 * limit else "k"
                axis.text(column, row, f"{value:+.2f}", ha="center", va="center", fontsize=8, color=colour)
        for frame in frames:
            kind, number = frame.split()
            place = (-0.5, int(number) - 0.5) if kind == "row" else (int(number) - 0.5, -0.5)
            width, tall = (matrix.shape[1], 1) if kind == "row" else (1, matrix.shape[0])
            axis.add_patch(Rectangle(place, width, tall, fill=False, edgecolor=COLOURS["green"], linewidth=3))
        axis.set(xticks=[], yticks=[], anchor="N")
        axis.set_title(name, fontsize=10)
        axis.grid(False)
        axis.spines[:].set_visible(False)
    fig.suptitle(title, fontsize=11)
    return fig


def tangents(x, series, at, xlabel, ylabels, title=""):
    """Curves above, their slopes below, and one place marked on each: a point with its tangent, and its slope.

    Args:
        x: Positions on the horizontal axis, ascending.
        series: Dict of name → ``(values, slopes)``, each as long as ``x``; up to four.
        at: Index into ``x`` of the place that is marked.
        xlabel: What the horizontal axis measures.
        ylabels: What the curves and what the slopes measure.
        title: Title; give all frames of a slider titles of one line.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axes = figure(2, 1, (5.6, 5.6), sharex=True, height_ratios=(3, 2))
    reach = 0.12 * (x[-1] - x[0])
    for (name, curves), (colour, style) in zip(
        series.items(), zip(("blue", "vermilion", "green", "purple"), ("-", "--", "-.", ":"))
    ):
        for axis, values in zip(axes, curves):
            axis.plot(x, values, color=COLOURS[colour], linestyle=style, label=name)
            axis.plot(x[at], values[at], "o", color=COLOURS[colour], markersize=9)
        value, slope = curves[0][at], curves[1][at]
        ends = np.array([-reach, reach])
        axes[0].plot(x[at] + ends, value + slope * ends, color=COLOURS["black"], linewidth=1.5)
    for axis, ylabel, which in zip(axes, ylabels, (0, 1)):
        values = np.concatenate([curves[which] for curves in series.values()])
        margin = 0.08 * np.ptp(values)
        axis.set(ylabel=ylabel, xlim=(x[0] - reach, x[-1] + reach), ylim=(values.min() - margin, values.max() + margin))
        axis.axvline(x[at], color=COLOURS["gray"], linestyle=":", linewidth=1)
    axes[0].set_title(title)
    axes[0].legend(loc="upper right")
    axes[1].set_xlabel(xlabel)
    return fig


def pushes(names, probabilities, target, title=""):
    """What a classifier believes about one image beside how the cross-entropy pushes its logits: up or down.

    Args:
        names: Names of the classes.
        probabilities: Shape (classes,).
        target: What it should believe, shape (classes,); a one-hot vector or soft labels.
        title: Title.

    Returns:
        matplotlib.figure.Figure: on the left the probabilities, the target as an outline; on the right the target
        minus the probabilities, which is the direction of a step downhill.
    """
    fig, (left, right) = figure(1, 2, (7.2, 3.2))
    places, push = np.arange(len(names)), np.asarray(target) - np.asarray(probabilities)
    left.bar(places, probabilities, color=COLOURS["sky"], label="p")
    left.bar(places, target, color="none", edgecolor=COLOURS["black"], linewidth=1.5, label="y")
    left.legend(loc="upper center", ncols=2)
    right.bar(places, push, color=[COLOURS["green" if value > 0 else "vermilion"] for value in push])
    right.axhline(0, color=COLOURS["black"], linewidth=1)
    turned = 90 if max(map(len, names)) > 3 else 0
    for axis in (left, right):
        axis.set_xticks(places, names, rotation=turned)
        axis.set_xlabel("class")
    left.set(ylim=(0, 1.25), yticks=np.linspace(0, 1, 6), ylabel="probability")
    right.set(ylim=(-1.05, 1.05), ylabel="push on the logit, y − p")
    fig.suptitle(title, fontsize=11)
    return fig


def fits(points, fitted, xlabel, ylabel, moved=None, limits=None, title=""):
    """Points with straight lines through them, such as the fits of several losses.

    Args:
        points: Positions, shape (N, 2).
        fitted: Dict of name → ``(slope, intercept)``; up to four.
        xlabel: What the horizontal axis measures, with its unit.
        ylabel: What the vertical axis measures, with its unit.
        moved: Index of a point to mark, or ``None``.
        limits: Limits of the vertical axis, the same for all frames of a slider; ``None`` fits the data.
        title: Title.

    Returns:
        matplotlib.figure.Figure
    """
    points = np.asarray(points, float)
    fig, axis = figure(size=(5.6, 4.4))
    axis.plot(*points.T, "o", color=COLOURS["gray"])
    if moved is not None:
        axis.plot(*points[moved], "X", color=COLOURS["black"], markersize=12)
    ends = np.array([points[:, 0].min(), points[:, 0].max()])
    looks = zip(("vermilion", "blue", "green", "purple"), ("-", "--", "-.", ":"))
    for (name, (slope, intercept)), (colour, style) in zip(fitted.items(), looks):
        axis.plot(ends, slope * ends + intercept, color=COLOURS[colour], linestyle=style, label=name)
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=limits, title=title)
    axis.legend(loc="upper left")
    return fig


def steps_on_a_curve(loss, paths, xlim, ylim, xlabel, ylabel):
    """What gradient descent does with one parameter: the loss as a curve and the steps on it, one panel a run.

    Args:
        loss: Function of an array of parameters that gives the loss of each.
        paths: Dict of title → the parameter after each step, beginning with the start; panels stand two a row.
        xlim: Limits of the parameter; steps beyond them are not drawn.
        ylim: Limits of the loss.
        xlabel: What the parameter is.
        ylabel: What the loss is.

    Returns:
        matplotlib.figure.Figure
    """
    rows = -(-len(paths) // 2)
    fig, axes = figure(rows, 2, (6.0, 2.2 * rows), squeeze=False, sharex=True, sharey=True)
    x = np.linspace(*xlim, 200)
    for axis, (title, path) in zip(axes.flat, paths.items()):
        path = np.asarray(path, float)
        axis.plot(x, loss(x), color=COLOURS["gray"])
        axis.plot(path, loss(path), color=COLOURS["blue"], marker="o", markersize=4.5, linewidth=1.2)
        axis.plot(path[0], loss(path[0]), color=COLOURS["vermilion"], marker="D", linestyle="none")
        axis.set(xlim=xlim, ylim=ylim)
        axis.set_title(title, fontsize=11)
    for axis in axes[-1]:
        axis.set_xlabel(xlabel)
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    for axis in axes.flat[len(paths) :]:
        axis.axis("off")
    return fig


def trajectory(loss, path, limits, gaps, title="", names=("w₁", "w₂")):
    """The way of an optimizer through two parameters: on a map of the loss, and the loss after each step.

    Args:
        loss: Function of points, shape (..., 2), that gives the loss above its minimum, shape (...).
        path: The parameters after each step, shape (steps + 1, 2), beginning with the start.
        limits: ``(xlim, ylim)`` of the map; what lies outside is not drawn.
        gaps: Limits of the loss in the second panel, on a logarithmic scale.
        title: Title of the whole, of one line.
        names: Names of the two parameters.

    Returns:
        matplotlib.figure.Figure
    """
    path = np.asarray(path, float)
    fig, (plane, course) = figure(1, 2, (5.6, 2.9), width_ratios=(1.1, 1))
    x, y = np.meshgrid(*(np.linspace(*limit, 121) for limit in limits))
    height = loss(np.stack([x, y], axis=-1))
    levels = height.max() * 0.5 ** np.arange(7)[::-1]
    plane.contour(x, y, height, levels, colors=COLOURS["gray"], linewidths=0.8)
    shown = path[: _first_outside(path, limits) + 1]
    plane.plot(*shown.T, color=COLOURS["blue"], marker="o", markersize=4, linewidth=1.2)
    plane.plot(*path[0], color=COLOURS["vermilion"], marker="D")
    plane.set(xlim=limits[0], ylim=limits[1], xlabel=names[0], ylabel=names[1])
    plane.grid(False)
    course.plot(loss(path), color=COLOURS["blue"])
    course.set(yscale="log", ylim=gaps, xlim=(0, len(path) - 1), xlabel="step", ylabel="loss above minimum")
    fig.suptitle(title, fontsize=12)
    return fig


def _first_outside(path, limits):
    """The first step beyond the limits, which is still drawn so that one sees where it went; or the last one."""
    low, high = np.transpose(limits)
    outside = np.flatnonzero(((path < low) | (path > high)).any(axis=1))
    return outside[0] if len(outside) else len(path) - 1


def log_lines(x, series, xlabel, ylabel, expected=None, bands=None, marks=None, log_x=False, ylim=None):
    """Lines on a logarithmic scale, such as the loss against the step, beside what the theory expects.

    Args:
        x: Positions, the same for all lines.
        series: Dict of name → values; up to six.
        xlabel: What the horizontal axis measures.
        ylabel: What the vertical axis measures.
        expected: Dict of name → values by theory, dotted in the colour of the series of this name; or ``None``.
        bands: Dict of name → ``(low, high)``, shaded in the colour of the series of this name; or ``None``.
        marks: Dict of text → position on the horizontal axis, a vertical line each; or ``None``.
        log_x: Whether the horizontal axis is logarithmic too.
        ylim: Limits of the vertical axis; ``None`` fits the data.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axis = figure(size=(5.6, 3.5))
    looks = zip(("vermilion", "blue", "green", "orange", "purple", "gray"), "^osDvP")
    for (name, values), (colour, marker) in zip(series.items(), looks):
        style = {"color": COLOURS[colour], "marker": marker, "markevery": max(1, len(x) // 8)}
        axis.plot(x, values, label=name, **style)
        if name in (bands or {}):
            axis.fill_between(x, *bands[name], color=COLOURS[colour], alpha=0.18, linewidth=0)
        if name in (expected or {}):
            axis.plot(x, expected[name], color=COLOURS["black"], linestyle=":", linewidth=1.6)
    axis.set(yscale="log", xlabel=xlabel, ylabel=ylabel, ylim=ylim, xscale="log" if log_x else "linear")
    for text, place in (marks or {}).items():
        axis.axvline(place, color=COLOURS["black"], linestyle="--", linewidth=1)
        axis.annotate(text, (place, 1), (3, -2), ("data", "axes fraction"), "offset points", va="top", fontsize=9)
    if expected:
        axis.plot([], [], color=COLOURS["black"], linestyle=":", label="theory")
    if len(series) > 1 or expected:
        axis.legend(fontsize=9.5)
    return fig


def settled(x, values, xlabel, ylabel, marks):
    """Where a repeated computation ends up: all its last values above the setting that they belong to.

    One dot a setting: it has settled. Two: it jumps between two values. A cloud: it never repeats.

    Args:
        x: Settings, on a logarithmic scale; those of 0.3, 0.5, 1, 2, 3, 5 and 10 that lie between are labelled.
        values: One array a setting, on a logarithmic scale.
        xlabel: What the setting is.
        ylabel: What the value is.
        marks: Dict of text → setting to mark with a vertical line.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axis = figure(size=(5.8, 3.6))
    for place, last in zip(x, values):
        axis.plot(np.full(len(last), place), last, ".", color=COLOURS["blue"], markersize=2.5, alpha=0.6)
    axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    axis.minorticks_off()
    ticks = [tick for tick in (0.3, 0.5, 1, 2, 3, 5, 10) if min(x) <= tick <= max(x)]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    for text, place in marks.items():
        axis.axvline(place, color=COLOURS["vermilion"], linestyle="--", linewidth=1.2)
        axis.annotate(text, (place, 1), (-3, -2), ("data", "axes fraction"), "offset points", ha="right", va="top")
    return fig


def loss_surfaces(panels, radius, levels, title=""):
    """Slices of a loss through two directions around a point, side by side in the same colours: dark is low.

    Args:
        panels: Dict of title → ``(x, y, loss)``: coordinates along the two directions and the loss there, each of shape
            (rows, columns); any grid whose neighbours are neighbours, polar for one.
        radius: How far from the point the slices are shown.
        levels: Boundaries between the colours, ascending, for a logarithmic scale; what lies outside takes the first or
            the last colour.
        title: Title of the whole, of one line.

    Returns:
        matplotlib.figure.Figure
    """
    from matplotlib.colors import LogNorm

    fig, axes = figure(1, len(panels), (2.4 * len(panels) + 0.8, 3.0), squeeze=False, sharey=True)
    norm = LogNorm(levels[0], levels[-1])
    for axis, (name, (x, y, loss)) in zip(axes[0], panels.items()):
        inside = np.clip(loss, levels[0], levels[-1])
        shades = axis.contourf(x, y, inside, levels, norm=norm, cmap="viridis")
        axis.contour(x, y, inside, levels, colors="white", linewidths=0.4)
        axis.plot(0, 0, "D", color=COLOURS["vermilion"], markeredgecolor="white")
        axis.set(xlim=(-radius, radius), ylim=(-radius, radius), aspect="equal", xlabel="along direction 1")
        axis.set_title(name, fontsize=11)
        axis.grid(False)
        ticks = (-radius / 2, 0, radius / 2)  # as long in print at every radius, so that nothing jumps
        axis.set_xticks(ticks, [f"{tick:.2f}" for tick in ticks])
        axis.set_yticks(ticks, [f"{tick:.2f}" for tick in ticks])
    axes[0][0].set_ylabel("along direction 2")
    bar = fig.colorbar(shades, ax=axes[0], label="loss", shrink=0.85)
    bar.set_ticks(levels[::2], labels=[f"{level:g}" for level in levels[::2]])
    bar.minorticks_off()
    fig.suptitle(title, fontsize=12)
    return fig


def penalty_path(strengths, coefficients, scores, at, title=""):
    """What a penalty does as it grows: to each coefficient above, to the accuracy below.

    Args:
        strengths: λ, ascending, on a logarithmic scale.
        coefficients: Shape (coefficients, strengths).
        scores: Dict of name → accuracies, each as long as ``strengths``; up to three.
        at: Index of the strength that is marked.
        title: Title; give all frames of a slider titles of one line.

    Returns:
        matplotlib.figure.Figure: at the marked strength a dot on each coefficient, hollow where it is exactly zero.
    """
    coefficients = np.asarray(coefficients, float)
    fig, (above, below) = figure(2, 1, (4.8, 4.2), sharex=True, height_ratios=(3, 2))
    above.plot(strengths, coefficients.T, color=COLOURS["sky"], linewidth=1)
    marked = coefficients[:, at]
    for values, colour in ((marked[marked != 0], COLOURS["vermilion"]), (marked[marked == 0], "white")):
        style = {"markerfacecolor": colour, "markeredgecolor": COLOURS["vermilion"], "zorder": 3}
        above.plot(np.full(len(values), strengths[at]), values, "o", markersize=4.5, **style)
    for (name, values), (colour, style) in zip(scores.items(), zip(("orange", "green", "black"), ("--", "-", ":"))):
        below.plot(strengths, values, color=COLOURS[colour], linestyle=style, label=name)
        below.plot(strengths[at], values[at], "o", color=COLOURS[colour], markersize=8)
    for axis in (above, below):
        axis.axvline(strengths[at], color=COLOURS["gray"], linestyle=":", linewidth=1)
    above.set(ylabel="coefficient", title=title)
    below.set(xscale="log", xlabel="strength of the penalty, λ", ylabel="accuracy")
    below.minorticks_off()
    below.legend(loc="lower center", fontsize=9.5)
    return fig


def penalty_balls(loss, optimum, panels, limits, title=""):
    """Where a penalty holds two weights: contours of the loss, and the ball of the penalty that its minimum touches.

    Args:
        loss: Function of points, shape (..., 2), that gives the loss, shape (...).
        optimum: Where the loss is smallest, shape (2,).
        panels: Dict of title → ``(power, centre, path)``: 1 for a ball of ``Σ |w|``, 2 for one of ``Σ w²``, around the
            centre, shape (2,), and the minima of loss plus penalty for growing strengths, shape (n, 2); the last is
            marked.
        limits: ``(xlim, ylim)``.
        title: Title of the whole, of one line.

    Returns:
        matplotlib.figure.Figure
    """
    fig, axes = figure(1, len(panels), (2.3 * len(panels), 2.8), squeeze=False, sharey=True)
    x, y = np.meshgrid(*(np.linspace(*limit, 121) for limit in limits))
    height = loss(np.stack([x, y], axis=-1)) - loss(np.asarray(optimum, float))
    for axis, (name, (power, centre, path)) in zip(axes[0], panels.items()):
        path, centre = np.asarray(path, float), np.asarray(centre, float)
        held, away = path[-1], path[-1] - centre
        axis.axhline(0, color=COLOURS["gray"], linewidth=0.8)
        axis.axvline(0, color=COLOURS["gray"], linewidth=0.8)
        axis.contour(x, y, height, height.max() * 0.35 ** np.arange(5)[::-1], colors=COLOURS["gray"], linewidths=0.7)
        touching = loss(held) - loss(np.asarray(optimum, float))
        if touching > 0:
            axis.contour(x, y, height, [touching], colors=COLOURS["blue"], linewidths=1.6)
        if power == 1:
            corners = centre + np.abs(away).sum() * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
        else:
            angle = np.linspace(0, 2 * np.pi, 100)
            corners = centre + np.hypot(*away) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        axis.fill(*corners.T, color=COLOURS["orange"], alpha=0.35, linewidth=0)
        axis.plot(*path.T, color=COLOURS["vermilion"], linewidth=1.2)
        axis.plot(*optimum, "x", color=COLOURS["black"], markersize=8, markeredgewidth=2)
        axis.plot(*held, "o", color=COLOURS["vermilion"], markersize=8)
        if centre.any():
            axis.plot(*centre, "D", color=COLOURS["green"], markersize=7)
        axis.set(xlim=limits[0], ylim=limits[1], aspect="equal", xlabel="w₁")
        axis.set_title(name, fontsize=11)
        axis.grid(False)
    axes[0][0].set_ylabel("w₂")
    fig.suptitle(title, fontsize=12)
    return fig


def scatter_of_fits(points, target, limits, strengths, series, at, labels, ylabel, title=""):
    """How fits to several draws of the data scatter around what they should say, beside their errors by strength.

    Args:
        points: What each fit says at the marked strength, shape (draws, 2).
        target: What it should say, shape (2,).
        limits: ``(xlim, ylim)`` of these.
        strengths: λ, ascending, on a logarithmic scale.
        series: Dict of name → errors, each as long as ``strengths``; up to four.
        at: Index of the strength that is marked.
        labels: What the two coordinates are.
        ylabel: What the errors are.
        title: Title of the whole, of one line.

    Returns:
        matplotlib.figure.Figure: on the left one dot a fit, their mean, and the target; on the right the errors.
    """
    points = np.asarray(points, float)
    fig, (left, right) = figure(1, 2, (6.4, 3.2), width_ratios=(1, 1.15))
    left.plot(*points.T, "o", color=COLOURS["sky"], markersize=5, alpha=0.8)
    left.plot([points[:, 0].mean(), target[0]], [points[:, 1].mean(), target[1]], color=COLOURS["black"], linewidth=1)
    left.plot(*points.mean(axis=0), "D", color=COLOURS["vermilion"], markersize=9, markeredgecolor="white")
    left.plot(*target, "X", color=COLOURS["black"], markersize=11, markeredgecolor="white")
    left.set(xlim=limits[0], ylim=limits[1], xlabel=labels[0], ylabel=labels[1])
    looks = zip(("vermilion", "sky", "black", "green"), ("-", "--", "-", ":"))
    for (name, values), (colour, style) in zip(series.items(), looks):
        right.plot(strengths, values, color=COLOURS[colour], linestyle=style, label=name)
        right.plot(strengths[at], values[at], "o", color=COLOURS[colour], markersize=7)
    right.axvline(strengths[at], color=COLOURS["gray"], linestyle=":", linewidth=1)
    right.set(xscale="log", xlabel="strength of the penalty, λ", ylabel=ylabel, ylim=(0, None))
    right.minorticks_off()
    right.legend(fontsize=9.5)
    fig.suptitle(title, fontsize=12)
    return fig


# --- evaluation -------------------------------------------------------------------------------------------------------


def reliability(reports, bins=15, binning="width", lowest=0.0, intervals=True):
    """Reliability diagrams: accuracy against confidence, bin by bin, with Wilson's 95% intervals; below, the images.

    On the diagonal the model is right as often as it says; below it, it is too sure of itself.

    Args:
        reports: A :class:`~tlutils.evaluation.Report` of a classifier, or a dict of title → Report, one panel each.
        bins: Number of bins.
        binning: ``"width"`` or ``"mass"``, see :func:`tlutils.evaluation.calibration_error`.
        lowest: Where the axes begin.
        intervals: Whether to draw the intervals; leave them out where an image counts more than once.

    Returns:
        matplotlib.figure.Figure
    """
    from tlutils.evaluation import calibration_error

    panels = reports if isinstance(reports, dict) else {"": reports}
    options = {"squeeze": False, "sharex": True, "sharey": "row", "gridspec_kw": {"height_ratios": [3, 1]}}
    fig, axes = figure(2, len(panels), (3.6 * len(panels) + 0.6, 4.6), **options)
    for i, (title, report) in enumerate(panels.items()):
        upper, lower = axes[:, i]
        rows = report.reliability(bins, binning)
        x, y, images = (np.array([row[key] for row in rows]) for key in ("confidence", "accuracy", "images"))
        upper.plot([0, 1], [0, 1], color=COLOURS["gray"], linestyle=":", label="calibrated")
        if intervals:
            low, high = np.array([row["interval"] for row in rows]).T
            bars = [np.maximum(y - low, 0), np.maximum(high - y, 0)]
            upper.errorbar(x, y, bars, fmt="o", color=COLOURS["blue"], capsize=3, label="measured")
        else:
            upper.plot(x, y, "o", color=COLOURS["blue"], label="measured")
        upper.set(xlim=(lowest, 1.02), ylim=(lowest, 1.02), ylabel="accuracy", xlabel="", title=title)
        error = calibration_error(report.confidence, report.correct, bins, binning)
        upper.text(0.04, 0.95, f"ECE {error:.3f}", va="top", fontsize=10, transform=upper.transAxes)
        lower.bar(x, images, width=0.035, color=COLOURS["sky"])
        lower.set(xlabel="confidence", ylabel="images")
    axes[0][0].legend(loc="lower right", fontsize=9)
    return fig


def residuals(report, output_names=None):
    """What a regression gets wrong, against what is true: one panel an output.

    Args:
        report: A :class:`~tlutils.evaluation.Report` of a regression.
        output_names: One name an output, with its unit; ``None`` numbers them.

    Returns:
        matplotlib.figure.Figure: points above the line were guessed too high.
    """
    true, wrong = (np.asarray(part).reshape(len(report), -1) for part in (report.labels, report.residuals))
    count = true.shape[1]
    names = output_names or (["true value"] if count == 1 else [f"true value {i}" for i in range(count)])
    if len(names) != count:
        raise ValueError(f"there are {len(names)} names, but {count} outputs")
    fig, axes = figure(1, count, (4.6 * count, 3.6), squeeze=False)
    for i, (axis, name) in enumerate(zip(axes[0], names)):
        axis.scatter(true[:, i], wrong[:, i], s=16, color=COLOURS["blue"], alpha=0.6, linewidths=0)
        axis.axhline(0, color=COLOURS["black"], linewidth=1)
        axis.set(xlabel=name, ylabel="predicted − true")
    return fig


_THRESHOLD_AXES = {
    "roc": ("false positive rate", "true positive rate (recall)"),
    "precision-recall": ("recall", "precision"),
    "threshold": ("threshold of the probability", ""),
}


def threshold_curves(report, kind="roc", classes=None, threshold=None):
    """What a threshold does, one class against all others.

    Args:
        report: A :class:`~tlutils.evaluation.Report` of a classifier.
        kind: ``"roc"``, ``"precision-recall"``, or ``"threshold"``: precision and recall against the threshold, of a
            single class.
        classes: Names of up to six classes; ``None`` takes those with the smallest areas (``"threshold"``: one).
        threshold: A probability to mark, or ``None``: what happens if everything above it is taken for the class.

    Returns:
        matplotlib.figure.Figure

    Raises:
        ValueError: ``kind`` is none of the three, there are no classes, more than six, or, for ``"threshold"``, more
            than one.
    """
    if kind not in _THRESHOLD_AXES:
        raise ValueError(f"kind must be one of {', '.join(map(repr, _THRESHOLD_AXES))}, not {kind!r}")
    most, column = (1 if kind == "threshold" else 6), (0 if kind == "roc" else 1)
    if classes is None:
        areas = report.areas[:, column]
        classes = [report.class_names[i] for i in np.argsort(areas)[:most] if np.isfinite(areas[i])]
    if not 1 <= len(classes) <= most:
        raise ValueError(f"a figure of kind {kind!r} shows 1 to {most} classes, not {len(classes)}")
    fig, axis = figure(size=(5.2, 4.6))
    xlabel, ylabel = _THRESHOLD_AXES[kind]
    looks = zip(("blue", "orange", "green", "vermilion", "purple", "sky"), "osD^Pv")
    for name, (colour, marker) in zip(classes, looks):
        data = report.thresholds(name)
        at = None if threshold is None else int((data["threshold"] >= threshold).sum()) - 1  # −1: nothing reaches it
        if kind == "threshold":
            for key, line, mark in (("precision", "blue", "o"), ("recall", "orange", "s")):
                steps = np.append(data["threshold"], 0), np.append(data[key], data[key][-1])
                axis.step(*steps, where="post", color=COLOURS[line], label=key)
                if threshold is not None and at >= 0:
                    axis.plot(threshold, data[key][at], mark, color=COLOURS[line], markersize=9)
            axis.set_title(f"“{name}” against the rest")
            continue
        if kind == "roc":
            x, y = np.append(0, data["false_positive_rate"]), np.append(0, data["recall"])
        else:
            x, y = data["recall"], data["precision"]
        area = report.areas[report.class_names.index(name), column]
        axis.plot(x, y, color=COLOURS[colour], label=f"{name}: area {area:.3f}")
        if threshold is not None and at >= 0:
            place = at + (kind == "roc")
            axis.plot(x[place], y[place], marker, color=COLOURS[colour], markersize=9)
    if kind == "roc":
        axis.plot([0, 1], [0, 1], color=COLOURS["gray"], linestyle=":", label="guessing")
    if kind == "threshold" and threshold is not None:
        axis.axvline(threshold, color=COLOURS["gray"], linestyle=":")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xlabel=xlabel, ylabel=ylabel or "precision, recall")
    mark = None if threshold is None else f"marked: threshold {threshold:g}"
    axis.legend(loc="lower right" if kind == "roc" else "lower left", fontsize=9, title=mark)
    return fig


def gallery(rows, side=0.95):
    """Rows of images, with words to the left of each row.

    Args:
        rows: ``(text, pictures, titles)``: pictures uint8, (N, height, width, 1 or 3), not as many in every row;
            titles: one short text an image, or ``None``.
        side: Size of one image in inches.

    Returns:
        matplotlib.figure.Figure
    """
    columns = max(len(pictures) for _, pictures, _ in rows)
    tall = side * (1.3 if any(titles is not None for *_, titles in rows) else 1.08)
    fig, axes = figure(len(rows), columns + 1, (1.5 * side + columns * side * 1.05, len(rows) * tall), squeeze=False)
    for line, (text, pictures, titles) in zip(axes, rows):
        for axis in line:
            axis.axis("off")
        line[0].text(1, 0.5, text, ha="right", va="center", fontsize=9, transform=line[0].transAxes)
        for i, (axis, picture) in enumerate(zip(line[1:], pictures)):
            axis.imshow(picture.squeeze() if picture.shape[-1] == 1 else picture, cmap="gray", vmin=0, vmax=255)
            if titles is not None:
                axis.set_title(str(titles[i]), fontsize=8, pad=2)
    return fig


def most_confused(report, examples, pairs=4, n=6):
    """A gallery of the most frequent kinds of mistakes, the surest first, with the confidence above each image.

    Args:
        report: A :class:`~tlutils.evaluation.Report` of a classifier that makes mistakes.
        examples: The :class:`~tlutils.data.Examples` it was made on; only the images shown are decoded.
        pairs: How many kinds.
        n: How many images of each kind at most.

    Returns:
        matplotlib.figure.Figure

    Raises:
        ValueError: There is no mistake to show.
    """
    from tlutils import explain

    rows = []
    for kind in explain.most_confused(report, pairs, n):
        titles = [f"{report.confidence[i]:.0%}" for i in kind.positions]
        text = f"{kind.true}, taken\nfor {kind.predicted}\n({kind.count} of {len(report)})"
        rows.append((text, examples.subset(kind.positions).images(), titles))
    if not rows:
        raise ValueError(f"all {len(report)} images were predicted right: there is no mistake to show")
    return gallery(rows)


def heatmaps(pictures, maps, titles=None, columns=6, side=1.3, together=False):
    """Each image, and below it the same image in gray with its heat map on it.

    Orange is evidence for, blue (of maps that have negative values, as of occlusion) evidence against; the stronger,
    the less the image shines through.

    Args:
        pictures: uint8, shape (N, height, width, 1 or 3).
        maps: Shape (N, height, width), as of :func:`tlutils.explain.grad_cam` or :func:`tlutils.explain.occlusion`.
        titles: One short text an image, or ``None``.
        columns: Images a row.
        side: Size of one image in inches.
        together: One scale for all maps, so that they can be compared; else each goes up to its own largest value.

    Returns:
        matplotlib.figure.Figure
    """
    from matplotlib.colors import to_rgb

    maps = np.asarray(maps, float)
    if len(maps) != len(pictures):
        raise ValueError(f"there are {len(pictures)} images, but {len(maps)} maps")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    height = side * (2.32 if titles is not None else 2.12)
    fig, axes = figure(2 * rows, columns, (columns * side * 1.05, rows * height), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, (picture, heat) in enumerate(zip(pictures, maps)):
        upper, lower = axes[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
        upper.imshow(picture.squeeze() if picture.shape[-1] == 1 else picture, cmap="gray", vmin=0, vmax=255)
        lower.imshow(picture.mean(axis=-1), cmap="gray", vmin=0, vmax=255)  # on gray, orange is seen everywhere
        largest = np.abs(maps if together else heat).max() or 1.0
        colour = np.where(heat[..., None] < 0, to_rgb(COLOURS["blue"]), to_rgb(COLOURS["orange"]))
        lower.imshow(np.concatenate([colour, 0.8 * np.abs(heat[..., None]) / largest], axis=-1))
        if titles is not None:
            upper.set_title(str(titles[i]), fontsize=9, pad=2)
    return fig


def severities(pictures, curves, severity, title=""):
    """What a shift of the images does as it grows: for each kind an image, and accuracy beside mean confidence.

    Where the dashed line lies above the solid one, the model is surer than it is right.

    Args:
        pictures: Dict of kind → image at this severity, uint8, shape (height, width, 1 or 3).
        curves: Dict of kind → list of ``(accuracy, confidence)``, for each severity from 0 (the images as they are).
        severity: The severity that is shown, 0 to the largest; it is marked in the curves.
        title: Title; give all frames of a slider titles of one line.

    Returns:
        matplotlib.figure.Figure
    """
    options = {"squeeze": False, "gridspec_kw": {"width_ratios": [1, 2.6]}}
    fig, axes = figure(len(pictures), 2, (5.2, 1.3 * len(pictures) + 0.9), sharex="col", **options)
    for (left, right), (kind, picture) in zip(axes, pictures.items()):
        left.imshow(picture.squeeze() if picture.shape[-1] == 1 else picture, cmap="gray", vmin=0, vmax=255)
        left.axis("off")
        left.set_title(kind, fontsize=11)
        steps = range(len(curves[kind]))
        accuracy, confidence = zip(*curves[kind])
        right.plot(steps, confidence, color=COLOURS["orange"], linestyle="--", label="mean confidence")
        right.plot(steps, accuracy, color=COLOURS["blue"], label="accuracy")
        right.plot(severity, confidence[severity], "s", color=COLOURS["orange"], markersize=8)
        right.plot(severity, accuracy[severity], "o", color=COLOURS["blue"], markersize=8)
        right.set(ylim=(-0.04, 1.06), yticks=(0, 0.5, 1), xticks=steps)
    axes[-1][1].set_xlabel("severity")
    fig.suptitle(title, fontsize=11)
    fig.legend(*axes[0][1].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return fig
