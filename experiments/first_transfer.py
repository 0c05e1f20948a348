"""The table of chapter 01: four ways to learn digits, from the same labels, over ten draws of them.

Every method sees the same k labels a class and nothing more. Penalties are chosen by cross-validation within those
labels. What cannot be chosen within them (the recipes of the two networks, and the penalties below 3 labels a class)
was chosen on the validation images of `data.load("digits", seed=...)` with seeds from 100 on, by the highest accuracy
on average over the draws and the budgets that

    python experiments/first_transfer.py --develop

prints. The test images, the last 797 of the file, are opened once for each run. Without an argument the script measures
everything and writes book/results/first_transfer.json.
"""

import argparse
import time
from functools import cache
from pathlib import Path

import _pool

from tlutils import backbones, data, evaluation, models, plots, results, training
from tlutils.runtime import setup

NAME = "first_transfer"
PICTURE = Path(__file__).resolve().parents[1] / "book" / "assets" / "first_transfer.svg"  # in the README
BACKBONE = "pocket_resnet"
BUDGETS = (1, 3, 5, 10, 20, 50)
SEEDS = range(10)
METHODS = ("svm", "probe", "fine_tune", "scratch")

SVM_GRID = {"C": (0.1, 1.0, 10.0, 100.0), "gamma": (0.003, 0.01, 0.03)}
SVM_DEFAULT = {"C": 10.0, "gamma": 0.01}
RECIPES = {
    "fine_tune": {"blocks": 2, "epochs": 60, "learning_rate": 3e-3, "augment": True},
    "scratch": {"learning_rate": 1e-2, "augment": True},
}
SCRATCH_STEPS, SCRATCH_EPOCHS = 600, 150  # as many epochs as give this many steps, at most this many
CANDIDATES = {
    "fine_tune": [
        *(
            {"blocks": blocks, "epochs": 20, "learning_rate": rate, "augment": False}
            for blocks in (1, 2, 4, -1)
            for rate in (1e-4, 3e-4, 1e-3, 3e-3)
        ),
        *(
            {"blocks": blocks, "epochs": 60, "learning_rate": rate, "augment": True}
            for blocks in (2, -1)
            for rate in (1e-3, 3e-3)
        ),
    ],
    "scratch": [
        {"learning_rate": rate, "augment": augment}
        for augment, rates in ((False, (3e-3, 1e-2, 3e-2, 1e-1)), (True, (3e-3, 1e-2, 3e-2)))
        for rate in rates
    ],
}

# What `make test` measures again and compares with the stored rows.
CHECK = [
    {"method": "svm", "labels_per_class": 5, "seed": 0},
    {"method": "probe", "labels_per_class": 1, "seed": 3},
    {"method": "probe", "labels_per_class": 10, "seed": 0},
    {"method": "fine_tune", "labels_per_class": 1, "seed": 1},
]

_models = {}


def measure(method, labels_per_class, seed):
    """One row: draw the labels, train, and look at the test images once."""
    task = data.load("digits", labels_per_class=labels_per_class, seed=seed)
    started = time.perf_counter()
    report = train(method, task, seed)(task.test)
    return {
        "method": method,
        "labels_per_class": labels_per_class,
        "seed": seed,
        "images": len(task.test),
        "accuracy": report.accuracy,
        "correct": evaluation.pack(report),
        "seconds": round(time.perf_counter() - started, 2),
    }


def train(method, task, seed, recipe=None):
    """Train one method on ``task.train``; returns a function from Examples to their Report."""
    if method == "svm":
        return pixel_svm(task, seed)
    model = _fresh_model(method != "scratch", seed)
    if method == "probe":
        training.linear_probe(model, task, seed=seed)
        return lambda examples: evaluation.evaluate(model, examples)
    recipe = dict(recipe or RECIPES[method])
    recipe["augment"] = _augmentation() if recipe["augment"] else None
    if method == "fine_tune":
        training.fine_tune(model, task, seed=seed, **recipe)
    else:
        steps = -(-len(task.train) // 32)
        epochs = min(SCRATCH_EPOCHS, -(-SCRATCH_STEPS // steps))
        training.train_from_scratch(model, task, epochs, seed=seed, **recipe)
    return lambda examples: evaluation.evaluate(model, examples)


def pixel_svm(task, seed, default=None):
    """The baseline without any network: a support vector machine with a Gaussian kernel on the pixels."""
    from sklearn.svm import SVC

    def pixels(examples):
        return examples.images().reshape(len(examples), -1) / 255

    x, y = pixels(task.train), task.train.labels
    machine, _ = training.tune(SVC(break_ties=True), SVM_GRID, default or SVM_DEFAULT, x, y, seed)
    return lambda examples: evaluation.report(machine.decision_function(pixels(examples)), examples.labels)


def _fresh_model(pretrained, seed):
    """One model of each kind, put back to its first weights: a second model would have to be traced again."""
    if not pretrained:
        setup(gpu="auto", seed=seed)  # each seed starts from other random weights
    if pretrained not in _models or not pretrained:
        backbone = backbones.load(BACKBONE, weights="pretrained" if pretrained else None)
        model = models.classifier(backbone, 10)
        _models.setdefault(pretrained, [model, None])[1] = model.get_weights()
    model, weights = _models[pretrained]
    model.set_weights(weights)
    return model


_augmentation = cache(training.augmentation)  # one for all runs, so that a step is traced once


def develop():
    """Print what was chosen by: accuracy on validation images, average over development draws."""
    from sklearn.model_selection import ParameterGrid

    draws = range(100, 110)
    validation = {seed: data.load("digits", seed=seed).val for seed in draws}

    def tasks(labels_per_class, n):
        return [(seed, data.load("digits", labels_per_class=labels_per_class, seed=seed)) for seed in draws[:n]]

    def mean(reports):
        return sum(report.accuracy for report in reports) / len(reports)

    one = tasks(1, 10)
    for chosen in ParameterGrid(SVM_GRID):
        reports = [pixel_svm(task, seed, default=chosen)(validation[seed]) for seed, task in one]
        print(f"  1 label   svm        {mean(reports):.3f}  {chosen}", flush=True)
    model = _fresh_model(True, 0)
    for C in training.C_GRID:
        reports = []
        for seed, task in one:
            training.linear_probe(model, task, l2=1 / C)
            reports.append(evaluation.evaluate(model, validation[seed]))
        print(f"  1 label   probe      {mean(reports):.3f}  C = {C:g}", flush=True)
    for method, candidates in CANDIDATES.items():
        for recipe in candidates:
            scores = [
                mean([train(method, task, seed, recipe)(validation[seed]) for seed, task in tasks(k, 3)])
                for k in (5, 20)
            ]
            print(
                f"  5 and 20  {method:<9}  {sum(scores) / 2:.3f}  {scores[0]:.3f}  {scores[1]:.3f}  {recipe}",
                flush=True,
            )


def _measure_seeds(cell):
    setup(gpu="auto")
    method, labels_per_class = cell
    return [measure(method, labels_per_class, seed) for seed in SEEDS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--develop", action="store_true", help="compare recipes on validation images; stores nothing")
    _pool.add_argument(parser)
    options = parser.parse_args()
    if options.develop:
        setup(gpu="auto")
        return develop()
    started, rows = time.perf_counter(), []
    cells = [(method, labels_per_class) for method in METHODS for labels_per_class in BUDGETS]
    for (method, labels_per_class), new in zip(cells, _pool.measured(_measure_seeds, cells, options.jobs)):
        rows += new
        mean, seconds = (sum(row[key] for row in new) / len(new) for key in ("accuracy", "seconds"))
        print(f"{labels_per_class:>3} labels  {method:<9}  {mean:.3f}  {seconds:.1f} s a draw", flush=True)
    recipes = {"svm": {"grid": SVM_GRID, "default": SVM_DEFAULT}, **RECIPES}
    results.save(
        NAME,
        rows,
        metrics={"backbone": BACKBONE, "recipes": recipes},
        command="make experiments",
        seconds=time.perf_counter() - started,
    )
    figure = plots.budgets(evaluation.summarise(rows, by=("method", "labels_per_class")), chance=0.1)
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
