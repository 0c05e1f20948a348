import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tlutils import backbones, data, engines, features, models, runtime

pytestmark = pytest.mark.usefixtures("tensorflow")


@pytest.fixture(scope="module")
def resnet():
    return backbones.load("pocket_resnet")


def small(divisor=255.0, activation="relu", swapped=False, seed=0):
    """A network with two branches, its preprocessing a function; the same weights for the same seed."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 1))
    a = layers.Conv2D(3, 3, activation=activation)(inputs)
    b = layers.Conv2D(3, 3)(inputs)
    network = keras.Model(inputs, layers.Concatenate()([b, a] if swapped else [a, b]))
    return backbones.wrap(network, lambda x: x / divisor)


def examples(n=10, side=8, seed=0, change=None):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, side, side, 1), dtype=np.uint8)
    if change is not None:
        pixels[change] ^= 1
    return data.Examples(np.zeros(n, int), image_size=(side, side), channels=1, pixels=pixels)


def same(a, b, within=1e-5):
    return a.shape == b.shape and np.abs(a - b).max() <= within * np.abs(b).max()


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pooling", "by_hand"),
    [
        ("avg", lambda maps: maps.mean(axis=(1, 2))),
        ("max", lambda maps: maps.max(axis=(1, 2))),
        (None, lambda maps: maps),
    ],
)
def test_features_are_the_pooled_output_of_the_network(resnet, pooling, by_hand):
    images = examples(9, side=32)
    maps = np.asarray(resnet.model(images.images().astype("float32")))
    found = features.extract(resnet, images, pooling=pooling, batch_size=4)
    assert found.dtype == np.float32
    assert found.std() > 0.01
    assert same(found, by_hand(maps))


def test_the_batch_size_and_whatever_trained_before_do_not_matter(resnet):
    images = examples(9, side=32)
    expected = features.extract(resnet, images)
    models.freeze(models.classifier(resnet, 3))
    for batch_size in (1, 9, 64):
        assert same(features.extract(resnet, images, batch_size=batch_size), expected)


def test_a_model_can_be_given_in_place_of_its_backbone():
    backbone, images = small(), examples()
    assert same(features.extract(backbone.model, images), features.extract(backbone, images), 0)
    flat = models.regressor(backbone, 4)  # nothing left to pool
    assert same(features.extract(flat, images), np.asarray(flat(images.images().astype("float32"))))


def test_features_follow_the_weights():
    backbone, images = small(), examples()
    before = features.extract(backbone, images)
    backbone.model.set_weights([2 * weight for weight in backbone.model.get_weights()])
    after = features.extract(backbone, images)
    assert same(after, features.extract(backbone, images, pooling=None).mean(axis=(1, 2)))
    assert not same(after, before, 0.1)


def test_files_are_streamed_and_give_what_their_pixels_give(folder, monkeypatch):
    folder.fill("one", 7, size=(20, 16), channels=1).fill("two", 6, size=(16, 20), channels=1)
    files = data.load(folder.path, image_size=8, channels=1).train
    arrays = data.Examples(files.labels, image_size=(8, 8), channels=1, pixels=files.images())
    backbone = small()
    expected = features.extract(backbone, arrays, batch_size=4)

    def at_once(self):
        raise AssertionError("all files were decoded at once")

    monkeypatch.setattr(data.Examples, "images", at_once)
    assert same(features.extract(backbone, files, batch_size=4), expected)
    assert len(expected) == len(files) > 4


def test_memory_does_not_grow_with_the_number_of_images_but_for_the_features(monkeypatch):
    monkeypatch.setattr(engines, "with_keras", lambda model: lambda images: np.ones((len(images), 100), "float32"))
    beyond = {}
    for n in (300, 6000):
        images, backbone = examples(n), small()
        tracemalloc.start()
        found = features.extract(backbone, images, batch_size=10)
        beyond[n] = tracemalloc.get_traced_memory()[1] - found.nbytes
        tracemalloc.stop()
        assert found.shape == (n, 100) and (found == 1).all()
    assert beyond[6000] < beyond[300] + 300_000  # the features are 2.4 MB


def test_a_network_is_traced_once_whatever_the_number_of_images():
    backbone = small()
    for n, batch_size in ((10, 4), (7, 7), (1, 64)):
        features.extract(backbone, examples(n), batch_size=batch_size)
    assert engines._traced[features._pooled(backbone.model, "avg")].experimental_get_tracing_count() == 1


def test_features_of_augmented_images_are_those_of_the_changed_images_and_are_not_kept(tmp_path):
    import keras

    backbone, images, shift = small(), examples(), keras.layers.Rescaling(0.5)
    half = data.Examples(images.labels, image_size=(8, 8), channels=1, pixels=images.images() // 2 * 2)
    found = features.extract(backbone, half, tmp_path, augment=shift)
    halved = data.Examples(images.labels, image_size=(8, 8), channels=1, pixels=half.images() // 2)
    assert same(found, features.extract(backbone, halved))
    assert list(tmp_path.iterdir()) == []


def test_progress_says_how_many_images_are_done(monkeypatch, capsys):
    monkeypatch.setenv("TLUTILS_PROGRESS", "0")
    monkeypatch.setattr(features, "PROGRESS_SECONDS", 0)
    features.extract(small(), examples(1000), batch_size=400)
    assert capsys.readouterr() == ("", "")
    features.extract(small(), examples(1000), batch_size=400, progress=True)
    lines = ["  400 of 1,000 images", "  800 of 1,000 images", "1,000 of 1,000 images"]
    assert capsys.readouterr().out.splitlines() == lines
    monkeypatch.setattr(features, "PROGRESS_SECONDS", 3600)
    features.extract(small(), examples(1000), batch_size=400, progress=True)
    assert capsys.readouterr().out == ""


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="examples is empty"):
        features.extract(small(), examples(3).subset(np.array([], int)))


def test_other_poolings_are_refused(resnet):
    with pytest.raises(ValueError, match="'avg', 'max' or None, not 'sum'"):
        features.extract(resnet, examples(side=32), pooling="sum")


# --- cache ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch):
    """From here on, running a network fails."""
    import keras

    def refuse(*args, **kwargs):
        raise AssertionError("the network ran")

    def forbid():
        monkeypatch.setattr(keras.Model, "__call__", refuse)
        monkeypatch.setattr(engines, "with_keras", refuse)

    return forbid


def kept(cache: Path):
    return sorted(path.name for path in cache.iterdir())


def test_what_did_not_change_is_read_back_without_running_the_network(tmp_path, no_network):
    cache = tmp_path / "new" / "cache"
    expected = features.extract(small(), examples(), cache_dir=cache)
    again = small()  # the same network built again: Keras counts the names of its layers up
    assert again.model.get_layer("model").layers[1].name != small().model.get_layer("model").layers[1].name
    no_network()
    found = features.extract(again, examples(), cache_dir=cache, batch_size=3)
    np.testing.assert_array_equal(found, expected)
    assert len(kept(cache)) == 1


def test_a_loaded_backbone_finds_what_it_made_before_freezing(tmp_path, no_network):
    images = examples(side=32)
    expected = features.extract(backbones.load("pocket_vgg"), images, cache_dir=tmp_path)
    backbone = backbones.load("pocket_vgg")
    models.unfreeze(models.classifier(backbone, 3), 1)
    no_network()
    np.testing.assert_array_equal(features.extract(backbone, images, cache_dir=tmp_path), expected)


def one_weight():
    backbone = small()
    weights = backbone.model.get_weights()
    weights[0][0, 0, 0, 0] += 1e-6
    backbone.model.set_weights(weights)
    return backbone


@pytest.mark.parametrize(
    ("backbone", "images", "options"),
    [
        (small, lambda: examples(change=(9, 7, 7, 0)), {}),
        (small, lambda: examples(9), {}),
        (one_weight, examples, {}),
        (small, examples, {"pooling": "max"}),
        (small, examples, {"pooling": None}),
        (lambda: small(activation="elu"), examples, {}),
        (lambda: small(divisor=127.5), examples, {}),
        (lambda: small(swapped=True), examples, {}),
    ],
    ids=["a pixel", "an image", "a weight", "pooling", "no pooling", "activation", "preprocessing", "wiring"],
)
def test_what_changed_is_computed_anew(backbone, images, options, tmp_path):
    first = features.extract(small(), examples(), cache_dir=tmp_path)
    changed = features.extract(backbone(), images(), cache_dir=tmp_path, **options)
    assert len(kept(tmp_path)) == 2
    assert changed.shape != first.shape or (changed != first).any()
    np.testing.assert_array_equal(changed, features.extract(backbone(), images(), **options))


def test_nothing_is_kept_without_a_cache_folder_nor_when_the_network_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    features.extract(small(), examples())
    assert kept(tmp_path) == []

    def fail(images):
        raise KeyboardInterrupt

    monkeypatch.setattr(engines, "with_keras", lambda model: fail)
    with pytest.raises(KeyboardInterrupt):
        features.extract(small(), examples(), cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists() or kept(tmp_path / "cache") == []


# --- going on after an interruption -----------------------------------------------------------------------------------


def counting(monkeypatch, most=None, stop=KeyboardInterrupt):
    """Count the images that run through a network; stop before a batch that would make them more than ``most``."""
    count, with_keras = [0], engines.with_keras

    def wrapped(model):
        forward = with_keras(model)

        def run(images):
            if most is not None and count[0] + len(images) > most:
                raise stop()
            count[0] += len(images)
            return forward(images)

        return run

    monkeypatch.setattr(engines, "with_keras", wrapped)
    return count


@pytest.mark.parametrize(("seconds", "again"), [(0, 3), (3600, 10)])
def test_what_was_stored_before_an_interruption_is_not_computed_again(tmp_path, monkeypatch, seconds, again):
    expected = features.extract(small(), examples())
    monkeypatch.setattr(features, "PART_SECONDS", seconds)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counting(patch, most=7)
        features.extract(small(), examples(), tmp_path, batch_size=1)
    assert not list(tmp_path.glob("*.npy"))
    count = counting(monkeypatch)
    assert same(features.extract(small(), examples(), tmp_path, batch_size=2), expected)
    assert count == [again]
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]
    assert same(features.extract(small(), examples(), tmp_path), expected, 0 if again == 10 else 1e-6)
    assert count == [again]


def test_an_interruption_before_the_last_file_costs_nothing(tmp_path, monkeypatch):
    expected = features.extract(small(), examples())
    monkeypatch.setattr(features, "PART_SECONDS", 0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counting(patch, most=9)
        features.extract(small(), examples(), tmp_path, batch_size=3)
    count = counting(monkeypatch)
    assert same(features.extract(small(), examples(), tmp_path, batch_size=64), expected)
    assert count == [1]


@pytest.mark.parametrize("damage", ["empty", "nonsense", "short", "one bit", "another file"])
@pytest.mark.parametrize("which", ["parts", "whole"])
def test_damaged_files_are_computed_anew(tmp_path, monkeypatch, damage, which):
    expected = features.extract(small(), examples())
    monkeypatch.setattr(features, "PART_SECONDS", 0)
    with monkeypatch.context() as patch:
        counting(patch, most=8 if which == "parts" else None)
        try:
            features.extract(small(), examples(), tmp_path, batch_size=2)
        except KeyboardInterrupt:
            assert which == "parts"
    files = sorted(tmp_path.rglob("*.npy"))
    assert len(files) == {"parts": 4, "whole": 1}[which]
    broken = files[1 if which == "parts" else 0]
    content = bytearray(broken.read_bytes())
    content[-40] ^= 4  # in the numbers
    np.savez(tmp_path / "another.npz", np.ones(3))
    another = (tmp_path / "another.npz").read_bytes()
    (tmp_path / "another.npz").unlink()
    broken.write_bytes(
        {
            "empty": b"",
            "nonsense": b"nonsense",
            "short": bytes(content[:-5]),
            "one bit": bytes(content),
            "another file": another,
        }[damage]
    )
    count = counting(monkeypatch)
    assert same(features.extract(small(), examples(), tmp_path), expected)
    assert count == [{"parts": 8, "whole": 10}[which]]
    assert same(np.load(next(tmp_path.glob("*.npy"))), expected)


def extract_and_die(folder):
    """What the other process of the next test does."""
    runtime.setup(gpu="off")
    features.PART_SECONDS = 0
    with pytest.MonkeyPatch.context() as patch:
        counting(patch, most=6, stop=lambda: os.kill(os.getpid(), signal.SIGKILL))
        features.extract(small(), examples(), folder, batch_size=2)


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_a_killed_call_is_continued_in_another_process(tmp_path, monkeypatch):
    expected = features.extract(small(), examples())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parent, Path.cwd(), *sys.path)))}
    code = f"import test_features; test_features.extract_and_die({str(tmp_path)!r})"
    killed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    count = counting(monkeypatch)
    assert same(features.extract(small(), examples(), tmp_path), expected)
    assert count == [4]
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]
