"""The table of chapter 06 on a regression: the tilt of a digit in degrees, over ten draws of the labels.

The digits of `data.load("tilted_digits")` are turned by angles between -45 and 45 degrees. The methods:

- mean: the mean of the training angles, whatever the image;
- pixels: ridge regression on the raw pixels;
- average, flatten: ridge regression on the maps of one block, averaged over their positions or taken as they are;
- tuned: average on the last block, then the last two blocks are fine-tuned with the mean squared error.

Ridge regression chooses its penalty by leave-one-out within the training images. The rate of `tuned` was chosen with
seeds from 100 on, on the validation images of `data.load("tilted_digits", seed=...)`, by a rule fixed beforehand: of
the rates in RATES the one with the lowest mean absolute error, averaged over three draws and over the budgets.

    python experiments/tilt.py --develop

The test images, the last 797 of the file, are opened once for each run. Without an argument the script measures
everything and writes book/results/tilt.json. A row has no accuracy: it holds `mae` and `mse`, and in `errors` the
absolute error of each test image in steps of half a degree, one byte each, in hexadecimal.
"""

import argparse
import time
from functools import cache
from itertools import product

import numpy as np

from tlutils import backbones, data, evaluation, models, results, training
from tlutils.runtime import setup

NAME = "tilt"
BACKBONE = "pocket_resnet"  # whose maps are also taken as they are, and which is tuned
FAMILIES = ("pocket_vgg", "pocket_resnet", "pocket_inception", "pocket_mobilenet")
SEEDS = range(10)
BUDGETS = (5, 20)  # images of each digit
RANGE = -45, 45  # known beforehand; what is predicted outside is set to its nearest end, for every method
BLOCKS, EPOCHS = 2, 30
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
RATE = 3e-3

# What `make test` measures again and compares with the stored rows.
CHECK = [
    {"method": "mean", "backbone": "", "block": "", "labels_per_class": 5, "seed": 3},
    {"method": "average", "backbone": "pocket_vgg", "block": "block2", "labels_per_class": 20, "seed": 0},
    {"method": "flatten", "backbone": BACKBONE, "block": "block5", "labels_per_class": 5, "seed": 1},
]


def settings():
    """Everything that is measured, seed by seed."""
    for k in BUDGETS:
        for method in ("mean", "pixels"):
            yield method, "", "", k
        for name in FAMILIES:
            for block in backbones.load(name).blocks:
                yield "average", name, block, k
        last = loaded(BACKBONE).blocks[-1]
        for block in loaded(BACKBONE).blocks:
            yield "flatten", BACKBONE, block, k
        yield "tuned", BACKBONE, last, k


def measure(method, backbone, block, labels_per_class, seed):
    """One row: draw the images, solve or train, and look at the test images once."""
    task = data.load("tilted_digits", labels_per_class=labels_per_class, seed=seed)
    started = time.perf_counter()
    predicted = predictions(method, backbone, block, task, task.test, seed).clip(*RANGE)
    return {
        "method": method,
        "backbone": backbone,
        "block": block,
        "labels_per_class": labels_per_class,
        "seed": seed,
        "images": len(task.test),
        **scores(predicted, task.test.labels),
        "seconds": round(time.perf_counter() - started, 2),
    }


def scores(predicted, angles):
    """Mean absolute and mean squared error, and the packed absolute errors."""
    errors = np.abs(np.asarray(predicted, "float64") - angles)
    packed = np.rint(2 * errors).clip(0, 255).astype(np.uint8)
    return {"mae": float(errors.mean()), "mse": float((errors**2).mean()), "errors": packed.tobytes().hex()}


def predictions(method, backbone, block, task, examples, seed, rate=RATE):
    """Angles of ``examples``, shape (N,)."""
    angles = task.train.labels
    if method == "mean":
        return np.full(len(examples), angles.mean())
    if method == "tuned":
        model = regressor(backbone)
        training.fine_tune(model, task, BLOCKS, EPOCHS, rate, seed=seed)
        return evaluation.evaluate(model, examples).predictions
    x, x_new = (inputs(method, backbone, block, part) for part in (task.train, examples))
    weights, bias, _ = training.solve_regressor(x, angles)
    return (x_new @ weights + bias)[:, 0]


_test = {}


def inputs(method, backbone, block, examples):
    """What a linear head sees of images, shape (N, numbers); that of the test images is computed once."""
    if method == "pixels":
        return examples.images().reshape(len(examples), -1) / 255
    key = method, backbone, examples.fingerprint
    maps = _test.get(key) or tapped(backbone, method).predict(examples.batches(64), verbose=0)
    if examples.split == "test":
        _test[key] = maps
    return maps[block]


@cache
def loaded(name):
    return backbones.load(name)


@cache
def tapped(name, method):
    """The backbone with one output a block."""
    import keras

    take = {"average": keras.layers.GlobalAveragePooling2D, "flatten": keras.layers.Flatten}[method]
    inputs = keras.Input(loaded(name).input_shape)
    x, outputs = inputs, {}
    for part in loaded(name).model.layers[1:]:
        x = part(x)
        if part.name in loaded(name).blocks:
            outputs[part.name] = take(name=f"{method}_{part.name}")(x)
    return keras.Model(inputs, outputs)


_models = {}


def regressor(name):
    """A regressor on the pretrained backbone; its graph is kept, because tracing takes longer than training."""
    if name not in _models:
        model = models.regressor(backbones.load(name))
        _models[name] = model, model.get_weights()
    model, weights = _models[name]
    model.set_weights(weights)
    return model


def develop():
    """Print what the rate was chosen by: mean absolute error on validation images over development seeds."""
    draws = range(100, 103)
    validation = {seed: data.load("tilted_digits", seed=seed).val for seed in draws}
    for rate in RATES:
        errors = []
        for k, seed in product(BUDGETS, draws):
            task = data.load("tilted_digits", labels_per_class=k, seed=seed)
            predicted = predictions("tuned", BACKBONE, "block5", task, validation[seed], seed, rate)
            errors.append(scores(predicted.clip(*RANGE), validation[seed].labels)["mae"])
        print(f"{rate:g}  {np.mean(errors):.3f}  " + " ".join(f"{error:.2f}" for error in errors), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--develop", action="store_true", help="compare rates on validation images; stores nothing")
    options = parser.parse_args()
    setup(gpu="auto")
    if options.develop:
        return develop()
    started, rows = time.perf_counter(), []
    for setting in settings():
        new = [measure(*setting, seed) for seed in SEEDS]
        mean = sum(row["mae"] for row in new) / len(new)
        print(f"{mean:6.2f}  {setting}  {time.perf_counter() - started:.0f} s", flush=True)
        rows += new
    results.save(NAME, rows, metrics={"rate": RATE}, command="make experiments", seconds=time.perf_counter() - started)


if __name__ == "__main__":
    main()
