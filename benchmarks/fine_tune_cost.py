"""What an epoch of fine-tuning costs with activations kept at the frozen boundary, against running the whole network.

    python benchmarks/fine_tune_cost.py

The pocket network runs anywhere; MobileNetV2 on photographs as well where $KERAS_HOME holds its weights and
`hymenoptera`.
"""

import argparse
import sys
import time
from dataclasses import replace

import numpy as np

from tlutils import backbones, data, models, training
from tlutils.runtime import setup

CASES = (("pocket_resnet", "digits", 2), ("mobilenet_v2", "hymenoptera", 4))
EPOCHS = 4


def epoch_seconds(model, task, blocks, cache):
    """Median seconds of an epoch without the first, in which Keras traces the step; and the seconds before it."""
    import keras

    times, fit = [], keras.Model.fit

    def timed(self, *args, **options):
        started = time.perf_counter()
        history = fit(self, *args, **options)
        times.append(time.perf_counter() - started)
        return history

    keras.Model.fit = timed
    try:
        started = time.perf_counter()
        training.fine_tune(model, task, blocks, EPOCHS, start="as_is", cache=cache, progress=False)
        whole = time.perf_counter() - started
    finally:
        keras.Model.fit = fit
    return np.median(times[1:]), whole - sum(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3, help="default: %(default)s")
    options = parser.parse_args()
    print(setup(gpu="auto"))
    print(
        f"{'':<28} {'epoch, whole':>12} {'cached':>8} {'once':>7}   whole/cached: {'min':>5} {'median':>7} {'max':>5}"
    )
    for name, source, blocks in CASES:
        try:
            backbone, task = backbones.load(name), replace(data.load(source), val=None)
        except (FileNotFoundError, data.DataError) as error:
            print(f"{name} on {source} skipped: {error}")
            continue
        model = models.classifier(backbone, task.num_classes)
        runs = []
        for _ in range(options.repetitions):
            whole, _ = epoch_seconds(model, task, blocks, cache=False)
            cached, once = epoch_seconds(model, task, blocks, cache=True)
            runs.append((whole, cached, once))
        whole, cached, once = np.median(runs, axis=0)
        ratios = [a / b for a, b, _ in runs]
        print(
            f"{f'{name}, last {blocks} blocks':<28} {whole:>10.2f} s {cached:>6.2f} s {once:>5.1f} s"
            f"                 {min(ratios):>5.1f} {np.median(ratios):>7.1f} {max(ratios):>5.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
