import importlib.metadata
import json
import math
import subprocess
import sys

import nbformat
import numpy as np
import pytest

from tlutils import results


@pytest.fixture(autouse=True)
def own_context(monkeypatch):
    monkeypatch.setattr(results, "_context", {"reference": True})


@pytest.fixture
def stored(tmp_path, monkeypatch):
    clone, package = tmp_path / "clone", tmp_path / "package"
    clone.mkdir()
    package.mkdir()
    monkeypatch.setattr(results, "_stored_folders", lambda: (clone, package))
    return clone, package


def notebook_with(*outputs):
    cell = nbformat.v4.new_code_cell("…", outputs=list(outputs))
    return nbformat.v4.new_notebook(cells=[cell])


def glued(name, text):
    prefix = "application/papermill.record/"
    return nbformat.v4.new_output(
        "display_data",
        data={f"{prefix}text/plain": text},
        metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
    )


# --- claims -----------------------------------------------------------------------------------------------------------


def test_a_claim_that_holds_prints_the_same_line_every_time(capsys):
    results.claim("Transfer beats scratch.", np.bool_(True))
    assert capsys.readouterr().out == "✓ Transfer beats scratch.\n"


def test_a_false_claim_stops_the_reference_set_up():
    with pytest.raises(results.ClaimError, match="Transfer beats scratch"):
        results.claim("Transfer beats scratch.", False)
    assert issubclass(results.ClaimError, AssertionError)


def test_a_false_claim_is_reported_elsewhere_and_the_run_goes_on(capsys):
    results.set_context(reference=False)
    results.claim("Transfer beats scratch.", False)
    assert capsys.readouterr().out == "✗ did not hold here: Transfer beats scratch.\n"


# --- records ----------------------------------------------------------------------------------------------------------


def test_numpy_scalars_become_python_numbers(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(results, "_in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", lambda bundle, **_: shown.extend(bundle.values()))
    results.record("accuracy", np.float32(0.5))
    results.record("count", np.int64(3))
    results.record("mean", np.array(0.25))
    assert shown == ["0.5", "3", "0.25"]


@pytest.mark.parametrize("name", ["a:b", "a b", "", "x`"])
def test_a_name_that_glue_cannot_look_up_is_refused(name):
    with pytest.raises(ValueError, match="letters, digits"):
        results.record(name, 1)


@pytest.mark.parametrize("value", [[1, 2], np.zeros(3), None, object()])
def test_a_value_that_glue_cannot_show_is_refused(value):
    with pytest.raises(TypeError, match="'acc'"):
        results.record("acc", value)


def test_records_are_read_back():
    table = nbformat.v4.new_output(
        "display_data",
        data={"application/papermill.record/text/plain": "t", "application/papermill.record/text/html": "<table>"},
        metadata={"scrapbook": {"name": "table", "mime_prefix": "application/papermill.record/"}},
    )
    shown = nbformat.v4.new_output("display_data", data={"text/plain": "7"})
    notebook = notebook_with(glued("a", "0.25"), glued("b", "'word'"), shown, table, glued("c", "nan"))
    records = results.records_in(notebook)
    assert list(records) == ["a", "b", "c"]
    assert records["a"] == 0.25 and records["b"] == "word" and math.isnan(records["c"])


def test_records_are_read_from_a_file(tmp_path):
    nbformat.write(notebook_with(glued("a", "1")), tmp_path / "n.ipynb")
    assert results.records_in(tmp_path / "n.ipynb") == {"a": 1}


def test_a_name_recorded_twice_is_an_error():
    with pytest.raises(ValueError, match="'a' is recorded twice"):
        results.records_in(notebook_with(glued("a", "1"), glued("a", "2")))


SAME_AS_GLUE = """
from myst_nb import glue
from tlutils.results import record
class Table:
    def __repr__(self): return "a table"
    def _repr_html_(self): return "<table></table>"
glue("number", 0.9125, display=False); record("number_too", 0.9125)
glue("table", Table(), display=False); record("table_too", Table())
"""


def test_a_record_is_what_myst_nb_glues(tmp_path):
    from myst_nb.core.variables import format_plain_text
    from myst_nb.ext.glue import extract_glue_data_cell

    from tlutils import runner

    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SAME_AS_GLUE)]), tmp_path / "glue.ipynb")
    (outcome,) = runner.run([tmp_path / "glue.ipynb"], tmp_path / "out")
    assert outcome.error is None and outcome.records == {"number": 0.9125, "number_too": 0.9125}
    (cell,) = nbformat.read(outcome.output, 4).cells
    number, number_too, table, table_too = cell.outputs
    for theirs, ours in ((number, number_too), (table, table_too)):
        assert ours.data == theirs.data
        assert ours.metadata.scrapbook.mime_prefix == theirs.metadata.scrapbook.mime_prefix

    glued = dict(extract_glue_data_cell(cell))
    assert cell.outputs == [], "a record shows nothing"
    assert format_plain_text(glued["number_too"].data["text/plain"], ".2f") == "0.91"
    assert glued["table_too"].data["text/html"] == "<table></table>"


def test_claims_are_read_back_and_other_lines_are_not():
    lines = ["✓ first\n✗ did not hold here: second\nprinted ✓ third\n", "✓ first\n"]
    streams = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in lines]
    warning = nbformat.v4.new_output("stream", name="stderr", text="✓ no claim\n")
    assert results.claims_in(notebook_with(streams[0], glued("a", "1"), warning, streams[1])) == [
        {"claim": "first", "held": True},
        {"claim": "second", "held": False},
        {"claim": "first", "held": True},
    ]


def test_what_claim_prints_is_what_is_read_back(capsys):
    results.set_context(reference=False)
    results.claim("it rises", True)
    results.claim("it falls", False)
    printed = nbformat.v4.new_output("stream", name="stdout", text=capsys.readouterr().out)
    assert [row["held"] for row in results.claims_in(notebook_with(printed))] == [True, False]


# --- the tolerance check ----------------------------------------------------------------------------------------------

REFERENCE = {"01": {"accuracy": {"value": 0.9, "tolerance": 0.02}, "winner": {"value": "probe"}}}


def test_values_within_tolerance_pass():
    assert results.check({"01": {"accuracy": 0.919, "winner": "probe"}}, REFERENCE) == []


@pytest.mark.parametrize(
    ("records", "word"),
    [
        ({"accuracy": 0.93, "winner": "probe"}, "not within 0.02"),
        ({"accuracy": float("nan"), "winner": "probe"}, "not within 0.02"),
        ({"accuracy": 0.9, "winner": "SVM"}, "'SVM'"),
        ({"accuracy": "0.9", "winner": "probe"}, "'0.9'"),
        ({"winner": "probe"}, "was not recorded"),
        ({"accuracy": 0.9, "winner": "probe", "new": 1}, "no reference"),
    ],
)
def test_each_deviation_is_one_problem(records, word):
    (problem,) = results.check({"01": records}, REFERENCE)
    assert word in problem and problem.startswith("01: ")


def test_a_notebook_without_references_and_one_that_did_not_run_are_problems():
    problems = results.check({"02": {"x": 1}}, REFERENCE)
    assert [problem.split(":")[0] for problem in problems] == ["01", "01", "02"]


# --- stored experiments -----------------------------------------------------------------------------------------------


def test_an_experiment_comes_back_with_its_origin(stored):
    rows = [{"method": "probe", "accuracy": np.float32(0.5)}, {"method": "SVM", "accuracy": 0.25}]
    path = results.save("few_shot", rows, metrics={"n": np.int64(2)}, command="make experiments", seconds=61.26)
    found = results.load("few_shot")
    assert found["rows"] == [{"method": "probe", "accuracy": 0.5}, {"method": "SVM", "accuracy": 0.25}]
    assert found["metrics"] == {"n": 2} and found["seconds"] == 61.3 and found["command"] == "make experiments"
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["scikit-learn"] == importlib.metadata.version("scikit-learn")
    assert set(found["machine"]) == {"cpu", "cores", "system"}
    assert path.read_text(encoding="utf-8").count("\n") > len(rows), "one row a line, for the diff"


def test_an_experiment_that_cannot_be_written_leaves_the_old_one(stored, monkeypatch):
    path = results.save("few_shot", [{"seed": 0}], command="make experiments")
    old = path.read_bytes()

    def full(self, text, **options):
        self.write_bytes(text[:20].encode())
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(type(path), "write_text", full)
        results.save("few_shot", [{"seed": 1}], command="make experiments")
    assert path.read_bytes() == old
    assert results.load("few_shot")["rows"] == [{"seed": 0}]


def test_what_is_stored_has_the_same_bytes_on_every_system(stored):
    path = results.save("few_shot", [{"method": "größer"}], command="make experiments")
    assert b"\r" not in path.read_bytes() and "größer".encode() in path.read_bytes()


def test_an_experiment_may_have_no_rows(stored):
    results.save("single", metrics={"x": 1}, command="make experiments")
    assert results.load("single")["rows"] == [] and results.load("single")["metrics"] == {"x": 1}


def test_the_clone_wins_over_the_installed_copy(stored):
    clone, package = stored
    (package / "a.json").write_text('{"from": "package"}')
    assert results.load("a") == {"from": "package"}
    (clone / "a.json").write_text('{"from": "clone"}')
    assert results.load("a") == {"from": "clone"}


def test_an_unknown_experiment_names_the_nearest(stored):
    results.save("few_shot", [], command="make experiments")
    with pytest.raises(ValueError, match="'few_shots'; did you mean 'few_shot'"):
        results.load("few_shots")


def test_saving_outside_a_clone_says_where_to_run_it(stored):
    stored[0].rmdir()
    with pytest.raises(FileNotFoundError, match="clone of the book"):
        results.save("few_shot", [], command="make experiments")


def test_what_json_cannot_hold_is_refused(stored):
    with pytest.raises(TypeError, match="cannot store a object"):
        results.save("x", [{"model": object()}], command="make experiments")
    assert not list(stored[0].iterdir())


def test_the_provenance_line_is_one_sentence():
    result = {
        "command": "make experiments",
        "date": "2026-11-23",
        "seconds": 1500.0,
        "versions": {"python": "3.11.7", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": None},
        "machine": {"cpu": "Some CPU", "cores": 2, "system": "Linux"},
    }
    assert results.provenance_line(result) == (
        "Measured on Some CPU (2 cores, Linux) with Python 3.11.7, TensorFlow 2.21.0, Keras 3.15.1: "
        "`make experiments`, 2026-11-23, 25 minutes."
    )


@pytest.mark.parametrize(
    ("device", "words"),
    [("Tesla T4", "(2 cores, Linux) and Tesla T4 with"), ("CPU", "(2 cores, Linux), without a GPU, with")],
)
def test_the_provenance_line_says_what_it_ran_on(device, words):
    machine = {"cpu": "Some CPU", "cores": 2, "system": "Linux", "device": device}
    result = {"command": "c", "date": "2026-11-23", "versions": {"python": "3.11.7"}, "machine": machine}
    assert words in results.provenance_line(result)


def test_the_stored_experiments_of_this_clone_can_be_read():
    for path in results._stored_folders()[0].rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))


# --- at ImageNet scale ------------------------------------------------------------------------------------------------

NUMBERS = {"accuracy": "accuracy <of the probe>", "images": "images", "gap": "gap", "typo": "typo"}


def kept(rows, origin=(), **metrics):
    origin = {"dataset": "photos", "images": 1234, "classes": 3, "backbone": "mobilenet_v2", "peak_mb": 2345} | dict(
        origin
    )
    results.save("full/01_a", rows, metrics=metrics, command="tlutils run 01_a", seconds=90, **origin)


def test_without_a_stored_run_there_is_no_number(stored):
    results.save("full/02_b", metrics={"accuracy": 0.5}, command="tlutils run 02_b")
    box = results.at_imagenet_scale("01_a", NUMBERS)
    assert str(box) == "Not run yet. To run it: `tlutils run 01_a --profile full --record`."
    assert box._repr_html_() == (
        "<p>Not run yet. To run it: <code>tlutils run 01_a --profile full --record</code>.</p>"
    )


def test_a_stored_run_is_a_table_its_claims_and_its_origin(stored):
    claims = [("a < b", True), ("c < d", False), ("c < d", True), ("e", False)]
    kept([{"claim": text, "held": held} for text, held in claims], accuracy=0.92849, images=1234, gap=1e-5)
    box = results.at_imagenet_scale("01_a", NUMBERS)
    lines = str(box).splitlines()
    assert [line.split()[-1] for line in lines[1:5]] == ["0.928", "1,234", "1e-05", "recorded"]
    assert lines[5] == (
        "mobilenet_v2 on photos: 1,234 images, 3 classes; at most 2.3 GB of memory. "
        "2 of 3 claims of the chapter did not hold in that run:"
    )
    assert lines[6:8] == ["- c < d", "- e"]
    assert lines[8:] == [
        results.provenance_line(results.load("full/01_a")),
        "What its networks computed was not counted.",
    ]
    page = box._repr_html_()
    assert "accuracy &lt;of the probe&gt;" in page and "<li>c &lt; d</li><li>e</li>" in page
    assert "<code>tlutils run 01_a</code>" in page


@pytest.mark.parametrize(
    "known, words", [(0, None), (1, "ImageNet has 1 of these classes"), (3, "ImageNet has all of these classes")]
)
def test_classes_that_imagenet_has_are_named(stored, known, words):
    kept([{"claim": "a", "held": True}], {"classes_of_imagenet": known}, accuracy=1)
    text = str(results.at_imagenet_scale("01_a", NUMBERS))
    assert (words in text) if words else ("ImageNet has" not in text)


def test_where_all_claims_held_it_says_so(stored):
    kept([{"claim": "a", "held": True}, {"claim": "b", "held": True}], accuracy=1)
    page = results.at_imagenet_scale("01_a", NUMBERS)._repr_html_()
    assert "All 2 claims of the chapter held in that run." in page and "<ul>" not in page


def test_a_failed_claim_that_only_goes_on_brings_the_one_before_it(stored):
    claims = [("it learns by heart", True), ("and is of no use", False), ("but it is fast", False), ("android", False)]
    kept([{"claim": text, "held": held} for text, held in claims])
    items = [line for line in str(results.at_imagenet_scale("01_a", NUMBERS)).splitlines() if line.startswith("- ")]
    assert items == [
        "- (it learns by heart) and is of no use",
        "- ((it learns by heart) and is of no use) but it is fast",
        "- android",
    ]


# At 5 % of 8.1e12 operations a second, two for each multiply-add. The 3,670 photographs of flowers are five times 734.
MINUTE = 12_150_000_000_000


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ({}, "Counted: 48.6 trillion multiply-adds of networks. A T4 at 5% of its float32 peak (8.1 TFLOPS, "),
        ({}, " takes about 4 minutes for them, and about 20 minutes with the 3,670 images of flowers: an estimate, "),
        ({"images": 3670, "dataset": "flowers"}, "takes about 4 minutes for them: an estimate, not a measurement."),
        ({"multiply_adds": MINUTE // 10}, "Counted: 1.22 trillion"),
        ({"multiply_adds": MINUTE // 10}, "takes less than a minute for them, and less than a minute with the 3,670"),
        ({"multiply_adds": MINUTE}, "takes about 1 minute for them"),
        ({"uncounted": ["a"]}, "of networks (without 1 network that cannot be counted). A T4"),
        ({"uncounted": ["a", "b"]}, "of networks (without 2 networks that cannot be counted). A T4"),
    ],
)
def test_what_was_counted_is_shown_with_an_estimate_for_a_t4(stored, origin, words):
    kept([], {"images": 734, "uncounted": [], "multiply_adds": 4 * MINUTE} | origin)
    assert words in str(results.at_imagenet_scale("01_a", NUMBERS)).splitlines()[-1]


def test_each_recorded_chapter_fits_a_t4_in_15_minutes():
    recorded = sorted(path.stem for path in (results._stored_folders()[0] / "full").glob("*.json"))
    assert recorded
    runs = {name: results.load(f"full/{name}") for name in recorded}
    assert [name for name, run in runs.items() if not run.get("multiply_adds")] == [], "record these once more"
    minutes = {name: max(results.t4_minutes(run)) for name, run in runs.items()}
    assert max(minutes.values()) < 15, minutes


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0.000"), (-0.05649, "-0.056"), (1.2345, "1.23"), (-12.345, "-12.3"), (1234.5, "1,234"), (7, "7")),
        *((1_000_000, "1,000,000"), ("none", "none"), (float("nan"), "nan"), (0.0004, "4e-04"), (True, "True")),
    ],
)
def test_numbers_are_shown_with_about_three_digits(stored, value, text):
    kept([], value=value)
    box = results.at_imagenet_scale("01_a", {"value": "it"})
    assert str(box).splitlines()[1].split() == ["it", text]


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, tlutils.results; "
        "print([m for m in ('tensorflow', 'keras', 'IPython', 'nbformat', 'sphinx') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
