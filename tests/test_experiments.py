"""The stored studies: where they come from, whether they are complete, and whether they can be measured again."""

import datetime
import importlib.util
import inspect
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tlutils import data, evaluation, results, runtime

ROOT = Path(__file__).parents[1]
STORED = ROOT / "book" / "results"
SCRIPTS = sorted((ROOT / "experiments").glob("[a-z]*.py"))
TOLERANCE = 0.02  # of the accuracy, between the machine that stored a row and this one

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


# --- what is looked for -----------------------------------------------------------------------------------------------


def load(script):
    """The module of an experiment's script."""
    sys.path[:0] = [str(script.parent)] * (str(script.parent) not in sys.path)  # as when the script is started
    spec = importlib.util.spec_from_file_location(f"experiment_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(module, folder=STORED):
    path = folder / f"{module.NAME}.json"
    assert path.is_file(), f"{module.NAME} has no stored result: run `make experiments`"
    return json.loads(path.read_text(encoding="utf-8"))


def arguments_of(module, setting):
    """A setting with the defaults of ``measure`` filled in."""
    bound = inspect.signature(module.measure).bind(**setting)
    bound.apply_defaults()
    return dict(bound.arguments)


def cells(module, rows):
    """Seeds by cell; a cell is one setting of everything but the seed."""
    names = [name for name in inspect.signature(module.measure).parameters if name != "seed"]
    found = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row["seed"])
    return found


def problems_of(result, module):
    """One sentence for each thing that is wrong with a stored study."""
    problems = [
        f"no {key}" for key in ("name", "command", "date", "seconds", "versions", "machine") if not result.get(key)
    ]
    problems += [f"no version of {name}" for name, version in result.get("versions", {}).items() if not version]
    problems += [f"no {key} of the machine" for key in ("cpu", "cores", "system") if not result["machine"].get(key)]
    if result.get("name") != module.NAME:
        problems.append(f"stored under the name {result.get('name')!r}")
    for cell, seeds in cells(module, result["rows"]).items():
        if len(seeds) != len(set(seeds)):
            problems.append(f"{cell} holds a seed twice")
        if len(set(seeds)) < 5:
            problems.append(f"{cell} has {len(set(seeds))} seeds")
    for i, row in enumerate(result["rows"]):
        if "correct" not in row:  # a regression
            if not (np.isfinite(row["mae"]) and row["mae"] > 0):
                problems.append(f"row {i}: a mean absolute error of {row['mae']}")
            continue
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(row["correct"]), np.uint8), count=row["images"])
        if abs(bits.mean() - row["accuracy"]) > 1e-6:
            problems.append(f"row {i}: accuracy {row['accuracy']} is not what its {row['images']} images give")
    if len({(row.get("target"), row["images"]) for row in result["rows"]}) != len(
        {row.get("target") for row in result["rows"]}
    ):
        problems.append("not every row of a target was measured on as many images")
    return problems


def difference(stored_row, row, tolerance=TOLERANCE):
    """What differs between a stored row and the same one measured again, in words, or ``None``."""
    if row["images"] != stored_row["images"]:
        return f"{row['images']} test images, stored are {stored_row['images']}"
    for method, score in stored_row.get("scores", {}).items():
        if abs(row["scores"][method] - score) > max(TOLERANCE, 0.05 * abs(score)):
            return f"{method} is {row['scores'][method]:.4f}, stored is {score:.4f}"
    if "accuracy" not in stored_row:
        if abs(row["mae"] - stored_row["mae"]) > 0.1 * stored_row["mae"]:
            return f"mean absolute error {row['mae']:.3f}, stored is {stored_row['mae']:.3f}"
        return None
    if abs(row["accuracy"] - stored_row["accuracy"]) > tolerance:
        return f"accuracy {row['accuracy']:.4f}, stored is {stored_row['accuracy']:.4f}"
    one, other = (np.unpackbits(np.frombuffer(bytes.fromhex(r["correct"]), np.uint8)) for r in (row, stored_row))
    # Images in another order would keep the accuracy and scatter the mistakes.
    disagreeing = np.mean(one != other)
    if disagreeing > 2 * tolerance:
        return f"other images are right: {disagreeing:.1%} of them"
    return None


# --- the studies ------------------------------------------------------------------------------------------------------


@each_script
def test_the_study_is_stored_with_its_origin_and_enough_seeds(script):
    module = load(script)
    result = stored(module)
    assert problems_of(result, module) == []
    assert result["command"] == "make experiments"
    assert re.search(r"^experiments:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert datetime.date.fromisoformat(result["date"]) <= datetime.date.today()
    assert results.provenance_line(result).startswith("Measured on ")
    assert {"python", "tensorflow", "keras", "numpy", "scikit-learn"} <= set(result["versions"])


@each_script
def test_a_slice_measured_again_gives_what_is_stored(script, monkeypatch):
    module = load(script)
    rows = stored(module)["rows"]
    runtime.setup(gpu="off")
    seen, load_data = [], data.load

    def watched(source, **options):
        task = load_data(source, **options)
        seen.append((source, options.get("labels_per_class"), options.get("seed"), task))
        return task

    monkeypatch.setattr(data, "load", watched)
    assert module.CHECK, f"{script.name} names nothing to measure again"
    for setting in module.CHECK:
        arguments = arguments_of(module, setting)
        matching = [row for row in rows if all(row[name] == value for name, value in arguments.items())]
        assert len(matching) == 1, f"{setting} is stored {len(matching)} times"
        seen.clear()
        row = module.measure(**setting)
        problem = difference(matching[0], row, getattr(module, "TOLERANCE", TOLERANCE))
        assert problem is None, f"{setting}: {problem}"
        # Whatever the method, it saw the labels that its budget and seed draw, and nothing to choose by.
        for source, labels_per_class, seed, task in seen:
            assert (labels_per_class, seed) == (setting["labels_per_class"], setting["seed"])
            assert len(task.train) == 10 * setting["labels_per_class"]
            if task.kind == "classification":
                assert np.bincount(task.train.labels).tolist() == [setting["labels_per_class"]] * 10
            assert task.val is None
            assert np.array_equal(task.test.labels, load_data(source).test.labels)
        assert seen


# --- chapter 01 -------------------------------------------------------------------------------------------------------


@pytest.fixture
def chapter():
    rows = stored(load(ROOT / "experiments" / "first_transfer.py"))["rows"]
    return lambda method, k: evaluation.from_rows(rows, method=method, labels_per_class=k)


def test_every_method_is_measured_at_every_budget(chapter):
    for method in ("svm", "probe", "fine_tune", "scratch"):
        for k in (1, 3, 5, 10, 20, 50):
            assert len(chapter(method, k).seeds) >= 5
    assert len(chapter("svm", 1).seeds) >= 10


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_probe_beats_the_svm_on_pixels_at_few_labels(chapter, k):
    probe, svm = chapter("probe", k), chapter("svm", k)
    assert probe.seeds == svm.seeds
    gain = probe.correct.astype(float) - svm.correct
    low, high = evaluation.repeated(probe.seeds, gain, confidence=1 - 0.05 / 3).interval  # three comparisons
    assert 0 < low < high


def test_the_network_from_scratch_is_far_above_chance_at_ten_labels(chapter):
    low, _ = chapter("scratch", 10).interval
    assert low > 0.5


def test_the_lead_over_the_svm_shrinks_with_more_labels(chapter):
    def lead(k):
        return (chapter("probe", k) - chapter("svm", k)).mean

    assert lead(50) < lead(10) < lead(1)


# --- chapter 06 ------------------------------------------------------------------------------------------


def test_one_part_of_the_structures_can_be_measured_apart():
    module = load(ROOT / "experiments" / "structure.py")
    first, second = list(module.SEEDS)[:2]
    rows = [{"part": part, "seed": seed, "seconds": 2.0} for part in (first, second) for seed in range(5)]
    before = {"date": "2026-01-01", "seconds": 25.0, "metrics": {}, "rows": rows}
    fresh = [{"part": first, "seed": seed, "seconds": 1.0} for seed in range(5)]
    merged, note, seconds = module.merged(before, fresh, first, 6.0)
    assert merged == fresh + rows[5:]
    assert seconds == 25 - 5 * 2 + 6
    assert note["others"] == {"date": "2026-01-01"}
    assert note[first]["command"] == f"python experiments/structure.py --part {first}"
    assert (
        note[first]["date"] == datetime.datetime.now(datetime.UTC).date().isoformat() and note[first]["seconds"] == 6.0
    )
    # The other part afterwards: both notes stay.
    again = {**before, "rows": merged, "seconds": seconds, "metrics": {"measured_apart": note}}
    rest = [{**row, "seconds": 3.0} for row in rows[5:]]
    merged, note, seconds = module.merged(again, rest, second, 15.0)
    assert merged == fresh + rest and seconds == 6 + 5 + 15.0
    assert set(note) == {"others", first, second}


# --- chapter 03 -------------------------------------------------------------------------------------------------------


def test_the_transfer_matrix_is_complete():
    module = load(ROOT / "experiments" / "transfer_matrix.py")
    rows = stored(module)["rows"]
    names = ("family", "source", "target", "labels_per_class")
    measured = {tuple(row[name] for name in names) for row in rows}
    assert measured == set(module.cells())
    assert len({row["family"] for row in rows}) * len({row["source"] for row in rows} - {"random"}) >= 8
    for row in rows:
        assert set(row["scores"]) == (set() if row["source"] == "random" else set(evaluation.TRANSFERABILITY_METHODS))
        assert all(np.isfinite(score) for score in row["scores"].values())


def test_no_rate_of_the_transfer_matrix_lies_at_the_edge_of_what_was_tried():
    module = load(ROOT / "experiments" / "transfer_matrix.py")
    developed = results.load(module.DEVELOPED)["metrics"]
    assert len(developed["rates"]) == len(module.FAMILIES) * len(module.SOURCES) * len(module.TARGETS)
    for name, tried in developed["tried"].items():
        scores = {float(rate): -np.inf if score is None else score for rate, score in tried.items()}
        best = developed["rates"][name]
        assert scores[best] == max(scores.values())
        assert min(scores) < best < max(scores)


# --- chapter 09 -------------------------------------------------------------------------------------------------------


def test_the_regularizations_are_complete_and_choose_among_what_was_developed():
    module = load(ROOT / "experiments" / "regularization.py")
    result = stored(module)
    rows, developed = result["rows"], results.load(module.DEVELOPED)["metrics"]
    assert len(module.METHODS) - 1 >= 8 and set(module.BUDGETS) == {5, 20, 50}
    measured = {(row["method"], row["labels_per_class"], row["seed"]) for row in rows}
    wanted = {(m, k, s) for m in module.METHODS for k in module.BUDGETS for s in module.SEEDS}
    assert measured == wanted and len(rows) == len(wanted)
    # The rule of the script, once more from the tables that it was read from.
    assert max(module.RATES, key=lambda r: developed["tried"]["rate"][str(r)]["mean"]) == module.RATE
    assert min(module.RATES) < module.RATE < max(module.RATES)
    for method, strengths in module.STRENGTHS.items():
        means = {float(s): score["mean"] for s, score in developed["tried"][method].items()}
        middle = max(s for s, mean in means.items() if mean > max(means.values()) - 0.01)
        assert strengths == pytest.approx((10 * middle, middle, middle / 10))
    for row in rows:
        if row["chosen"] is None:
            assert row["method"] in module.FIXED
            continue
        best = max(row["fold_scores"])
        first = next(c for c, score in zip(row["candidates"], row["fold_scores"]) if score == best)
        assert row["chosen"] == pytest.approx(first)
        if row["method"] in module.STRENGTHS:
            assert row["candidates"] == list(module.STRENGTHS[row["method"]])


# --- the tests themselves can fail ------------------------------------------------------------------------------------


class _Fake:
    NAME = "fake"

    @staticmethod
    def measure(method, seed, rate=0.1):
        raise NotImplementedError


def fake_rows(seeds=5):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 100)
    reports = [
        evaluation.report(np.eye(2)[np.where(rng.random(100) < 0.8, labels, 1 - labels)], labels) for _ in range(seeds)
    ]
    return [
        {"method": "m", "rate": 0.1, "seed": s, "images": 100, "accuracy": r.accuracy, "correct": evaluation.pack(r)}
        for s, r in enumerate(reports)
    ]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "_stored_folders", lambda: (tmp_path, tmp_path))
    results.save("fake", fake_rows(), metrics={}, command="make experiments", seconds=12.0)
    return stored(_Fake, tmp_path)


def break_file(result, how):
    rows = result["rows"]
    {
        "few seeds": lambda: rows.pop(),
        "a seed twice": lambda: rows.append(dict(rows[0])),
        "other accuracy": lambda: rows[0].update(accuracy=0.99),
        "other images": lambda: rows[0].update(images=96),
        "no date": lambda: result.pop("date"),
        "no version": lambda: result["versions"].update(keras=None),
        "no machine": lambda: result["machine"].pop("cpu"),
        "other name": lambda: result.update(name="other"),
    }[how]()


def test_a_sound_file_has_no_problem(fake):
    assert problems_of(fake, _Fake) == []


@pytest.mark.parametrize(
    "how",
    [
        "few seeds",
        "a seed twice",
        "other accuracy",
        "other images",
        "no date",
        "no version",
        "no machine",
        "other name",
    ],
)
def test_each_defect_is_found(fake, how):
    break_file(fake, how)
    assert problems_of(fake, _Fake)


def test_a_missing_file_fails_and_says_what_to_do(tmp_path):
    with pytest.raises(AssertionError, match="fake has no stored result: run `make experiments`"):
        stored(_Fake, tmp_path)


def test_a_row_that_differs_is_found():
    row = fake_rows()[0]
    assert difference(row, dict(row)) is None
    assert "accuracy" in difference(row, row | {"accuracy": row["accuracy"] + 0.03})
    assert "test images" in difference(row, row | {"images": 99})
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(row["correct"]), np.uint8))
    shuffled = np.packbits(np.roll(bits[:100], 7)).tobytes().hex()
    assert "other images" in difference(row, row | {"correct": shuffled})
    tilt = {"images": 100, "mae": 5.0, "scores": {"logme": -4.0}}
    assert difference(tilt, dict(tilt)) is None
    assert "mean absolute error" in difference(tilt, tilt | {"mae": 5.6})
    assert "logme" in difference(tilt, tilt | {"scores": {"logme": -4.3}})


def test_defaults_are_filled_in():
    assert arguments_of(_Fake, {"method": "m", "seed": 0}) == {"method": "m", "seed": 0, "rate": 0.1}


def test_every_stored_file_has_a_script():
    modules = [load(path) for path in SCRIPTS]
    names = {module.NAME for module in modules} | {getattr(module, "DEVELOPED", "reference") for module in modules}
    assert {path.stem for path in STORED.glob("*.json")} <= names
