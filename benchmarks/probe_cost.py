"""What a linear probe costs beyond what cannot be avoided: decoding the photographs and running the network once.

    python benchmarks/probe_cost.py

Needs MobileNetV2's ImageNet weights and the photographs of `hymenoptera` in $KERAS_HOME; without them it says so.
"""

import argparse
import sys
import time

import numpy as np

from tlutils import backbones, data, features, models, training
from tlutils.runtime import setup

GOAL = 1.5


def seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="hymenoptera", help="a registered name or a folder (default: %(default)s)")
    parser.add_argument("--backbone", default="mobilenet_v2", help="default: %(default)s")
    parser.add_argument("--repetitions", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    print(setup(gpu="auto"))
    try:
        backbone, task = backbones.load(options.backbone), data.load(options.dataset)
    except (FileNotFoundError, data.DataError) as error:
        print(f"skipped: {error}")
        return 0
    model = models.classifier(backbone, task.num_classes)
    extracted = features.extract(backbone, task.train)

    def bare():
        backbone.model.predict(task.train.images().astype("float32"), batch_size=64, verbose=0)

    measured = {
        "decode + one predict": bare,
        "linear_probe, whole": lambda: training.linear_probe(model, task),
        "  of it: features": lambda: features.extract(backbone, task.train),
        "  of it: head": lambda: training.solve_classifier(extracted, task.train.labels),
    }
    for function in measured.values():
        function()  # Keras traces each model once
    times = np.array([[seconds(f) for f in measured.values()] for _ in range(options.repetitions)])
    ratios = times / times[:, :1]  # within one repetition, so that a busy moment hits both
    print(f"{options.backbone} on {len(task.train)} images of {task.name}, {options.repetitions} repetitions in turn")
    print(f"{'':<22} {'seconds':>8}   ratio: {'min':>5} {'median':>7} {'max':>5}")
    for name, column, ratio in zip(measured, times.T, ratios.T):
        print(
            f"{name:<22} {np.median(column):>8.2f}          "
            f"{ratio.min():>5.2f} {np.median(ratio):>7.2f} {ratio.max():>5.2f}"
        )
    reached = np.median(ratios[:, 1])
    print(f"goal: a probe takes at most {GOAL} × decoding and predicting; it takes {reached:.2f} ×")
    return 0


if __name__ == "__main__":
    sys.exit(main())
