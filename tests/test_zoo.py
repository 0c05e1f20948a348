import inspect
import json
import re
from datetime import date
from importlib.metadata import version

import numpy as np
import pytest

from tlutils import letters, sources, zoo

pytestmark = pytest.mark.usefixtures("tensorflow")

NAMES = ("pocket_vgg", "pocket_resnet", "pocket_inception", "pocket_mobilenet")


@pytest.fixture(scope="module")
def unseen():
    """Letters of the held-out fonts, drawn with a seed that nothing was recorded or trained with."""
    images, labels = letters.draw(3000, seed=20_26, fonts="validation")
    return images / np.float32(255), labels


@pytest.fixture
def unvalidated(monkeypatch):
    """No validation on 5,000 letters where the accuracy is not what is tested."""
    monkeypatch.setattr(zoo, "validate", lambda model, source: (0.0, []))


# --- architectures ----------------------------------------------------------------------------------------------------


def kind(layer):
    return type(layer).__name__


def feeding(layer):
    """The layers whose outputs go into a layer."""
    tensors = layer.input if isinstance(layer.input, list) else [layer.input]
    return [tensor._keras_history.operation for tensor in tensors]


def branch(layer, until):
    """The layers from ``layer`` back to the one named ``until``, on a path without forks."""
    path = []
    while layer.name != until:
        path.append(layer)
        (layer,) = feeding(layer)
    return path[::-1]


def convolutions(layers):
    return [layer for layer in layers if kind(layer) == "Conv2D"]


def normalized(network):
    """Whether each convolution is followed by BatchNorm and has no bias of its own."""
    convs = [layer for layer in network.layers if "Conv" in kind(layer)]
    norms = [layer for layer in network.layers if kind(layer) == "BatchNormalization"]
    assert not any(conv.use_bias for conv in convs)
    return [feeding(norm)[0].name for norm in norms] == [conv.name for conv in convs]


def test_the_zoo_has_four_families():
    assert tuple(zoo.FAMILIES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_family_is_a_pocket_network_at_32_pixels(name):
    network = zoo.build(name)
    assert network.input_shape == (None, 32, 32, 1)
    assert len(network.output_shape) == 4
    # Counted from the shapes, not by Keras.
    assert 100_000 <= sum(int(np.prod(weight.shape)) for weight in network.weights) <= 300_000
    assert zoo.build(name, (48, 40, 1)).input_shape == (None, 48, 40, 1)


def test_vgg_is_pairs_of_3x3_convolutions_and_max_pooling_without_batch_norm():
    layers = zoo.build("pocket_vgg").layers[1:]
    assert [kind(layer) for layer in layers] == ["Conv2D", "Conv2D", "MaxPooling2D"] * 4
    for conv in convolutions(layers):
        assert (conv.kernel_size, conv.strides, conv.activation.__name__) == ((3, 3), (1, 1), "relu")
    widths = [conv.filters for conv in convolutions(layers)]
    assert widths[::2] == widths[1::2] == sorted(set(widths))


def test_resnet_adds_each_bottleneck_to_a_shortcut_of_its_input():
    network = zoo.build("pocket_resnet")
    assert normalized(network)
    sums = [layer for layer in network.layers if kind(layer) == "Add"]
    assert len(sums) == 5
    entry = "stem_relu"
    for add in sums:
        shortcut, residual = sorted((branch(end, entry) for end in feeding(add)), key=len)
        assert [conv.kernel_size for conv in convolutions(residual)] == [(1, 1), (3, 3), (1, 1)]
        # The shortcut is the input itself, or a linear projection of it where the shape changes.
        assert [kind(layer) for layer in shortcut] in ([], ["Conv2D", "BatchNormalization"])
        assert [conv.kernel_size for conv in convolutions(shortcut)] in ([], [(1, 1)])
        assert kind(residual[-1]) == "BatchNormalization"  # nothing is cut off before the sum
        (entry,) = (
            layer.name for layer in network.layers if add in (feeding(layer) if layer.input is not None else [])
        )
    assert network.layers[-1].name == entry


def test_inception_concatenates_four_branches_of_different_receptive_fields():
    network = zoo.build("pocket_inception")
    assert normalized(network)
    mixed = [layer for layer in network.layers if kind(layer) == "Concatenate"]
    assert len(mixed) == 4
    for concatenate in mixed:
        ends = feeding(concatenate)
        assert len(ends) == 4
        block = concatenate.name.removesuffix("_mixed")
        kernels = []
        for end in ends:
            path = [end]
            while feeding(path[-1])[0].name.startswith(block) and "shrink" not in feeding(path[-1])[0].name:
                path += feeding(path[-1])
            kernels.append([layer.kernel_size[0] for layer in reversed(path) if kind(layer) == "Conv2D"])
            if kind(path[-1]) == "AveragePooling2D":
                kernels[-1].insert(0, "pool")
        assert kernels == [[1], [1, 3], [1, 3, 3], ["pool", 1]]
    assert network.layers[-1] is mixed[-1]


def test_mobilenet_filters_channel_by_channel_between_an_expansion_and_a_linear_bottleneck():
    network = zoo.build("pocket_mobilenet")
    assert normalized(network)
    depthwise = [layer for layer in network.layers if kind(layer) == "DepthwiseConv2D"]
    assert len(depthwise) == 6
    assert all(layer.depth_multiplier == 1 and layer.kernel_size == (3, 3) for layer in depthwise)
    after = {}
    for layer in network.layers[1:]:
        for before in feeding(layer):
            after.setdefault(before.name, []).append(layer)
    for layer in depthwise:
        steps = [layer]
        while kind(steps[-1]) != "BatchNormalization" or len(convolutions(steps)) == 0:
            (following,) = after[steps[-1].name]
            steps.append(following)
        assert [kind(step) for step in steps[1:]] == [
            "BatchNormalization",
            "Activation",
            "Conv2D",
            "BatchNormalization",
        ]
        project = convolutions(steps)[0]
        assert project.kernel_size == (1, 1)
        assert project.activation.__name__ == "linear"
        expanded, narrow = layer.input.shape[-1], project.filters
        assert expanded > narrow  # inverted: wide inside, narrow between the blocks
        # The bottleneck goes on linearly: into the next expansion or into a sum.
        assert {kind(step) for step in after[steps[-1].name]} <= {"Conv2D", "Add"}
    shortcuts = [feeding(layer) for layer in network.layers if kind(layer) == "Add"]
    assert len(shortcuts) >= 2
    assert all(kind(end) == "BatchNormalization" for ends in shortcuts for end in ends)  # from bottleneck to bottleneck
    assert {layer.activation.__name__ for layer in network.layers if kind(layer) == "Activation"} >= {"relu6"}


# --- the weights that ship --------------------------------------------------------------------------------------------


def test_the_weights_are_float16_and_small():
    files = sorted(zoo.WEIGHTS.iterdir())
    stems = [name + source for name in NAMES for source in ("", "-strokes", "-textures")]
    assert {file.name for file in files} == {f"{stem}.{ending}" for stem in stems for ending in ("json", "npz")}
    assert sum(file.stat().st_size for file in files) < 4e6
    for name in NAMES:
        with np.load(zoo.WEIGHTS / f"{name}.npz") as arrays:
            assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
            assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_network_reads_unseen_letters_as_well_as_recorded(name, unseen):
    images, labels = unseen
    model = zoo.load(name)
    accuracy = np.mean(model.predict(images, batch_size=500, verbose=0).argmax(1) == labels)
    assert abs(accuracy - zoo.record(name)["accuracy"]) < 0.02
    assert accuracy > 0.9
    # Its layer of that name is the network without the classifier, as ``build`` makes it.
    assert model.get_layer(name).count_params() == zoo.build(name).count_params()


@pytest.mark.parametrize("name", NAMES)
def test_the_record_says_how_the_weights_were_made(name):
    record = json.loads((zoo.WEIGHTS / f"{name}.json").read_text())
    assert record == zoo.record(name)
    assert record["name"] == name
    assert f"tlutils.zoo {name}" in record["command"]
    assert isinstance(record["settings"]["seed"], int)
    assert re.fullmatch("[0-9a-f]{64}", record["data_sha256"])
    assert {"tensorflow", "keras", "numpy", "pillow", "matplotlib"} <= record["versions"].keys()
    assert date.fromisoformat(record["date"])
    assert record["held_out_fonts"] == [path.stem for path in letters.fonts("validation")]
    assert record["parameters"] == zoo.build(name).count_params()
    assert "37 classes" in record["source_task"]
    assert f"{len(letters.fonts())} fonts" in record["source_task"]
    pairs = record["confused_pairs"]
    assert len(pairs) == 10
    assert all(true != predicted and {true, predicted} <= set(letters.CLASS_NAMES) for true, predicted, _ in pairs)
    counts = [count for *_, count in pairs]
    assert counts == sorted(counts, reverse=True)
    assert 0 < sum(counts) <= round((1 - record["accuracy"]) * 5000)


@pytest.mark.parametrize("name", NAMES)
def test_make_zoo_would_train_with_the_recorded_settings(name, monkeypatch, tmp_path):
    calls = []
    signature = inspect.signature(zoo.pretrain)

    def pretrain(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        calls.append(call.arguments)
        return None, {"accuracy": 0, "seconds": 0}

    monkeypatch.setattr(zoo, "pretrain", pretrain)
    monkeypatch.setattr(zoo, "save", lambda *args: None)
    zoo.main(["--work", str(tmp_path)])
    (call,) = (call for call in calls if call["name"] == name)
    assert {key: call[key] for key in ("images", "epochs", "learning_rate", "batch_size", "seed")} == zoo.record(name)[
        "settings"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_accuracy_comes_from_these_weights(name):
    accuracy, pairs = zoo.validate(zoo.load(name))
    record = zoo.record(name)
    # Recorded before the weights were rounded to float16.
    assert accuracy == pytest.approx(record["accuracy"], abs=0.003)
    recorded = {(true, predicted): count for true, predicted, count in record["confused_pairs"]}
    common = [(count, recorded[true, predicted]) for true, predicted, count in pairs if (true, predicted) in recorded]
    assert len(common) >= 5
    assert all(abs(a - b) <= 3 for a, b in common)


@pytest.mark.slow
def test_the_letters_can_be_drawn_again():
    record = zoo.record("pocket_resnet")
    here = {package: version(package) for package in ("pillow", "matplotlib", "numpy")}
    there = {package: record["versions"][package] for package in here}
    if here != there:
        pytest.skip(f"fonts are rasterised by {here} here, and were by {there}")
    drawn = letters.fingerprint(*letters.draw(record["settings"]["images"], record["settings"]["seed"]))
    assert drawn == record["data_sha256"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", ["strokes", "textures"])
def test_the_weights_of_another_source_reach_their_recorded_accuracy(name, source):
    x, y = sources.SOURCES[source].draw(1500, 20_26, "validation")
    accuracy = np.mean(
        zoo.load(name, source=source).predict(x / np.float32(255), batch_size=500, verbose=0).argmax(1) == y
    )
    record = zoo.record(name, source)
    assert accuracy == pytest.approx(record["accuracy"], abs=0.02)
    assert record["source"] == source and record["settings"] == zoo.record(name)["settings"]
    assert record["command"].startswith(f"python -m tlutils.zoo {name} --source {source} ")


@pytest.mark.parametrize("source", ["strokes", "textures"])
def test_all_four_learnt_from_the_same_images_of_another_source(source):
    assert len({zoo.record(name, source)["data_sha256"] for name in NAMES}) == 1


def test_all_weights_together_are_small():
    files = list(zoo.WEIGHTS.glob("*.npz"))
    assert len(files) == 12
    assert sum(path.stat().st_size for path in files) < 10e6


def test_the_sources_are_pretrained_side_by_side(tmp_path):
    command = ["pocket_vgg", "--source", "strokes", "textures", "--images", "64", "--epochs", "1", "--jobs", "2"]
    assert zoo.main([*command, "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]) == 0
    for source in ("strokes", "textures"):
        file = zoo.weights_file("pocket_vgg", source, tmp_path / "out")
        assert zoo.load("pocket_vgg", file, source).layers[-1].name == source
        with pytest.raises(ValueError, match="does not hold the weights of pocket_vgg for letters"):
            zoo.load("pocket_vgg", file)


def test_all_four_learnt_from_the_same_letters():
    assert len({zoo.record(name)["data_sha256"] for name in NAMES}) == 1


# --- pretraining ------------------------------------------------------------------------------------------------------


def learns(name, unseen, unvalidated, images):
    model, record = zoo.pretrain(name, images=images, epochs=3, batch_size=64, seed=4, verbose=False)
    accuracy = np.mean(model.predict(unseen[0][:1000], batch_size=500, verbose=0).argmax(1) == unseen[1][:1000])
    assert accuracy > 0.27  # ten times chance
    assert record["data_sha256"] == letters.fingerprint(*letters.draw(images, 4))
    assert record["settings"] == {"images": images, "epochs": 3, "learning_rate": 3e-3, "batch_size": 64, "seed": 4}


def test_a_small_rebuild_learns(unseen, unvalidated):
    learns("pocket_resnet", unseen, unvalidated, images=2048)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_small_rebuild_of_each_family_learns(name, unseen, unvalidated):
    learns(name, unseen, unvalidated, images=4096)


class Interruption(KeyboardInterrupt):
    """Ctrl-C."""


def after_fit(monkeypatch, keras):
    """Ctrl-C in the third epoch, when the weights have changed and the epoch is not yet stored."""
    fit = keras.Model.fit

    def interrupted(self, *args, **kwargs):
        history = fit(self, *args, **kwargs)
        if kwargs["initial_epoch"] == 2:
            raise Interruption
        return history

    monkeypatch.setattr(keras.Model, "fit", interrupted)


def while_saving(monkeypatch, keras):
    """Ctrl-C when half of the second epoch's file is written."""
    save, calls = keras.Model.save, []

    def interrupted(self, path, *args, **kwargs):
        save(self, path, *args, **kwargs)
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(path.read_bytes()[:1000])
            raise Interruption

    monkeypatch.setattr(keras.Model, "save", interrupted)


def between_the_files(monkeypatch, keras):
    """Ctrl-C when one of the second epoch's two files is in place and the other is not."""
    replace, calls = zoo.os.replace, []

    def interrupted(source, target):
        replace(source, target)
        calls.append(target)
        if len(calls) == 3:
            raise Interruption

    monkeypatch.setattr(zoo.os, "replace", interrupted)


def between_the_first_files(monkeypatch, keras):
    """Ctrl-C when the first epoch's first file is in place."""
    replace = zoo.os.replace

    def interrupted(source, target):
        replace(source, target)
        raise Interruption

    monkeypatch.setattr(zoo.os, "replace", interrupted)


def _tiny(x):
    from keras import layers

    x = layers.Conv2D(8, 5, strides=4, name="block1_conv")(x)
    return layers.BatchNormalization(name="block1_bn")(x)


@pytest.fixture
def rehearse(unvalidated, monkeypatch):
    """Pretraining of a network that is traced in a second, for three epochs; gives the weights it ends with."""
    monkeypatch.setitem(zoo.FAMILIES, "pocket_tiny", _tiny)
    return _rehearse


def _rehearse(**options):
    options = {"images": 192, "epochs": 3, "batch_size": 64, "verbose": False} | options
    return zoo.pretrain("pocket_tiny", **options)[0].get_weights()


@pytest.fixture(scope="module")
def uninterrupted():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(zoo.FAMILIES, "pocket_tiny", _tiny)
        monkeypatch.setattr(zoo, "validate", lambda model, source: (0.0, []))
        return _rehearse()


def same(weights, others):
    return all(np.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(weights, others, strict=True))


@pytest.mark.parametrize(
    ("interrupt", "epochs"),
    [(after_fit, [2]), (while_saving, [1, 2]), (between_the_files, [1, 2]), (between_the_first_files, [0, 1, 2])],
)
def test_interrupted_training_goes_on_and_ends_where_it_would_have(
    interrupt, epochs, rehearse, uninterrupted, tmp_path, monkeypatch
):
    import keras

    with monkeypatch.context() as patch:
        interrupt(patch, keras)
        with pytest.raises(Interruption):
            rehearse(work=tmp_path)
    trained = []
    fit = keras.Model.fit
    monkeypatch.setattr(keras.Model, "fit", lambda *a, **k: (trained.append(k["initial_epoch"]), fit(*a, **k))[1])
    resumed = rehearse(work=tmp_path)
    assert trained == epochs
    assert same(resumed, uninterrupted)


def test_a_stored_state_of_other_settings_is_not_gone_on_with(rehearse, uninterrupted, tmp_path):
    assert not same(rehearse(seed=1, work=tmp_path), uninterrupted)
    assert same(rehearse(work=tmp_path), uninterrupted)


def test_the_command_writes_weights_and_record_and_trains_nothing_twice(unvalidated, tmp_path, monkeypatch, capfd):
    import keras

    command = ["pocket_vgg", "--images", "256", "--epochs", "1"]
    command += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert zoo.main(command) == 0
    assert "pocket_vgg" in capfd.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["pocket_vgg.json", "pocket_vgg.npz"]
    first = zoo.load("pocket_vgg", tmp_path / "out" / "pocket_vgg.npz").get_weights()
    record = json.loads((tmp_path / "out" / "pocket_vgg.json").read_text())
    assert record["settings"]["images"] == 256
    assert record["versions"]["keras"] == keras.__version__

    monkeypatch.setattr(keras.Model, "fit", None)
    assert zoo.main(command) == 0
    again = zoo.load("pocket_vgg", tmp_path / "out" / "pocket_vgg.npz").get_weights()
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_command_refuses_an_unknown_source_task(capsys):
    with pytest.raises(SystemExit):
        zoo.main(["--source", "cats"])
    error = capsys.readouterr().err
    assert "cats" in error and "strokes" in error


def test_the_command_refuses_an_unknown_network(capsys):
    with pytest.raises(SystemExit):
        zoo.main(["pocket_gan"])
    error = capsys.readouterr().err
    assert "pocket_gan" in error
    assert "pocket_vgg" in error


# --- files ------------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_loaded_rounded_to_float16(tmp_path):
    import keras

    keras.utils.set_random_seed(1)
    model = zoo._with_classifier(zoo.build("pocket_mobilenet"))
    zoo.save(model, {"name": "pocket_mobilenet"}, tmp_path)
    loaded = zoo.load("pocket_mobilenet", tmp_path / "pocket_mobilenet.npz")
    assert json.loads((tmp_path / "pocket_mobilenet.json").read_text()) == {"name": "pocket_mobilenet"}
    for weight, original in zip(loaded.get_weights(), model.get_weights(), strict=True):
        assert weight.dtype == np.float32
        np.testing.assert_array_equal(weight, original.astype(np.float16).astype(np.float32))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.npz"))):
        zoo.load("pocket_vgg", tmp_path / "none.npz")


def _another_network(path):
    zoo.save(zoo._with_classifier(zoo.build("pocket_vgg")), {"name": path.stem}, path.parent)


def _damaged(path):
    _another_network(path)
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    "write",
    [
        _another_network,
        _damaged,
        lambda path: path.write_text("no weights"),
        lambda path: path.write_bytes(b""),
        lambda path: np.save(path.open("wb"), np.zeros(3)),
        lambda path: np.savez(path, kernel=np.zeros(3)),
    ],
    ids=["another network", "damaged", "text", "empty", "one array", "other arrays"],
)
def test_a_wrong_file_is_named(write, tmp_path):
    path = tmp_path / "weights.npz"
    write(path)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} does not hold the weights of pocket_resnet"):
        zoo.load("pocket_resnet", path)
