"""What a backbone makes of images, computed once."""

import hashlib
import json
import os
import re
import weakref
from pathlib import Path

import numpy as np

from tlutils.runtime import require_tensorflow

POOLINGS = ("avg", "max", None)

# Keras traces ``predict`` once for each model, which takes longer than the prediction itself on a small one.
_pooled_models = weakref.WeakKeyDictionary()


def extract(backbone, examples, cache_dir=None, *, pooling="avg", batch_size=64):
    """Run every image through a backbone once.

    Args:
        backbone: A :class:`~tlutils.backbones.Backbone`, or any keras.Model that takes raw pixels 0–255.
        examples: :class:`~tlutils.data.Examples`; files are decoded batch by batch while the network computes.
        cache_dir: Folder in which the result is kept, under a name made of the images' contents, the network's
            architecture and its weights; a second call with all three unchanged reads it back. ``None`` keeps nothing.
        pooling: ``"avg"`` or ``"max"`` over the positions of the feature map; ``None`` keeps the map.
        batch_size: Images a step; it bounds the memory and does not change the result.

    Returns:
        ndarray: float32, shape (N, features), or (N, h, w, features) with ``pooling=None``.

    Raises:
        ValueError: ``pooling`` is none of the three.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be 'avg', 'max' or None, not {pooling!r}")
    require_tensorflow()
    model = _pooled(getattr(backbone, "model", backbone), pooling)
    kept = Path(cache_dir) / f"{_key(model, examples)}.npy" if cache_dir else None
    if kept and kept.exists():
        return np.load(kept)
    features = model.predict(examples.batches(batch_size), verbose=0).astype("float32", copy=False)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}.npy")
        np.save(temporary, features)
        os.replace(temporary, kept)
    return features


def _pooled(model, pooling):
    import keras

    if pooling is None or len(model.output_shape) != 4:
        return model
    known = _pooled_models.setdefault(model, {})
    if pooling not in known:
        pool = keras.layers.GlobalAveragePooling2D if pooling == "avg" else keras.layers.GlobalMaxPooling2D
        known[pooling] = keras.Model(model.input, pool(dtype="float32")(model.output))
    return known[pooling]


def _key(model, examples):
    """Hex SHA-256 of everything the features depend on."""
    digest = hashlib.sha256(examples.fingerprint.encode())
    digest.update(_architecture(model).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _architecture(model):
    """The model's configuration as text, with layers numbered instead of named, because Keras counts their names up."""
    text = re.sub(r'"trainable": (true|false), ', "", json.dumps(json.loads(model.to_json())["config"]))
    numbers = {name: f"#{i}" for i, name in enumerate(dict.fromkeys(re.findall(r'"name": "([^"]+)"', text)))}
    return re.sub(r'"([^"]+)"', lambda match: numbers.get(match[1], match[1]), text)
