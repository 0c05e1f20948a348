"""The runner, with small notebooks that the tests write themselves."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from tlutils import results, runner

PARAMETERS = 'PROFILE = "quick"\nGPU = "auto"\nSEED = 0\nDATASET = None\nBACKBONE = None'
HANG = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
with open("pids.txt", "w") as file:
    file.write(f"{os.getpid()} {child.pid} done")
time.sleep(120)
"""
SLIDER = """
import ipywidgets as widgets
unused = widgets.Text("shown nowhere")
pictures = [widgets.HTML(value=f"<p>{i}</p>") for i in range(3)]
stack = widgets.Stack(pictures, selected_index=0)
slider = widgets.IntSlider(max=2)
play = widgets.Play(max=2)
widgets.jslink((slider, "value"), (stack, "selected_index"))
widgets.jslink((play, "value"), (slider, "value"))
widgets.VBox([widgets.HBox([play, slider]), stack])
"""


def write_notebook(path, *cells):
    """Write a notebook with a parameters cell; a cell is its source, or (source, tags)."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A title")])
    for source, tags in [(PARAMETERS, ["parameters"]), *((c, []) if isinstance(c, str) else c for c in cells)]:
        metadata = {"tags": tags} if tags else {}
        notebook.cells.append(nbformat.v4.new_code_cell(textwrap.dedent(source).strip(), metadata=metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    runner.write(runner.tidy(notebook), path)
    return path


def run_one(path, out, parameters=None, **options):
    (outcome,) = runner.run([path], out, parameters, **options)
    return outcome, nbformat.read(outcome.output, 4)


def printed(notebook):
    return "".join(o.text for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "stream")


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def pids_written_to(path, seconds=20):
    """Wait until a hanging notebook has said which processes it has started."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.is_file() and path.read_text().endswith("done"):
            return [int(word) for word in path.read_text().split()[:2]]
        time.sleep(0.05)
    raise AssertionError("the notebook did not start")


# --- running ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """One run of several notebooks, two at a time, in a folder whose name papermill would take for a template."""
    folder = tmp_path_factory.mktemp("a {folder} ü")
    cells = {
        "01_good": [
            "from tlutils.results import claim, record",
            ('record("accuracy", 0.9)', ["nbval-ignore-output"]),
            'claim("It works.", True)',
            "import os, sys; print(PROFILE, SEED, os.path.basename(os.getcwd()))",
            'print(os.environ["PYTHONHASHSEED"], os.environ["OMP_NUM_THREADS"]); sys.executable',
        ],
        "02_bad": ["1 + 1", 'raise ValueError("first line\\nsecond line")', 'print("never")'],
        "03_trap": [('raise KeyError("meant to fail")', ["raises-exception"]), 'print("went on")'],
        "04_twice": ["from tlutils.results import record", 'record("a", 1)\nrecord("a", 2)'],
        "05_dead": ["import os", "os._exit(1)"],
    }
    paths = [write_notebook(folder / f"{name}.ipynb", *sources) for name, sources in cells.items()]
    before = [path.read_bytes() for path in paths]
    reports = []
    outcomes = runner.run(
        paths, folder / "out", {"SEED": 7}, jobs=2, report=lambda all_: reports.append([o.status for o in all_])
    )
    assert [path.read_bytes() for path in paths] == before, "running must not change the notebooks themselves"
    return folder, {outcome.notebook: outcome for outcome in outcomes}, reports


def test_a_notebook_that_passes(several):
    _, outcomes, reports = several
    outcome = outcomes["01_good"]
    assert (outcome.status, outcome.error, outcome.cells_done, outcome.cells) == ("ok", None, 7, 7)
    assert outcome.records == {"accuracy": 0.9}
    assert outcome.seconds > 0 and outcome.peak_mb > 20
    assert max(statuses.count("running") for statuses in reports) == 2


def test_parameters_are_injected_and_the_rest_keeps_its_default(several):
    folder, outcomes, _ = several
    text = printed(nbformat.read(outcomes["01_good"].output, 4))
    assert f"quick 7 {folder.name}\n" in text


def test_the_kernel_is_this_interpreter_with_its_share_of_the_cores(several):
    notebook = nbformat.read(several[1]["01_good"].output, 4)
    assert notebook.cells[-1].outputs[-1].data["text/plain"] == repr(sys.executable)
    assert f"0 {max(1, results.machine()['cores'] // 2)}\n" in printed(notebook)


def test_a_notebook_that_fails_is_kept_and_its_cell_is_named(several):
    outcome = several[1]["02_bad"]
    assert outcome.status == "failed"
    assert (outcome.failed_cell, outcome.error) == ("cell 5, In [4]", "ValueError: first line")
    notebook = nbformat.read(outcome.output, 4)
    assert notebook.cells[4].outputs[0].ename == "ValueError"
    assert "never" not in printed(notebook)


def test_a_cell_that_is_meant_to_fail_fails_nothing(several):
    outcome = several[1]["03_trap"]
    assert outcome.status == "ok"
    notebook = nbformat.read(outcome.output, 4)
    assert printed(notebook) == "went on\n"
    assert not any("papermill" in cell.source for cell in notebook.cells)


def test_a_name_recorded_twice_fails_the_notebook(several):
    outcome = several[1]["04_twice"]
    assert outcome.status == "failed" and "recorded twice" in outcome.error


def test_a_kernel_that_dies_is_reported(several):
    outcome = several[1]["05_dead"]
    assert outcome.status == "failed" and "kernel died" in outcome.error
    assert outcome.failed_cell.startswith("cell 5")


def test_the_report_holds_every_notebook(several):
    folder, outcomes, _ = several
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["profile"] == "quick" and report["parameters"] == {"SEED": 7}
    assert report["versions"]["python"] and report["machine"]["cores"] >= 1
    assert [entry["notebook"] for entry in report["notebooks"]] == list(outcomes)
    assert report["notebooks"][0]["records"] == {"accuracy": 0.9}
    assert str(folder) not in json.dumps(report)


def test_the_table_has_a_line_for_each(several):
    lines = runner.table(several[1].values()).splitlines()
    assert len(lines) == 6 and lines[0].split() == ["notebook", "status", "seconds", "peak", "MB"]
    assert [line.split()[1] for line in lines[1:]] == ["ok", "failed", "ok", "failed", "failed"]


def test_a_notebook_that_hangs_is_stopped_with_all_its_processes(tmp_path):
    path = write_notebook(tmp_path / "01_hang.ipynb", HANG)
    begin = time.monotonic()
    outcome, notebook = run_one(path, tmp_path / "out", timeout=3)
    assert time.monotonic() - begin < 25
    assert outcome.status == "timed out" and "longer than 3 s" in outcome.error
    assert outcome.failed_cell.startswith("cell 3")
    assert notebook.cells[2].outputs[-1].ename == "TimeoutError"
    assert all(gone(pid) for pid in pids_written_to(tmp_path / "pids.txt"))


def test_peak_memory_is_that_of_the_notebook(tmp_path):
    small = write_notebook(tmp_path / "01_small.ipynb", "import time; time.sleep(0.5)")
    big = write_notebook(tmp_path / "02_big.ipynb", 'import time; x = b"x" * 310_000_000; time.sleep(0.5)')
    outcomes = runner.run([small, big], tmp_path / "out", jobs=2)
    assert 300 <= outcomes[1].peak_mb - outcomes[0].peak_mb < 400


def test_a_kernel_of_the_same_name_in_the_users_home_is_not_taken(tmp_path, monkeypatch):
    spec = tmp_path / "data" / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = ["/nowhere/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Old", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "data"))
    outcome, _ = run_one(write_notebook(tmp_path / "01_a.ipynb", "1"), tmp_path / "out")
    assert (outcome.status, outcome.error) == ("ok", None)


def test_a_relative_keras_home_still_holds_in_the_notebooks_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", "weights")
    path = write_notebook(tmp_path / "notebooks" / "01_a.ipynb", 'import os; print(os.environ["KERAS_HOME"])')
    _, notebook = run_one(path, tmp_path / "out")
    assert printed(notebook) == f"{tmp_path / 'weights'}\n"


def test_ctrl_c_ends_everything_and_exits_130(tmp_path):
    write_notebook(tmp_path / "notebooks" / "01_hang.ipynb", HANG)
    command = [sys.executable, "-m", "tlutils.cli", "run"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a script, Ctrl-C is ignored, and the child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pids = pids_written_to(tmp_path / "notebooks" / "pids.txt")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "tlutils: interrupted\n")
    assert all(gone(pid) for pid in pids)


# --- recording what ran at ImageNet scale -----------------------------------------------------------------------------

CLAIMS = """
from tlutils import results
results.set_context(reference=False)
results.claim("Transfer beats scratch.", True)
results.claim("More is better.", False)
results.record("accuracy", 0.9285)
"""
COUNTS = """
from tlutils import runtime
runtime.setup(gpu="off")
import keras, numpy as np
network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
_ = network.predict(np.zeros((7, 4)), verbose=0)
"""


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The place of the stored experiments of a clone."""
    place = tmp_path / "clone" / "book" / "results"
    place.mkdir(parents=True)
    monkeypatch.setattr(results, "_stored_folders", lambda: (place, tmp_path / "package"))
    return place


def test_what_a_notebook_measured_at_imagenet_scale_comes_back(tmp_path, stored, folder):
    folder.fill("train/ants", 5).fill("train/bees", 4).fill("val/ants", 2).fill("val/bees", 3)
    device = "print('Running on the GPU (Tesla T4), mixed precision; seed 3.')"
    good = write_notebook(tmp_path / "01_good.ipynb", device, CLAIMS)
    bad = write_notebook(tmp_path / "02_bad.ipynb", device, CLAIMS, "1 / 0")
    parameters = {"PROFILE": "full", "SEED": 3, "DATASET": str(folder.path), "BACKBONE": "mobilenet_v2"}
    outcomes = runner.run([good, bad], tmp_path / "out", parameters, jobs=2, record=True)
    assert [outcome.status for outcome in outcomes] == ["ok", "failed"]
    (path,) = stored.rglob("*.json")
    assert path == stored / "full" / "01_good.json"
    text = path.read_text(encoding="utf-8")
    assert str(tmp_path) not in text and str(Path.home()) not in text

    found = results.load("full/01_good")
    assert found["metrics"] == {"accuracy": 0.9285}
    assert found["rows"] == [
        {"claim": "Transfer beats scratch.", "held": True},
        {"claim": "More is better.", "held": False},
    ]
    assert (found["dataset"], found["images"], found["classes"]) == ("photos", 14, 2)
    assert found["classes_of_imagenet"] == 2
    assert found["backbone"] == "mobilenet_v2" and found["machine"] == results.machine() | {"device": "Tesla T4"}
    assert found["seconds"] == round(outcomes[0].seconds, 1) and found["peak_mb"] == round(outcomes[0].peak_mb)
    options = "--profile full --seed 3 --dataset photos --backbone mobilenet_v2 --jobs 2"
    assert found["command"] == f"tlutils run 01_good {options} --record"

    shown = str(results.at_imagenet_scale("01_good", {"accuracy": "of the probe"}))
    assert "0.928" in shown and "1 of 2 claims of the chapter did not hold in that run:\n- More is better.\n" in shown
    assert "Not run yet." in str(results.at_imagenet_scale("02_bad", {"accuracy": "of the probe"}))


def test_the_defaults_of_the_full_profile_are_stored_by_name(tmp_path, stored, monkeypatch):
    monkeypatch.setitem(runner.runtime.BUDGETS["full"], "dataset", "patterns")  # comes with the package
    path = write_notebook(tmp_path / "01_good.ipynb", CLAIMS)
    runner.run([path], tmp_path / "out", {"PROFILE": "full"}, record=True)
    found = results.load("full/01_good")
    assert (found["dataset"], found["backbone"]) == ("patterns", "mobilenet_v2")
    assert found["machine"]["device"] is None, "it did not say on what it ran"
    assert found["multiply_adds"] is None, "it used no network"


def test_what_networks_compute_is_counted_while_results_are_recorded(tmp_path, stored, monkeypatch):
    monkeypatch.setitem(runner.runtime.BUDGETS["full"], "dataset", "patterns")
    path = write_notebook(tmp_path / "01_good.ipynb", COUNTS)
    outcome, notebook = run_one(path, tmp_path / "out", {"PROFILE": "full"}, record=True)
    assert (outcome.multiply_adds, outcome.uncounted) == (7 * 4 * 5, [])
    assert results.load("full/01_good")["multiply_adds"] == 7 * 4 * 5
    assert "Counter" not in nbformat.writes(notebook), "what counts is no part of the notebook"
    outcome, _ = run_one(path, tmp_path / "out")
    assert outcome.status == "ok" and outcome.multiply_adds is None


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "full profile"),
        ({"PROFILE": "quick", "BACKBONE": "mobilenet_v2"}, "full profile"),
        ({"PROFILE": "full", "BACKBONE": "pocket_vgg"}, "pocket_vgg has no ImageNet weights"),
    ],
)
def test_nothing_else_is_recorded(tmp_path, stored, parameters, words):
    path = write_notebook(tmp_path / "01_good.ipynb", CLAIMS)
    with pytest.raises(runner.UsageError, match=words):
        runner.run([path], tmp_path / "out", parameters, record=True)
    assert not [*stored.iterdir()] and not (tmp_path / "out").exists()


def test_the_output_folder_may_not_be_that_of_the_notebooks(tmp_path):
    path = write_notebook(tmp_path / "01_a.ipynb", "1")
    with pytest.raises(runner.UsageError, match="would overwrite"):
        runner.run([path], tmp_path)


# --- the same bytes every time ----------------------------------------------------------------------------------------


def test_two_runs_of_a_slider_give_the_same_bytes_and_updating_twice_changes_nothing(tmp_path):
    path = write_notebook(tmp_path / "01_slider.ipynb", SLIDER, 'print("a"); print("b")', "{'one', 'two', 'three'}")
    first = runner.run([path], tmp_path / "one", {"SEED": 1})
    assert first[0].status == "ok", first[0].error
    assert runner.update([path], first) == [path]
    committed = path.read_bytes()
    assert b"injected-parameters" not in committed and b"SEED = 1" not in committed

    second = runner.run([path], tmp_path / "two", {"SEED": 1})
    assert first[0].output.read_bytes() == second[0].output.read_bytes()
    assert runner.update([path], second) == []

    notebook = nbformat.read(path, 4)
    assert [cell.id for cell in notebook.cells] == [f"cell-{i:02d}" for i in range(1, 6)]
    state = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    kinds = [model["model_name"] for model in state.values()]
    assert kinds.count("HTMLModel") == 3 and kinds.count("LinkModel") == 2
    assert "TextModel" not in kinds, "a widget that nothing shows is dropped"
    view = notebook.cells[2].outputs[0].data["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert state[view]["model_name"] == "VBoxModel"


def test_update_leaves_a_notebook_that_failed_alone(tmp_path):
    path = write_notebook(tmp_path / "01_bad.ipynb", "1 / 0")
    before = path.read_bytes()
    outcomes = runner.run([path], tmp_path / "out")
    assert runner.update([path], outcomes) == [] and path.read_bytes() == before


def executed_by_hand():
    code = nbformat.v4.new_code_cell(
        "print(1)",
        execution_count=41,
        metadata={"tags": [], "papermill": {"duration": 1}, "execution": {"iopub.execute_input": "…"}},
        outputs=[
            nbformat.v4.new_output("stream", name="stdout", text="a"),
            nbformat.v4.new_output("stream", name="stdout", text="b\n"),
            nbformat.v4.new_output("stream", name="stderr", text="c\n"),
            nbformat.v4.new_output("execute_result", data={"text/plain": "1"}, execution_count=41),
        ],
    )
    injected = nbformat.v4.new_code_cell("SEED = 3", metadata={"tags": ["injected-parameters"]})
    return nbformat.v4.new_notebook(
        cells=[injected, code],
        metadata={
            "papermill": {"start_time": "now"},
            "kernelspec": {"name": "my-env", "display_name": "My env"},
            "language_info": {"name": "python", "version": "3.11.7"},
            "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}},
        },
    )


def test_tidy_removes_what_differs_between_runs():
    original = executed_by_hand()
    notebook = runner.tidy(original, committed=True)
    assert len(original.cells) == 2, "the original is left alone"
    (cell,) = notebook.cells
    assert (cell.id, cell.metadata, cell.execution_count) == ("cell-01", {}, 1)
    assert [output.get("text") for output in cell.outputs] == ["ab\n", "c\n", None]
    assert cell.outputs[2].execution_count == 1
    assert notebook.metadata.kernelspec.name == "python3" and "version" not in notebook.metadata.language_info
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert len(runner.tidy(original).cells) == 2, "a run's own copy shows with what it was run"


def test_tidying_twice_changes_nothing():
    once = runner.tidy(executed_by_hand())
    assert nbformat.writes(runner.tidy(once)) == nbformat.writes(once)


# --- finding notebooks ------------------------------------------------------------------------------------------------


@pytest.fixture
def chapters(tmp_path):
    for name in ("01_first_transfer", "04_feature_extraction", "05_fine_tuning"):
        write_notebook(tmp_path / f"{name}.ipynb")
    return tmp_path


@pytest.mark.parametrize("name", ["5", "05", "05_fine", "05_fine_tuning", "05_fine_tuning.ipynb"])
def test_a_notebook_is_found_by_number_or_name(chapters, name):
    assert [path.stem for path in runner.find([name], chapters)] == ["05_fine_tuning"]


def test_a_notebook_is_found_by_path_and_none_means_all(chapters, tmp_path):
    other = write_notebook(tmp_path / "elsewhere" / "mine.ipynb")
    assert runner.find([str(other)], chapters) == [other]
    assert [path.stem[:2] for path in runner.find([], chapters)] == ["01", "04", "05"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["05_fine_tunning"], "did you mean '05_fine_tuning'"),
        (["99"], "no notebook is called '99'"),
        (["0"], "no notebook is called '0'"),
        (["01", "01_first"], "asked for twice"),
    ],
)
def test_a_wrong_name_gets_a_suggestion(chapters, names, message):
    with pytest.raises(runner.UsageError, match=message):
        runner.find(names, chapters)


def test_an_ambiguous_name_lists_what_it_fits(chapters):
    write_notebook(chapters / "05_other.ipynb")
    with pytest.raises(runner.UsageError, match="more than one notebook: 05_fine_tuning, 05_other"):
        runner.find(["05"], chapters)


# --- the text of a notebook -------------------------------------------------------------------------------------------

TEXT = """---
kernelspec:
  display_name: Python 3
  name: python3
---

# A title

```{code-cell}
:tags: [parameters]

PROFILE = "quick"
```

```{code-cell}
print("kept")
```

```{code-cell}
print("edited")
```
"""


@pytest.fixture
def pairing():
    path = Path(__file__).parents[1] / "scripts" / "notebooks.py"
    spec = importlib.util.spec_from_file_location("notebooks_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pair(tmp_path, pairing):
    text = tmp_path / "text" / "01_a.md"
    text.parent.mkdir()
    text.write_text(TEXT, encoding="utf-8")
    assert pairing.sync(tmp_path) == [tmp_path / "01_a.ipynb"]
    assert pairing.check(tmp_path) == []
    return text, tmp_path / "01_a.ipynb"


def test_a_change_of_the_text_keeps_the_outputs_of_other_cells(tmp_path, pairing, pair):
    text, path = pair
    assert runner.update([path], runner.run([path], tmp_path / "out")) == [path]
    assert pairing.check(tmp_path) == [], "running does not part them"
    assert pairing.sync(tmp_path) == [], "nor does a sync change what was run"

    text.write_text(TEXT.replace('print("edited")', 'print("new")'), encoding="utf-8")
    assert pairing.check(tmp_path) == ["01_a: cell 4 differs at 'print(\"new\")'"]
    pairing.sync(tmp_path)
    assert printed(nbformat.read(path, 4)) == "kept\n"
    assert pairing.check(tmp_path) == []


def test_cells_edited_in_the_notebook_are_not_discarded(tmp_path, pairing, pair, capsys):
    text, path = pair
    notebook = nbformat.read(path, 4)
    notebook.cells[2].source = 'print("hours of work")'
    nbformat.write(notebook, path)
    mine = path.read_bytes()
    for content in (TEXT, TEXT.replace('print("edited")', 'print("new")')):  # whether or not the text was edited, too
        text.write_text(content, encoding="utf-8")
        os.utime(text)  # whichever is newer
        assert pairing.main(["sync", "--folder", str(tmp_path)]) == 1
        message = capsys.readouterr().err
        assert "the cells of 01_a.ipynb were edited" in message and "text/01_a.md" in message
        assert path.read_bytes() == mine

    text.write_text(TEXT.replace('print("kept")', 'print("hours of work")'), encoding="utf-8")  # as the message says
    pairing.sync(tmp_path)
    assert pairing.check(tmp_path) == []
    assert "hours of work" in path.read_text(encoding="utf-8")


def test_outputs_and_a_checkout_are_no_edits(tmp_path, pairing, pair):
    text, path = pair
    old = text.read_bytes(), path.read_bytes()
    assert runner.update([path], runner.run([path], tmp_path / "out")) == [path]
    text.write_text(TEXT.replace('print("edited")', 'print("new")'), encoding="utf-8")
    os.utime(path)  # the run ended after the text was edited
    assert pairing.sync(tmp_path) == [path]
    text.write_bytes(old[0])  # another commit, both files of it
    path.write_bytes(old[1])
    assert pairing.sync(tmp_path) == []
    text.write_text(TEXT.replace("A title", "Another title"), encoding="utf-8")
    os.utime(text, (0, 0))  # a checkout may date it as it likes
    assert pairing.sync(tmp_path) == [path]


def test_a_tag_removed_from_the_text_goes_from_the_notebook(tmp_path, pairing, pair):
    text, path = pair
    text.write_text(TEXT.replace(":tags: [parameters]\n\n", ""), encoding="utf-8")
    (problem,) = pairing.check(tmp_path)
    assert "cell 2" in problem and "parameters" in problem
    pairing.sync(tmp_path)
    assert pairing.check(tmp_path) == [] and b"parameters" not in path.read_bytes()


def test_other_disagreements_are_listed(tmp_path, pairing, pair):
    text, path = pair
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("More."))
    nbformat.write(notebook, path)
    assert pairing.check(tmp_path) == ["01_a: the text has 4 cells, the notebook 5"]
    text.rename(text.with_name("02_b.md"))
    problems = pairing.check(tmp_path)
    assert len(problems) == 2 and "01_a.ipynb has no text" in problems[0] and "02_b.md has no notebook" in problems[1]


def test_the_check_command_exits_1_and_names_the_cell(tmp_path, pairing, pair, capsys):
    text, _ = pair
    assert pairing.main(["check", "--folder", str(tmp_path)]) == 0
    text.write_text(TEXT.replace("A title", "Another title"), encoding="utf-8")
    assert pairing.main(["check", "--folder", str(tmp_path)]) == 1
    assert "cell 1 differs at '# Another title'" in capsys.readouterr().err
    assert pairing.main(["sync", "--folder", str(tmp_path)]) == 0


# --- what nbval masks -------------------------------------------------------------------------------------------------


def test_nbval_passes_what_may_differ_and_stops_what_may_not(tmp_path):
    sanitize = Path(__file__).parent / "nbval_sanitize.cfg"
    path = write_notebook(
        tmp_path / "01_a.ipynb",
        ("import time; print(time.time())", ["nbval-ignore-output"]),
        'print(f"took {time.perf_counter_ns() % 97} ms"); object()',
        "print(0.12345678)",
    )
    runner.update([path], runner.run([path], tmp_path / "out"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    command += ["--nbval-sanitize-with", str(sanitize), "-c", os.devnull, str(path)]
    passing = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert passing.returncode == 0, passing.stdout
    path.write_text(path.read_text(encoding="utf-8").replace("0.12345678\\n", "0.12995678\\n"), encoding="utf-8")
    failing = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert failing.returncode == 1 and "1 failed" in failing.stdout
