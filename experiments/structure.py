"""The tables of chapter 06: heads of several widths and depths, cut backbones, other image sizes, and surgery.

Four parts, each over several draws of the labels of the digits:

- cut: a linear head is solved on the averaged maps of every block of every family of the pocket zoo;
- head: heads with hidden layers are trained on the frozen features of one backbone;
- size: a linear head is solved on images of other sizes;
- surgery: a layer is made wider, or a layer is added, with Net2Net or at random; then the head is solved again and the
  last three blocks are fine-tuned. Of "wider" there are two random versions. "wider, random" draws what is new (the new
  channels, and the weights with which the next layer reads them) and keeps all old weights. "wider, redrawn" draws both
  layers as a whole, as one gets them who rebuilds what no longer fits.

Linear heads choose their penalty within the labels. The rates of everything that is trained were chosen with seeds from
100 on, on the validation images of `data.load("digits", seed=...)`, by a rule fixed beforehand: of the rates in RATES
the one with the highest accuracy, averaged over three draws and over the budgets; the smaller where two are level.

    python experiments/structure.py --develop

The test images, the last 797 of the file, are opened once for each run (twice for surgery: before and after training).
Without an argument the script measures everything and writes book/results/structure.json. One part alone, in place of
its stored rows, with a note of that in the file:

    python experiments/structure.py --part surgery
"""

import argparse
import datetime
import time
from functools import cache
from itertools import product

import numpy as np

from tlutils import backbones, data, evaluation, features, models, results, training
from tlutils.models import Head
from tlutils.runtime import setup

NAME = "structure"
BACKBONE = "pocket_resnet"  # of heads and sizes
PLAIN = "pocket_vgg"  # of surgery: no shortcuts, no BatchNorm
FAMILIES = ("pocket_vgg", "pocket_resnet", "pocket_inception", "pocket_mobilenet")
SEEDS = {"cut": range(10), "head": range(5), "size": range(5), "surgery": range(10)}
CUT_BUDGETS = (1, 5, 20, 50)
HEAD_BUDGETS = (5, 20)
SIZE_BUDGET = SURGERY_BUDGET = 10
HEADS = {
    "linear": (),
    "16": (16,),
    "64": (64,),
    "256": (256,),
    "1024": (1024,),
    "256-256": (256, 256),
    "256-256-256": (256, 256, 256),
}
SIZES = (16, 24, 32, 48, 64)
OPERATIONS = ("none", "wider", "wider, noise", "wider, random", "wider, redrawn", "deeper", "deeper, random")
WIDEN, WIDTH, NOISE, TAKES_IN = "block2_conv1", 48, 0.05, "block2_conv2"
DEEPEN = "block2_conv1"
HEAD_STEPS, SURGERY_EPOCHS, BLOCKS = 200, 20, 3

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
HEAD_RATES = {"16": 3e-3, "64": 3e-3, "256": 3e-3, "1024": 1e-3, "256-256": 1e-3, "256-256-256": 1e-3}
SURGERY_RATES = dict.fromkeys(OPERATIONS, 3e-3)

# What `make test` measures again and compares with the stored rows.
CHECK = [
    {"part": "cut", "backbone": "pocket_vgg", "what": "block3", "labels_per_class": 5, "seed": 0},
    {"part": "head", "backbone": BACKBONE, "what": "64", "labels_per_class": 5, "seed": 1},
    {"part": "size", "backbone": BACKBONE, "what": "24", "labels_per_class": SIZE_BUDGET, "seed": 2},
    {"part": "surgery", "backbone": PLAIN, "what": "deeper", "labels_per_class": SURGERY_BUDGET, "seed": 0},
]


def settings():
    """Everything that is measured, seed by seed."""
    for name in FAMILIES:
        for what, k in product(backbones.load(name).blocks, CUT_BUDGETS):
            yield "cut", name, what, k
    for what, k in product(HEADS, HEAD_BUDGETS):
        yield "head", BACKBONE, what, k
    for what in SIZES:
        yield "size", BACKBONE, str(what), SIZE_BUDGET
    for what in OPERATIONS:
        yield "surgery", PLAIN, what, SURGERY_BUDGET


def measure(part, backbone, what, labels_per_class, seed):
    """One row: draw the labels, train, and look at the test images."""
    options = {"image_size": int(what)} if part == "size" else {}
    task = data.load("digits", labels_per_class=labels_per_class, seed=seed, **options)
    started = time.perf_counter()
    more = {}
    if part == "cut":
        x, x_test = (averages(backbone, examples)[what] for examples in (task.train, task.test))
        report = solved(x, task.train.labels, x_test, task.test.labels, seed)
        more["features"] = x.shape[1]
    elif part == "size":
        network = loaded(backbone, (int(what), int(what), 1))
        x, x_test = (features.extract(network, examples) for examples in (task.train, task.test))
        report = solved(x, task.train.labels, x_test, task.test.labels, seed)
    elif part == "head":
        model = head(what, task, seed)
        report = evaluation.evaluate(model, task.test)
        more["train_accuracy"] = evaluation.evaluate(model, task.train).accuracy
        more["log_loss"] = report.log_loss
        more["parameters"] = sum(layer.count_params() for layer in model.layers[2:])
    else:
        model = operated(what, task, seed)
        before = evaluation.evaluate(model, task.test)
        more["before"], more["before_correct"] = before.accuracy, evaluation.pack(before)
        more["parameters"] = model.count_params()
        report = evaluation.evaluate(tuned(model, what, task, seed), task.test)
    return {
        "part": part,
        "backbone": backbone,
        "what": what,
        "labels_per_class": labels_per_class,
        "seed": seed,
        "images": len(task.test),
        "accuracy": report.accuracy,
        "correct": evaluation.pack(report),
        "seconds": round(time.perf_counter() - started, 2),
        **more,
    }


@cache
def loaded(name, input_shape=None):
    return backbones.load(name, input_shape=input_shape)


def solved(x, labels, x_test, test_labels, seed):
    """The report of a linear head that is solved on features."""
    weights, bias, _ = training.solve_classifier(x, labels, seed=seed)
    return evaluation.report(x_test @ weights + bias, test_labels)


# --- cut --------------------------------------------------------------------------------------------------------------


@cache
def tapped(name):
    """The backbone with one output a block: the average of each map."""
    import keras

    inputs = keras.Input(loaded(name).input_shape)
    x, outputs = inputs, {}
    for part in loaded(name).model.layers[1:]:
        x = part(x)
        if part.name in loaded(name).blocks:
            outputs[part.name] = keras.layers.GlobalAveragePooling2D(name=f"average_{part.name}")(x)
    return keras.Model(inputs, outputs)


_averages = {}


def averages(name, examples):
    """Features of every block, computed once for each set of images."""
    key = name, examples.fingerprint
    if key not in _averages:
        _averages[key] = tapped(name).predict(examples.batches(64), verbose=0)
    return _averages[key]


# --- head -------------------------------------------------------------------------------------------------------------


def head(name, task, seed, rate=None):
    """A classifier whose head is trained on ``task.train``; its graph is kept, because tracing takes longer."""
    import keras

    keras.utils.set_random_seed(seed)
    fresh = models.classifier(loaded(BACKBONE), 10, Head(HEADS[name]), dropout=0.0)
    model = kept(("head", name), fresh)
    for layer, other in zip(model.layers[2:], fresh.layers[2:]):
        layer.set_weights(other.get_weights())
    if name == "linear":
        training.linear_probe(model, task, seed=seed)
    else:
        epochs = round(HEAD_STEPS / -(-len(task.train) // 32))
        training.fine_tune(model, task, 0, epochs, rate or HEAD_RATES[name], start="as_is", seed=seed)
    return model


_kept = {}


def kept(key, model):
    return _kept.setdefault(key, model)


# --- surgery ----------------------------------------------------------------------------------------------------------


def operated(what, task, seed):
    """A classifier whose head was solved on the pretrained backbone, before the backbone went through an operation."""
    probe = kept("probe", models.classifier(pristine(), 10))
    training.linear_probe(probe, task, seed=seed)
    fresh = operation(what, seed)
    model = kept(("surgery", what), models.classifier(fresh, 10))
    models.backbone_layer(model).set_weights(fresh.model.get_weights())
    model.layers[-1].set_weights(probe.layers[-1].get_weights())
    return model


@cache
def pristine():
    return backbones.load(PLAIN)


def operation(what, seed):
    """The pretrained backbone after an operation; a copy, also where nothing is done."""
    import keras

    if what == "none":
        return backbones.load(PLAIN)
    if what.startswith("wider"):
        backbone = models.widen(pristine(), WIDEN, WIDTH, noise=NOISE if "noise" in what else 0.0, seed=seed)
        touched = WIDEN, TAKES_IN
    else:
        backbone = models.deepen(pristine(), DEEPEN)
        touched = (f"{DEEPEN}_deeper",)
    if what.endswith(("random", "redrawn")):
        keras.utils.set_random_seed(seed)
        old = {layer.name: layer.get_weights() for layer in models.all_layers(pristine().model)}
        for layer in models.all_layers(backbone.model):
            if layer.name in touched:
                kernel = keras.initializers.HeNormal()(layer.kernel.shape)  # that of every layer of the pocket zoo
                drawn = [keras.ops.convert_to_numpy(kernel).copy(), np.zeros(layer.filters)]
                if what == "wider, random":
                    for values, kept in zip(drawn, old[layer.name]):
                        values[tuple(map(slice, kept.shape))] = kept  # old channels are the first ones
                layer.set_weights(drawn)
    return backbone


def tuned(model, what, task, seed, rate=None):
    training.fine_tune(model, task, BLOCKS, SURGERY_EPOCHS, rate or SURGERY_RATES[what], seed=seed)
    return model


# --- the script -------------------------------------------------------------------------------------------------------


def develop(part=None):
    """Print what the rates were chosen by: mean validation accuracy over development seeds."""
    draws = range(100, 103)
    validation = {seed: data.load("digits", seed=seed).val for seed in draws}

    def score(run, budgets):
        tasks = [(s, data.load("digits", labels_per_class=k, seed=s)) for k, s in product(budgets, draws)]
        return np.mean([evaluation.evaluate(run(task, s), validation[s]).accuracy for s, task in tasks])

    for what in HEAD_RATES if part in (None, "head") else ():
        found = [score(lambda task, s, w=what, r=rate: head(w, task, s, r), HEAD_BUDGETS) for rate in RATES]
        print(f"head {what:<16}" + "".join(f"{x:>8.4f}" for x in found), RATES[int(np.argmax(found))], flush=True)
    for what in OPERATIONS if part in (None, "surgery") else ():
        found = [
            score(lambda task, s, w=what, r=rate: tuned(operated(w, task, s), w, task, s, r), (SURGERY_BUDGET,))
            for rate in RATES
        ]
        print(f"surgery {what:<16}" + "".join(f"{x:>8.4f}" for x in found), RATES[int(np.argmax(found))], flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--develop", action="store_true", help="compare rates on validation images; stores nothing")
    parser.add_argument("--part", choices=SEEDS, help="only this part; the stored rows of the others are kept")
    options = parser.parse_args()
    setup(gpu="auto")
    if options.develop:
        return develop(options.part)
    stored = results.load(NAME) if options.part else None
    if stored and (stored["versions"], stored["machine"]) != (results.versions(), results.machine()):
        parser.error("the stored rows come from other software or another machine: measure all parts")
    started, rows = time.perf_counter(), []
    for setting in settings():
        if options.part not in (None, setting[0]):
            continue
        new = [measure(*setting, seed) for seed in SEEDS[setting[0]]]
        mean = sum(row["accuracy"] for row in new) / len(new)
        print(f"{mean:.3f}  {setting}  {time.perf_counter() - started:.0f} s", flush=True)
        rows += new
    seconds = time.perf_counter() - started
    metrics = {"head_rates": HEAD_RATES, "surgery_rates": SURGERY_RATES, "noise": NOISE}
    if stored:
        rows, metrics["measured_apart"], seconds = merged(stored, rows, options.part, seconds)
    results.save(NAME, rows, metrics=metrics, command="make experiments", seconds=seconds)


def merged(stored, rows, part, seconds):
    """Stored rows with those of one part replaced, a note on what was measured apart and when, and all seconds."""
    replaced = sum(row["seconds"] for row in stored["rows"] if row["part"] == part)
    kept = [row for row in stored["rows"] if row["part"] != part]
    order = list(SEEDS)
    note = {
        **stored["metrics"].get("measured_apart", {"others": {"date": stored["date"]}}),
        part: {
            "command": f"python experiments/{NAME}.py --part {part}",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "seconds": round(seconds, 1),
        },
    }
    return sorted(kept + rows, key=lambda row: order.index(row["part"])), note, stored["seconds"] - replaced + seconds


if __name__ == "__main__":
    main()
