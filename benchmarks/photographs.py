"""What several benchmarks run on: MobileNetV2 and photographs of ants and bees, decoded beforehand."""

import warnings

from tlutils import backbones, data
from tlutils.engines import EngineWarning

ENGINES = {"keras": "Keras", "onnx": "ONNX Runtime"}
warnings.simplefilter("error", EngineWarning)  # what Keras ran must not stand in the table as ONNX Runtime's


def in_memory(name="mobilenet_v2", source="hymenoptera"):
    """``(backbone, task)``: a pretrained network and a task whose images are arrays, without validation images.

    Raises:
        FileNotFoundError: The weights are not in $KERAS_HOME/models.
        tlutils.data.DataError: The photographs are not in $KERAS_HOME/datasets.
    """
    backbone, task = backbones.load(name), data.load(source)
    train = task.train.images(), task.train.labels
    return backbone, data.from_arrays(task.name, train, class_names=task.class_names)
