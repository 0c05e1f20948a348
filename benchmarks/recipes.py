"""(a) Accuracy and seconds of tlutils' recipes against those that people copy: same data, same weights, same machine.

python benchmarks/recipes.py [--datasets hymenoptera,spoken_digits] [--repetitions 3] [--work FOLDER] [--write]

* ``probe``: `training.linear_probe` on all training images;
* ``probe, then tune``: a fifth of the training images is held out; the solved head, then two blocks at 1e-4, the best
  epoch by their loss; kept only if it gets more of them right than the probe, as in `tlutils train`;
* ``tutorial``: `recipes.tutorial`, ten epochs on the frozen network, then ten more from layer 100 on; without flips
  and turns where the images are spectrograms;
* ``classic``: `recipes.classic` with preprocessing, ten epochs of everything.

MobileNetV2 with ImageNet weights, images of 224×224. Every choice is made inside the training images; the images that
are measured on are read once, after training. Loading the network and measuring do not count as seconds; decoding and
tracing do. Each finished run is kept in the work folder, so that an interrupted benchmark goes on.
"""

import argparse
import gc
import json
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import table

from tlutils import backbones, data, evaluation, models, recipes, results, training
from tlutils.runtime import setup

BACKBONE = "mobilenet_v2"
# Spectrograms of 25 recordings a digit: about as many images as there are ants and bees. The tutorial flips and turns
# its photographs; a flipped recording runs backwards, so there it does not.
AUGMENTED = ("hymenoptera",)
DATASETS = {
    "hymenoptera": {},
    "spoken_digits": {"image_size": 224, "channels": 3, "labels_per_class": 25},
}
HEAD = ("recipe", "seconds", "accuracy", "95% interval", "against the tutorial, tuned", "times its seconds")
OURS = ("probe", "probe, then tune")
BASELINE = "tutorial, tuned"
ORDER = (*OURS, "tutorial, frozen", BASELINE, "classic")
WORK = Path(__file__).parents[1] / "_build" / "benchmarks" / "recipes"
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- results: written by recipes.py -->\n", "<!-- end of these results -->\n"


def probe(backbone, task, seed, done):
    model = models.classifier(backbone, task.num_classes)
    training.linear_probe(model, task, seed=seed)
    done("probe", model)


def probe_then_tune(backbone, task, seed, done):
    inside = recipes.within_training(task, seed=seed)
    model = models.classifier(backbone, task.num_classes)
    training.linear_probe(model, inside, seed=seed)
    solved, before = model.get_weights(), evaluation.evaluate(model, inside.val)
    training.fine_tune(model, inside, blocks=2, epochs=10, learning_rate=1e-4, start="as_is", seed=seed, progress=False)
    if evaluation.evaluate(model, inside.val).accuracy <= before.accuracy:
        model.set_weights(solved)
    done("probe, then tune", model)


def tutorial(backbone, task, seed, done):
    options = {"augment": task.name in AUGMENTED, "stage": lambda name, model: done(f"tutorial, {name}", model)}
    recipes.tutorial(backbone, task, seed=seed, **options)


def classic(backbone, task, seed, done):
    import keras

    keras.utils.set_random_seed(seed)
    model = recipes.classic(backbone, task.num_classes, preprocess=True)
    batches = task.train.batches(32, shuffle=True, seed=seed)
    model.fit(batches, epochs=10, shuffle=False, verbose=0)
    done("classic", model, from_logits=False)


RECIPES = (probe, probe_then_tune, tutorial, classic)


def run(recipe, dataset, seed):
    """One run: a row for each model that the recipe ends with (the tutorial has two)."""
    import keras

    task = recipes.as_test(data.load(dataset, seed=seed, **DATASETS[dataset]))
    backbone = backbones.load(BACKBONE)
    gc.collect()  # the graphs of the run before, which would else be freed while this one is timed
    rows, clock = [], time.perf_counter()

    def done(name, model, from_logits=True):
        nonlocal clock
        seconds = time.perf_counter() - clock
        report = evaluation.evaluate(model, task.test, from_logits=from_logits)
        rows.append(
            {
                "dataset": dataset,
                "recipe": name,
                "seed": seed,
                "train": len(task.train),
                "images": len(task.test),
                "accuracy": report.accuracy,
                "correct": evaluation.pack(report),
                "seconds": round(seconds, 2),
            }
        )
        clock = time.perf_counter() - seconds  # the clock stood still while the model was measured

    recipe(backbone, task, seed, done)
    keras.utils.clear_session()
    return rows


def runs(datasets, seeds, work):
    """All rows, those of finished runs from the work folder."""
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    for dataset, seed, recipe in product(datasets, seeds, RECIPES):
        file = work / f"{dataset}-{seed}-{recipe.__name__}.json"
        if not file.is_file():
            found = run(recipe, dataset, seed)
            results.write_text(file, json.dumps(found))
            for row in found:
                print(
                    f"{dataset} {seed} {row['recipe']}: {row['accuracy']:.3f}, {row['seconds']:.1f} s",
                    flush=True,
                )
        rows += json.loads(file.read_text(encoding="utf-8"))
    return rows


def accuracies(rows):
    """The table of one data set in Markdown: accuracy with its interval, and the paired difference to the tutorial."""
    confidence = 1 - 0.05 / (2 * (len(ORDER) - 1))  # all differences of both data sets together
    lines = [HEAD, ("---", "---:", "---:", "---", "---", "---:")]
    own = {name: [row for row in rows if row["recipe"] == name] for name in ORDER}
    base = evaluation.from_rows(own[BASELINE], confidence=confidence)
    base_seconds = np.array([row["seconds"] for row in own[BASELINE]])
    for name in ORDER:
        found = evaluation.from_rows(own[name])
        seconds = np.array([row["seconds"] for row in own[name]])
        low, high = found.interval
        gain = evaluation.from_rows(own[name], confidence=confidence) - base
        ratio = seconds / base_seconds
        lines.append(
            (
                *(name, f"{np.median(seconds):.1f}", f"{found.mean:.3f}", f"{low:.3f} to {high:.3f}"),
                "" if name == BASELINE else f"{gain.mean:+.3f} ({gain.interval[0]:+.3f} to {gain.interval[1]:+.3f})",
                "" if name == BASELINE else f"{np.median(ratio):.3f} ({ratio.min():.3f} to {ratio.max():.3f})",
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure(repetitions=3, datasets=tuple(DATASETS), work=WORK):
    """Rows of the table of all benchmarks: seconds of our recipes over those of the tutorial."""
    setup(gpu="auto")
    rows = runs(datasets, range(repetitions), work)
    seconds = {(row["dataset"], row["recipe"], row["seed"]): row["seconds"] for row in rows}
    for dataset, name in product(datasets, OURS):
        pairs = [[seconds[dataset, recipe, seed] for recipe in (name, BASELINE)] for seed in range(repetitions)]
        goal = 0.05 if name == "probe" else None
        yield table.Row("a", f"{name}, {dataset}", "the tutorial's recipe", pairs, goal=goal)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=lambda text: text.split(","), default=list(DATASETS))
    parser.add_argument("--repetitions", type=int, default=3, help="seeds (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=WORK, help="where finished runs are kept (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    setup(gpu="auto")
    rows = runs(options.datasets, range(options.repetitions), options.work)
    parts = [f"{BACKBONE}, {options.repetitions} seeds. {table.machine()}."]
    for dataset in options.datasets:
        own = [row for row in rows if row["dataset"] == dataset]
        parts.append(f"**{dataset}**, {own[0]['train']} training images, measured on {own[0]['images']}:")
        parts.append(accuracies(own))
    text = "\n\n".join(parts)
    print(f"\n{text}")
    if options.write:
        before, rest = README.read_text(encoding="utf-8").split(BEGIN)
        results.write_text(README, f"{before}{BEGIN}\n{text}\n\n{END}{rest.split(END)[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
