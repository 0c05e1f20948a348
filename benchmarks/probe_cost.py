"""(b) What a linear probe costs beyond what cannot be avoided: running the network once over the images.

python benchmarks/probe_cost.py

The photographs are decoded beforehand, for both sides. Cross-validation and the head are part of the probe. Converting
the network for ONNX Runtime is not, because that is done once (see engines.py).
"""

import sys

import photographs
import table

from tlutils import engines, models, training
from tlutils.runtime import setup

GOALS = {"keras": 1.15, "onnx": 0.6}


def measure(repetitions=9):
    """Rows of the table."""
    setup(gpu="auto")
    backbone, task = photographs.in_memory()
    model = models.classifier(backbone, task.num_classes)
    images = task.train.images().astype("float32")
    usable = [engine for engine in GOALS if engines.choose(engine, model, 1)[0] == engine]
    sides = [lambda: backbone.model.predict(images, batch_size=64, verbose=0)]
    sides += [lambda engine=engine: training.linear_probe(model, task, engine=engine) for engine in usable]
    times = table.in_turn(sides, repetitions)
    for column, engine in enumerate(usable, start=1):
        what = f"linear_probe, {len(images)} photographs, {photographs.ENGINES[engine]}"
        yield table.Row("b", what, "one bare predict", times[:, [column, 0]], goal=GOALS[engine])


if __name__ == "__main__":
    sys.exit(table.main(measure))
