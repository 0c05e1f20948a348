"""A folder of photographs in, a classifier out: on drawings of bars and boxes and a small network."""

import json
import os
import re
import signal
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pictures import Folder, encoded, noise
from PIL import Image

from tlutils import data, evaluation, models, photos, training
from tlutils.checkpoints import CheckpointWarning

KINDS = ("box", "level bar", "upright bar")
BACKBONE = "pocket_vgg"
ROOT = Path(__file__).resolve().parents[1]


def drawing(kind, seed):
    """A box or a bar somewhere on a dark ground; a 40 by 30 picture that no other seed gives."""
    draw = np.random.default_rng([seed, KINDS.index(kind)])
    pixels = draw.integers(0, 90, (30, 40, 3), dtype=np.uint8)
    x, y = draw.integers(2, 30), draw.integers(2, 20)
    rows = slice(None) if kind == "upright bar" else slice(y, y + 7)
    columns = slice(None) if kind == "level bar" else slice(x, x + 7)
    pixels[rows, columns] = 230
    return Image.fromarray(pixels)


def draw(folder, count, start=0, names=KINDS, side=""):
    for kind in names:
        for seed in range(start, start + count):
            folder.put(f"{side}{kind}/{seed:03d}.png", drawing(kind, seed))
    return folder


def contents(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def same(weights, others):
    return len(weights) == len(others) and all(np.array_equal(a, b) for a, b in zip(weights, others))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tensorflow):
    """What came of a folder of drawings, two of whose files are broken: ``(folder, its files before, Trained)``."""
    home = tmp_path_factory.mktemp("bars")
    folder = Folder(home / "drawings")
    draw(folder, 15)
    folder.put("box/words.jpg", b"these are no pixels")
    folder.put("level bar/empty.png", b"")
    before = contents(folder.path)
    with pytest.warns(data.DataWarning, match="skipped 2 of 47 image files"):
        made = photos.train(folder.path, home / "bars.keras", BACKBONE, epochs=3, progress=False)
    return folder, before, made


@pytest.fixture(scope="module")
def classifier(trained):
    return photos.load(trained[2].files[0])


@pytest.fixture
def drawings(folder):
    return draw(folder, 6)


# --- train ------------------------------------------------------------------------------------------------------------


def test_a_folder_becomes_a_model_with_all_that_belongs_to_it(trained):
    folder, before, made = trained
    out = folder.path.parent / "bars.keras"
    assert made.files == tuple(out.with_suffix(suffix) for suffix in (".keras", ".md", ".json", ".png"))
    assert sorted(out.parent.iterdir()) == sorted([*made.files, folder.path])  # nothing else, and no backup
    assert contents(folder.path) == before
    assert made.task.class_names == KINDS
    assert (len(made.task.train), len(made.task.val), made.task.test) == (36, 9, None)
    with Image.open(made.files[3]) as picture:
        assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 5


def test_the_report_is_what_the_model_does_on_the_validation_images(trained):
    made = trained[2]
    logits = made.model.predict(made.task.val.images().astype("float32"), verbose=0)
    assert made.report.accuracy == pytest.approx((logits.argmax(1) == made.task.val.labels).mean())
    assert made.report.accuracy > 0.6  # a guess is right once in three
    stored = evaluation.Report.from_json(made.files[2])
    assert np.array_equal(stored.predictions, made.report.predictions) and stored.split == "val"


def test_what_is_printed_names_the_stages_the_decision_and_what_was_measured(trained):
    made = trained[2]
    text = str(made)
    table = text.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in table[1:3]] == ["probe", "fine-tuned"]
    assert table[3] == made.why
    words = " ".join(text.split())  # the report breaks its lines
    assert "on 9 validation images (not a test: choices may have been made on them)" in words
    assert "These validation images chose the model" in text


def test_the_card_names_data_backbone_decision_broken_files_and_limits(trained):
    import keras

    made = trained[2]
    card = made.files[1].read_text(encoding="utf-8")
    for words in (
        "# Model card: bars",
        "pocket_vgg",
        "seed 0",
        made.why,
        "**Validation data, not a test.**",
        "These validation images chose the model",
        "box/words.jpg: not an image",
        "level bar/empty.png: the file is empty",
        "shape (N, 32, 32, 3)",
        f"written with Keras {keras.__version__}",
    ):
        assert words in card


def test_a_test_split_is_what_the_report_is_on(folder, tmp_path, tensorflow):
    draw(folder, 6, side="train/")
    draw(folder, 3, start=50, side="val/")
    draw(folder, 4, start=80, side="test/")
    made = photos.train(folder.path, tmp_path / "bars.keras", BACKBONE, epochs=0, progress=False)
    assert made.report.split == "test" and len(made.report) == 12
    assert "on 12 test images" in str(made) and "These validation images" not in str(made)
    assert "These validation images" not in made.files[1].read_text(encoding="utf-8")
    assert [file.suffix for file in made.files] == [".keras", ".md", ".json"]  # no epoch, no curve
    assert made.kept == "probe" and "fine-tuning was not asked for" in made.why


def stage(name, right, of=10, sure=3.0):
    """A stage whose model gets so many of the validation images right, and is so sure of everything."""
    labels = np.zeros(of, int)
    logits = np.where(np.arange(of) < right, sure, -sure)[:, None] * [1, -1]
    report = evaluation.report(logits, labels, class_names=("a", "b"), split="val")
    return {"stage": name, "report": report, "best_epoch": 2, "history": {"loss": [1, 1, 1]}}


@pytest.mark.parametrize(("probe", "tuned", "kept"), [(7, 8, "fine-tuned"), (7, 7, "probe"), (7, 6, "probe")])
@pytest.mark.parametrize("sure", [0.1, 9.0])  # the loss has no say
def test_the_tuned_model_is_kept_only_if_it_gets_more_images_right(probe, tuned, kept, sure):
    decision, why = photos._decide([stage("probe", probe), stage("fine-tuned", tuned, sure=sure)])
    assert decision == kept and why.startswith(f"Kept: the {'fine-tuned model' if kept != 'probe' else 'probe'}")
    assert re.search(rf"\b{probe}\b", why) and re.search(rf"\b{tuned}\b", why)


def test_a_tuning_without_any_better_epoch_leaves_the_probe():
    tuned = stage("fine-tuned", 7) | {"best_epoch": 0}
    expected = "Kept: the probe; no epoch of fine-tuning has a lower validation loss."
    assert photos._decide([stage("probe", 7), tuned]) == ("probe", expected)


def test_a_tuned_model_that_is_worse_leaves_the_weights_of_the_probe(drawings, tmp_path, tensorflow, monkeypatch):
    probed = []

    def harmful(model, task, **options):
        probed.extend(model.get_weights())
        model.set_weights([0 * weight for weight in probed])  # the first class for everything
        return training.Fit(model, {"loss": [1.0], "val_loss": [1.0]}, 1.0, 1)

    monkeypatch.setattr(training, "fine_tune", harmful)
    made = photos.train(drawings.path, tmp_path / "bars.keras", BACKBONE, epochs=1, progress=False)
    assert made.kept == "probe" and any(weight.any() for weight in probed)
    divided = [*probed[:-2], *(weight / made.temperature for weight in probed[-2:])]  # those of the output come last
    assert same(made.model.get_weights(), divided)
    assert same(photos.load(made.files[0]).model.get_weights(), divided)


# --- the temperature --------------------------------------------------------------------------------------------------


def test_the_probabilities_are_as_sure_as_the_validation_images_allow(trained):
    made = trained[2]
    stage = next(stage for stage in made.stages if stage["stage"] == made.kept)
    before, after = stage["report"], made.report
    assert np.array_equal(before.predictions, after.predictions)
    np.testing.assert_allclose(after.outputs * made.temperature, before.outputs, rtol=1e-12)
    logits = made.model.predict(made.task.val.images().astype("float32"), verbose=0)
    np.testing.assert_allclose(logits, after.outputs, rtol=1e-3, atol=1e-3 * np.abs(after.outputs).max())
    # its log-loss with smoothed labels is lower than with any other temperature
    smoothed = np.full(after.outputs.shape, 1 / 11 / 2)
    smoothed[np.arange(9), after.labels] = 10 / 11

    def loss(factor):
        exponentials = np.exp(after.outputs * factor)
        return -(smoothed * np.log(exponentials / exponentials.sum(axis=1, keepdims=True))).sum()

    assert loss(1) < min(loss(0.99), loss(1.01))
    sentence = f"The logits are divided by {made.temperature:.3g}, so that the probabilities fit"
    assert sentence in str(made) and sentence in made.files[1].read_text(encoding="utf-8")


def test_where_no_temperature_helps_the_weights_stay(tensorflow):
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="output")])
    before = model.get_weights()
    wrong = evaluation.report(np.eye(2), np.array([1, 0]))
    assert photos._divide(model, wrong) == 1 and same(model.get_weights(), before)
    assert "no temperature helps" in photos._divided(1)


# --- the file in plain Keras ------------------------------------------------------------------------------------------

WITHOUT_TLUTILS = """
import importlib.abc, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tlutils":
            raise ModuleNotFoundError("No module named 'tlutils'")
sys.meta_path.insert(0, Missing())
try:
    import tlutils
except ModuleNotFoundError:
    pass
else:
    sys.exit("tlutils can be imported")
"""


def without_tlutils(code, folder):
    """Run code in a process of its own in which ``tlutils`` cannot be imported; what it printed."""
    found = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_TLUTILS + code], capture_output=True, text=True, cwd=folder
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_plain_keras_loads_the_file_in_safe_mode_and_predicts_the_same(trained, tmp_path):
    made = trained[2]
    pixels = np.concatenate([made.task.val.images(), made.task.train.images()[:5]])
    np.save(tmp_path / "pixels.npy", pixels)
    without_tlutils(
        f"""
import keras, numpy
model = keras.models.load_model({str(made.files[0])!r}, safe_mode=True)
numpy.save("logits.npy", model.predict(numpy.load("pixels.npy"), verbose=0))
assert model.loss.from_logits and not any(name.startswith("tlutils") for name in sys.modules)
""",
        tmp_path,
    )
    expected = made.model.predict(pixels.astype("float32"), verbose=0)
    spread = np.ptp(expected, axis=0)
    assert spread.min() > 0.01  # they are no constants
    assert (np.abs(np.load(tmp_path / "logits.npy") - expected) < 1e-4 * spread).all()


def test_the_code_of_the_card_runs_without_this_package(trained, classifier, tmp_path):
    made = trained[2]
    code = re.search(r"```python\n(.*?)```", made.files[1].read_text(encoding="utf-8"), re.DOTALL)[1]
    picture, turned = drawing("box", 900), Image.Exif()
    turned[0x0112] = 6  # lies on its side, as photographs of a phone do
    picture.save(tmp_path / "photo.jpg", "PNG", exif=turned)  # without loss, whatever it is called
    (tmp_path / "bars.keras").write_bytes(made.files[0].read_bytes())
    printed = without_tlutils(code, tmp_path).splitlines()[-1]
    found = {name: float(share) for name, share in re.findall(r"'([^']+)': (?:np\.float32\()?([\d.e-]+)", printed)}
    expected = dict(classifier.predict([tmp_path / "photo.jpg"])[0].classes)
    assert found == pytest.approx(expected, abs=1e-4) and set(found) == set(KINDS)


def test_the_names_travel_in_the_metadata_and_keras_finds_its_usual_members(trained):
    with zipfile.ZipFile(trained[2].files[0]) as file:
        assert file.testzip() is None
        assert sorted(file.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
        metadata = json.loads(file.read("metadata.json"))
    assert metadata["tlutils"]["class_names"] == list(KINDS) and "keras_version" in metadata
    begins = {side: [digest[:16] for digest in getattr(trained[2].task, side).digests] for side in ("train", "val")}
    assert metadata["tlutils"]["seen"] == begins
    assert "the SHA-256 of each training and validation image" in trained[2].files[1].read_text(encoding="utf-8")


def test_diagnose_finds_no_trap_in_the_file(trained):
    import keras

    from tlutils.diagnose import diagnose

    found = diagnose(keras.models.load_model(trained[2].files[0]))
    assert [finding for finding in found if finding.level == "error"] == []


def test_opening_gives_back_what_was_trained(trained, classifier):
    made = trained[2]
    assert classifier.class_names == KINDS
    assert (classifier.image_size, classifier.backbone) == ((32, 32), BACKBONE)
    assert same(classifier.model.get_weights(), made.model.get_weights())


def test_a_file_whose_names_do_not_fit_its_logits_is_refused(trained, tmp_path):
    facts = {"class_names": ["a", "b"], "backbone": BACKBONE, "seen": {"train": [], "val": []}}
    (tmp_path / "made").mkdir()
    photos._save(trained[2].model, tmp_path / "made" / "two.keras", facts)
    with pytest.raises(ValueError, match=r"cannot load .*two\.keras.*: it gives 3 logits and names 2 classes"):
        photos.load(tmp_path / "made" / "two.keras")


def test_a_file_that_is_no_such_model_is_refused(tmp_path, tensorflow):
    import keras

    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    plain.save(tmp_path / "plain.keras")
    (tmp_path / "words.keras").write_text("a shopping list")
    with zipfile.ZipFile(tmp_path / "hollow.keras", "w") as file:
        file.writestr("metadata.json", json.dumps({"tlutils": {"class_names": ["a", "b"]}}))
    with pytest.raises(FileNotFoundError, match="there is no model at"):
        photos.load(tmp_path / "missing.keras")
    for name, words in (
        ("words.keras", "is not a Keras model"),
        ("plain.keras", "does not say which classes it knows"),
        ("hollow.keras", "cannot load"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            photos.load(tmp_path / name)
        assert name in str(error.value)


def test_a_file_whose_weights_were_damaged_is_refused(trained, tmp_path):
    content = bytearray(trained[2].files[0].read_bytes())
    with zipfile.ZipFile(trained[2].files[0]) as file:
        weights = file.getinfo("model.weights.h5")
    content[weights.header_offset + weights.file_size // 2] ^= 1
    (tmp_path / "flipped.keras").write_bytes(content)
    with pytest.raises(ValueError, match=r"flipped\.keras is damaged \(the checksum of its model\.weights\.h5"):
        photos.load(tmp_path / "flipped.keras")
    (tmp_path / "cut.keras").write_bytes(content[:-1000])
    with pytest.raises(ValueError, match=r"cut\.keras is not a Keras model"):
        photos.load(tmp_path / "cut.keras")


def test_what_was_trained_in_mixed_precision_is_written_and_measured_in_float32(drawings, tmp_path, tensorflow):
    import keras

    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        made = photos.train(drawings.path, tmp_path / "bars.keras", BACKBONE, epochs=1, progress=False)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    model = photos.load(made.files[0]).model
    assert {layer.compute_dtype for layer in models.all_layers(model)} == {"float32"}
    logits = model.predict(made.task.val.images().astype("float32"), verbose=0)
    np.testing.assert_allclose(logits, made.report.outputs, rtol=1e-3, atol=1e-3 * np.abs(logits).max())
    stage = next(stage for stage in made.stages if stage["stage"] == made.kept)
    halves = stage["report"].outputs / made.temperature  # what float16 gave
    assert 1e-5 < np.abs(logits - halves).max() < 0.05 * np.abs(logits).max()


# --- predict ----------------------------------------------------------------------------------------------------------


def test_predictions_are_the_softmax_of_the_logits_best_first(classifier, folder):
    files = [folder.put(f"{i}.png", drawing(kind, 300 + i)) for i, kind in enumerate(KINDS * 2)]
    pixels = [np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BILINEAR)) for file in files]
    logits = classifier.model.predict(np.stack(pixels).astype("float32"), verbose=0).astype(float)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = classifier.predict(files, batch_size=4)  # the second batch is smaller
    assert [prediction.file for prediction in found] == [str(file) for file in files]
    for prediction, share in zip(found, shares):
        assert [name for name, _ in prediction.classes] == [KINDS[i] for i in np.argsort(-share)]
        assert dict(prediction.classes) == pytest.approx(dict(zip(KINDS, share)), abs=1e-4)
    assert [len(prediction.classes) for prediction in classifier.predict(files[:1], top=2)] == [2]
    assert classifier.predict([]) == []


def test_a_file_that_is_no_image_is_reported_and_the_others_go_on(classifier, folder):
    good = folder.put("good.png", drawing("box", 400))
    words = folder.put("words.txt", b"a shopping list")
    missing = folder.path / "missing.png"
    found = classifier.predict([words, good, missing, folder.path, folder.put("empty.jpg", b""), 300 * "a", good / "b"])
    problems = [prediction.problem for prediction in found]
    assert problems[1] is None and found[1].classes[0][0] in KINDS
    for place, text in (
        (0, "not an image"),
        (2, "there is no such file"),
        (3, "a folder"),
        (4, "the file is empty"),
        (5, "cannot be read"),  # a name that is too long
        (6, "cannot be read"),  # below a file
    ):
        assert problems[place].startswith(text) and found[place].classes == ()


def broken_inside():
    """A JPEG that ends as it should, whose table for decoding is nonsense."""
    content = bytearray(encoded(noise(1, size=(64, 64))))
    table = content.index(b"\xff\xc4") + 5
    content[table : table + 16] = b"\xff" * 16
    return bytes(content)


def test_damage_inside_a_jpeg_is_reported_too(classifier, folder):
    file = folder.put("broken.jpg", broken_inside())
    (found,) = classifier.predict([file])
    assert found.problem.startswith("cannot be decoded (")


def test_training_stops_at_damage_inside_a_jpeg_and_names_the_file(drawings, tmp_path, tensorflow):
    for i in range(6):  # in training and in validation, whatever the split
        drawings.put(f"box/broken{i}.jpg", broken_inside() + bytes([i]))
    with pytest.raises(data.DataError, match=r"^cannot decode .*broken\d\.jpg .*repair or remove it"):
        photos.train(drawings.path, tmp_path / "bars.keras", BACKBONE, epochs=0, progress=False)
    assert not (tmp_path / "bars.keras").exists()


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_new_images_are_measured_whatever_classes_are_there(classifier, folder):
    names = (KINDS[2], KINDS[1])
    draw(folder, 5, start=500, names=names)
    report, notes = classifier.evaluate(folder.path)
    assert report.split == "test" and len(report) == 10 and notes == ()
    right = [
        prediction.classes[0][0] == Path(prediction.file).parent.name
        for prediction in classifier.predict(sorted(folder.path.rglob("*.png")))
    ]
    assert report.accuracy == pytest.approx(np.mean(right))
    assert [row["support"] for row in report.per_class] == [0, 5, 5]
    assert "on 10 test images" in str(report)


def test_images_that_the_model_was_trained_on_are_left_out(trained, classifier):
    folder, _, made = trained
    report, notes = classifier.evaluate(folder.path)
    assert report.split == "val" and len(report) == len(made.task.val) == 9
    assert report.accuracy == made.report.accuracy
    assert "left out 36 images that the model was trained on" in notes
    assert "9 of the 9 images chose the model, so the numbers flatter it" in notes
    assert any(note.startswith("skipped box/words.jpg: not an image") for note in notes)


def test_nothing_but_training_images_is_no_measure(trained, classifier, folder):
    for path in trained[2].task.train.paths:
        folder.put(f"{path.parent.name}/{path.name}", path.read_bytes())
    with pytest.raises(data.DataError, match="36 of 36 were trained on, 0 cannot be read"):
        classifier.evaluate(folder.path)


def test_the_test_side_is_measured_where_there_is_one(classifier, folder):
    draw(folder, 2, start=600, side="train/")
    draw(folder, 4, start=700, side="test/")
    assert len(classifier.evaluate(folder.path)[0]) == 12


def test_a_class_that_the_model_does_not_know_is_an_error(classifier, folder):
    draw(folder, 2, start=600)
    folder.put("circle/1.png", noise(3))
    folder.path.joinpath("drafts").mkdir()  # without images it does no harm
    with pytest.raises(
        data.DataError, match=r"bars.keras does not know \(circle\); it knows box, level bar, upright bar"
    ):
        classifier.evaluate(folder.path)


# --- where the model goes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("bars.h5", "must end in .keras"),
        ("missing/bars.keras", "there is no folder"),
        ("file/bars.keras", "there is no folder"),
        ("photos/bars.keras", "is only read"),
        ("photos/box/bars.keras", "is only read"),
        ("taken.keras", "is a folder"),
        ("there.keras", "there.keras would be replaced"),
        ("notes.keras", "notes.md would be replaced"),
        ("work.keras", "work.backup is needed for the state"),
    ],
)
def test_a_bad_place_is_refused_before_anything_is_done(drawings, tmp_path, place, words):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.keras").mkdir()
    (tmp_path / "there.keras").write_text("mine")
    (tmp_path / "notes.md").write_text("mine")
    (tmp_path / "work.backup").mkdir()
    (tmp_path / "work.backup" / "thesis.tex").write_text("mine")
    before = contents(tmp_path)
    overwrite = place == "taken.keras"  # not even then
    with pytest.raises(photos.PlaceError, match=words):
        photos.train(drawings.path, tmp_path / place, BACKBONE, overwrite=overwrite)
    assert contents(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_written_is_refused(drawings, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(photos.PlaceError, match="cannot be written"):
        photos.train(drawings.path, closed / "bars.keras", BACKBONE)


def test_overwriting_replaces_all_that_an_earlier_training_wrote(drawings, tmp_path, tensorflow):
    for suffix in (".keras", ".md", ".json", ".png"):
        (tmp_path / f"bars{suffix}").write_text("old")
    made = photos.train(drawings.path, tmp_path / "bars.keras", BACKBONE, epochs=0, overwrite=True, progress=False)
    assert sorted(path.suffix for path in tmp_path.glob("bars.*")) == [".json", ".keras", ".md"]  # no curve of another
    assert photos.load(made.files[0]).class_names == KINDS


def test_a_data_set_of_numbers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'tilted_digits' is a regression"):
        photos.train("tilted_digits", tmp_path / "angles.keras", BACKBONE)


# --- interrupted ------------------------------------------------------------------------------------------------------


def interrupted(monkeypatch, owner, name, calls=0):
    """Let a function be called so many times, and then be interrupted."""
    function, done = getattr(owner, name), []

    def failing(*arguments, **options):
        done.append(1)
        if len(done) > calls:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, failing)


@pytest.fixture
def blank_probe(monkeypatch):
    """A probe that has learnt nothing, so that the tuned weights are the ones that are kept and compared."""
    solve = training.solve_classifier
    monkeypatch.setattr(training, "solve_classifier", lambda *a: (*(0 * x for x in solve(*a)[:2]), {"l2": 1.0}))


def run(folder, out):
    return photos.train(folder.path, out, BACKBONE, epochs=4, progress=False)


def test_an_interrupted_training_ends_where_the_whole_one_ends(folder, tmp_path, tensorflow, blank_probe, monkeypatch):
    import keras

    drawings = draw(folder, 20)
    whole = run(drawings, tmp_path / "whole.keras")
    assert whole.kept == "fine-tuned"
    out = tmp_path / "parts.keras"
    for owner, name, calls in (
        (evaluation, "evaluate", 0),  # after the probe
        (keras.Model, "fit", 2),  # after two epochs
        (evaluation, "model_card", 0),  # when all is trained
    ):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupted(patch, owner, name, calls)
            run(drawings, out)
        assert not out.exists() and out.with_suffix(".backup").is_dir()
    interrupted(monkeypatch, training, "fine_tune")  # it need not be called again
    made = run(drawings, out)
    assert same(made.model.get_weights(), whole.model.get_weights())
    assert made.stages[1]["history"] == whole.stages[1]["history"]
    assert same(photos.load(out).model.get_weights(), whole.model.get_weights())
    assert not out.with_suffix(".backup").exists()


@pytest.mark.parametrize(
    ("files", "interruption"),
    [
        ("probe.npz", (evaluation, "model_card", 0)),  # when all is trained
        ("fine-tuned.npz", (evaluation, "model_card", 0)),
        ("training-*.npz", ("keras.Model", "fit", 2)),  # after two epochs
        ("*.npy", (evaluation, "model_card", 0)),  # the features of the probe
        ("tlutils-training.txt", (evaluation, "model_card", 0)),  # whose backup this is
    ],
)
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_backup_ends_with_the_same_weights_and_no_traceback(
    folder, tmp_path, tensorflow, blank_probe, monkeypatch, files, interruption, damage
):
    import keras

    drawings, out = draw(folder, 12), tmp_path / "parts.keras"
    whole = run(drawings, tmp_path / "whole.keras")
    assert whole.kept == "fine-tuned"
    owner, *where = interruption
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(patch, keras.Model if owner == "keras.Model" else owner, *where)
        run(drawings, out)
    (file,) = out.with_suffix(".backup").glob(files)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x80
    file.write_bytes(content if damage == "changed" else content[: len(content) // 2])
    if files == "*.npy":
        out.with_suffix(".backup").joinpath("probe.npz").unlink()  # so that the features are needed again
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", CheckpointWarning)
        made = run(drawings, out)
    said = [str(warning.message) for warning in warned if warning.category is CheckpointWarning]
    assert len(said) == (file.suffix == ".npz") and all(f"{file.name} is damaged" in text for text in said)
    assert same(made.model.get_weights(), whole.model.get_weights())
    assert same(photos.load(out).model.get_weights(), whole.model.get_weights())
    assert not out.with_suffix(".backup").exists()


def test_the_backup_of_another_training_is_not_gone_on_from(drawings, tmp_path, tensorflow, monkeypatch, capsys):
    out = tmp_path / "bars.keras"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(patch, evaluation, "model_card")
        photos.train(drawings.path, out, BACKBONE, epochs=0, progress=False)
    draw(drawings, 1, start=40)
    made = photos.train(drawings.path, out, BACKBONE, epochs=0, progress=True)
    printed = capsys.readouterr().out
    assert "going on" not in printed and f"starting anew: {out.with_suffix('.backup')} was of another" in printed
    fresh = photos.train(drawings.path, tmp_path / "fresh.keras", BACKBONE, epochs=0, progress=False)
    assert same(made.model.get_weights(), fresh.model.get_weights())


def test_what_a_killed_process_leaves_of_a_backup_is_known_again(drawings, tmp_path, tensorflow, monkeypatch):
    out, unlink = tmp_path / "bars.keras", Path.unlink

    def interrupted_at_the_key(path, **options):
        if path.name == "tlutils-training.txt":
            raise KeyboardInterrupt
        unlink(path, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", interrupted_at_the_key)
        photos.train(drawings.path, out, BACKBONE, epochs=0, progress=False)
    assert out.exists() and [path.name for path in out.with_suffix(".backup").iterdir()] == ["tlutils-training.txt"]
    photos.train(drawings.path, out, BACKBONE, epochs=0, overwrite=True, progress=False)
    assert not out.with_suffix(".backup").exists()


# The command, which kills itself right after it has stored an epoch, or after so many seconds of work.
KILLED = """
import functools, os, signal, sys, threading, time
from tlutils import cli, photos, training

when, stop = sys.argv.pop(1), functools.partial(os.kill, os.getpid(), signal.SIGKILL)
solve = training.solve_classifier
training.solve_classifier = lambda *a: (*(0 * x for x in solve(*a)[:2]), {"l2": 1.0})  # see blank_probe
train, save = photos.train, training._Backup.save

def timed(*arguments, **options):
    if when.startswith("second"):
        timer = threading.Timer(float(when[6:]), stop)
        timer.daemon = True
        timer.start()
    started = time.perf_counter()
    made = train(*arguments, **options)
    print("seconds", time.perf_counter() - started)
    return made

def saving(self, epoch, *state):
    save(self, epoch, *state)
    if when == f"epoch{epoch}":
        stop()

photos.train, training._Backup.save = timed, saving
sys.exit(cli.main(sys.argv[1:]))
"""


def killed(when, folder, out):
    command = ["train", str(folder), "--backbone", BACKBONE, "--epochs", "6", "--out", str(out)]
    return subprocess.run([sys.executable, "-c", KILLED, when, *command], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def not_killed(tmp_path_factory, tensorflow):
    """The folder, and the training that the killed ones are to end like: ``(folder, model file, its seconds)``."""
    home = tmp_path_factory.mktemp("killed")
    folder = draw(Folder(home / "drawings"), 20)
    whole = killed("never", folder.path, home / "whole.keras")
    assert whole.returncode == 0, whole.stderr
    assert "Kept: the fine-tuned model" in whole.stdout
    return folder.path, home / "whole.keras", float(re.search(r"seconds ([\d.]+)", whole.stdout)[1])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
@pytest.mark.parametrize("when", ["epoch1", "epoch2", "epoch3", *np.random.default_rng(6).uniform(0.05, 0.95, 3)])
def test_killed_at_an_epoch_boundary_or_anywhere_it_ends_with_the_same_weights(not_killed, tmp_path, when):
    folder, whole, seconds = not_killed
    out, when = tmp_path / "killed.keras", when if isinstance(when, str) else f"second{when * seconds}"
    cut = killed(when, folder, out)
    while cut.returncode == 0:  # it was faster than the whole run: kill it earlier
        for file in tmp_path.glob("killed.*"):
            file.unlink()
        when = f"second{float(when[6:]) / 2}"
        cut = killed(when, folder, out)
    assert cut.returncode == -signal.SIGKILL and not out.exists(), cut.stderr
    begun = (out.with_suffix(".backup") / "tlutils-training.txt").is_file()
    assert begun or when.startswith("second")
    rest = killed("never", folder, out)
    assert rest.returncode == 0, rest.stderr
    assert ("going on from" in rest.stdout) == begun
    assert same(photos.load(out).model.get_weights(), photos.load(whole).model.get_weights())
    assert out.with_suffix(".json").read_bytes() == whole.with_suffix(".json").read_bytes()
    assert sorted(path.suffix for path in tmp_path.glob("killed.*")) == [".json", ".keras", ".md", ".png"]
