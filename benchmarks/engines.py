"""(d) The engines that run a frozen network: ONNX Runtime against Keras.

python benchmarks/engines.py

Needs `pip install 'tlutils[fast]'`. The photographs are decoded beforehand.
"""

import sys

import numpy as np
import photographs
import table

from tlutils import engines, features, models, training
from tlutils.runtime import setup


def measure(repetitions=9):
    """Rows of the table."""
    setup(gpu="auto")
    backbone, task = photographs.in_memory()
    images, model = task.train, models.classifier(backbone, task.num_classes)
    engine, obstacle = engines.choose("onnx", model, 1)
    if obstacle:
        raise ModuleNotFoundError(str(obstacle))
    once = table.seconds(features.extract, backbone, images, engine=engine)
    found = {name: features.extract(backbone, images, engine=name) for name in photographs.ENGINES}
    training.linear_probe(model, task, engine="keras")
    weights, bias = model.get_layer("output").get_weights()
    classes = {name: (x @ weights + bias).argmax(axis=1) for name, x in found.items()}
    apart = np.abs(found["onnx"] - found["keras"]).max()
    same = int((classes["onnx"] == classes["keras"]).sum())
    sides = [lambda name=name: features.extract(backbone, images, engine=name) for name in photographs.ENGINES]
    times = table.in_turn(sides, repetitions)
    what = f"extract with ONNX Runtime (at most {apart:.0e} apart, same class for {same} of {len(images)})"
    yield table.Row("d", what, "extract with Keras", times[:, [1, 0]])
    pairs = [(once, np.median(times[:, 0]))]
    yield table.Row("d", "the first extract, which converts MobileNetV2", "extract with Keras", pairs)


if __name__ == "__main__":
    sys.exit(table.main(measure))
