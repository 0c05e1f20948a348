"""The chapters on Google Colab: what the first cell says, installs and leaves alone, and what Drive keeps.

Colab is imitated: tests/colab/google/colab stands for Colab's own package, and tests/colab/versions.txt lists what is
installed there before a notebook starts.
"""

import importlib
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import ipywidgets
import nbformat
import numpy as np
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

from tlutils import backbones, colab, data, explore, models, results, runtime, training

ROOT = Path(__file__).parents[1]
STAND_IN = ROOT / "tests" / "colab"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def script(name):
    spec = importlib.util.spec_from_file_location(f"colab_{name}", STAND_IN / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


environment = script("environment")


def first_cell(path):
    return next(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """What a test keeps does not outlive it."""
    monkeypatch.setattr(runtime, "_kept", {"folder": None})


@pytest.fixture
def on_colab(monkeypatch, tmp_path):
    """A machine of Colab's without a GPU; gives the folder that stands for the reader's Drive."""
    drive = tmp_path / "drive"
    drive.mkdir()
    for name in ("google.colab", "google.colab.drive"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(STAND_IN)
    importlib.import_module("google.colab")  # Colab's kernel has loaded it before the first cell runs
    monkeypatch.setattr(colab, "MOUNT", tmp_path / "mounted")
    monkeypatch.setattr(colab, "find_spec", lambda name: True)
    monkeypatch.setenv("FAKE_DRIVE", str(drive))
    monkeypatch.setenv("PATH", str(tmp_path))
    yield drive
    for name in ("google.colab", "google.colab.drive"):
        sys.modules.pop(name, None)


# --- the first cell ---------------------------------------------------------------------------------------------------


class Shell:
    """Takes the lines that IPython would run."""

    def __init__(self):
        self.lines = []

    def run_line_magic(self, magic, line, **options):
        self.lines.append(f"%{magic} {line}")


def run_cell(source):
    shell = Shell()
    exec(TransformerManager().transform_cell(source), {"get_ipython": lambda: shell})
    return shell.lines


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_all_chapters_have_the_same_first_cell_with_their_own_name(path):
    usual = first_cell(ROOT / "notebooks" / "01_first_transfer.ipynb")
    assert usual.count('"01_first_transfer"') == 1
    assert first_cell(path) == usual.replace("01_first_transfer", path.stem)


def test_elsewhere_the_first_cell_does_nothing(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    assert run_cell(first_cell(NOTEBOOKS[0])) == []
    assert capsys.readouterr().out == ""


def test_on_colab_it_installs_the_package_alone_and_says_which_runtime_to_choose(on_colab, capsys):
    lines = run_cell(first_cell(NOTEBOOKS[0]))
    assert lines == [f"%pip install -q --no-deps git+{REPOSITORY}"]
    assert runtime.COLAB_MENU in capsys.readouterr().out
    assert runtime.kept("backups") is None, "Drive is the reader's own choice"


# --- what it says -----------------------------------------------------------------------------------------------------


def pretend_gpu(folder, script):
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for nvidia-smi")
@pytest.mark.parametrize(
    ("nvidia_smi", "gpu"),
    [
        ("echo Tesla T4", "Tesla T4"),
        ("echo Tesla T4; echo Tesla T4", "Tesla T4"),
        ("echo NVIDIA-SMI has failed; exit 9", None),
        (None, None),
    ],
    ids=["one", "two", "no driver", "no command"],
)
def test_it_names_the_gpu_or_says_how_to_get_one(on_colab, tmp_path, capsys, nvidia_smi, gpu):
    if nvidia_smi:
        pretend_gpu(tmp_path, nvidia_smi)
    assert colab.setup("01_first_transfer") is None
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 66
    if gpu:
        assert lines[0].startswith(f"GPU: {gpu}. ")
        assert runtime.COLAB_MENU not in " ".join(lines)
    else:
        assert lines[0].startswith("No GPU here.")
        assert lines[1].startswith(runtime.COLAB_MENU)


def test_a_runtime_without_tensorflow_stops_it_with_the_way_to_another(on_colab, monkeypatch):
    monkeypatch.setattr(colab, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="no TensorFlow") as error:
        colab.setup("01_first_transfer")
    assert runtime.COLAB_MENU in str(error.value)


def test_it_loads_neither_tensorflow_nor_keras():
    code = "import sys; from tlutils import colab; colab.setup('x'); print({'tensorflow', 'keras'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1:] == ["set()"], result.stderr


# --- Drive ------------------------------------------------------------------------------------------------------------


def test_with_drive_the_chapter_has_a_folder_there(on_colab, capsys):
    folder = colab.setup("01_first_transfer", drive=True)
    (on_colab / "transfer-learning" / "01_first_transfer" / "model.keras").write_text("weights")
    assert (folder / "model.keras").read_text() == "weights"
    assert "MyDrive/transfer-learning/01_first_transfer" in capsys.readouterr().out.splitlines()[-1]


def test_a_second_run_of_the_cell_finds_drive_as_it_is(on_colab):
    folder = colab.setup("01_first_transfer", drive=True)
    (folder / "model.keras").write_text("weights")
    assert colab.setup("01_first_transfer", drive=True) == folder
    assert (folder / "model.keras").read_text() == "weights"


def test_every_line_fits_for_the_longest_name(on_colab, capsys):
    for path in NOTEBOOKS:
        colab.setup(path.stem, drive=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if "mounted" not in line.lower()]
    assert max(map(len, lines)) <= 66


def test_a_reader_who_does_not_allow_it_is_told_what_to_do(on_colab, monkeypatch):
    monkeypatch.delenv("FAKE_DRIVE")
    with pytest.raises(RuntimeError, match=r"not connected \(mount failed\).*drive=False"):
        colab.setup("01_first_transfer", drive=True)
    assert runtime.kept("backups") is None


def test_recorded_numbers_go_to_drive_and_tables_do_not(on_colab):
    folder = colab.setup("01_first_transfer", drive=True)
    results.record("probe_accuracy", 0.75)
    results.record("method", "probe")
    results.record("box", results.at_imagenet_scale("no_chapter", {}))
    assert json.loads((folder / "results.json").read_text()) == {"probe_accuracy": 0.75, "method": "probe"}
    colab.setup("01_first_transfer", drive=True)
    results.record("probe_accuracy", 0.5)
    assert json.loads((folder / "results.json").read_text()) == {"probe_accuracy": 0.5, "method": "probe"}


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results.record("probe_accuracy", 0.75)
    assert list(tmp_path.iterdir()) == []
    runtime.keep(tmp_path / "results" / "of" / "today")
    runtime.keep(None)
    results.record("probe_accuracy", 0.75)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


TRAINED = {"blocks": 1, "epochs": 4, "start": "as_is", "progress": True}


def few_digits():
    task = data.load("digits", labels_per_class=3)
    return task, models.classifier(backbones.load("pocket_vgg", input_shape=(*task.image_size, task.channels)), 10)


def epochs_in(printed):
    return [int(number) for number in re.findall(r"^epoch +(\d+)/4", printed, re.MULTILINE)]


def test_a_training_goes_on_when_colab_has_disconnected(on_colab, tensorflow, monkeypatch, tmp_path, capsys):
    import keras

    task, model = few_digits()
    start = model.get_weights()
    training.fine_tune(model, task, **TRAINED)
    expected = model.get_weights()
    assert epochs_in(capsys.readouterr().out) == [1, 2, 3, 4]

    model.set_weights(start)
    folder = colab.setup("05_fine_tuning", drive=True)
    fit, calls = keras.Model.fit, []

    def disconnecting(self, *args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(self, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(keras.Model, "fit", disconnecting)
        training.fine_tune(model, task, **TRAINED)
    assert len(list((folder / "backups").iterdir())) == 1
    assert epochs_in(capsys.readouterr().out) == [1, 2]

    model.set_weights(start)
    monkeypatch.setattr(colab, "MOUNT", tmp_path / "the_next_machine")
    folder = colab.setup("05_fine_tuning", drive=True)
    training.fine_tune(model, task, **TRAINED)
    assert epochs_in(capsys.readouterr().out) == [3, 4]
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), expected, strict=True))
    assert list((folder / "backups").iterdir()) == []


# --- figures that move ------------------------------------------------------------------------------------------------


def picture(color):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), color).save(buffer, format="png")
    return buffer.getvalue()


def test_a_figure_moves_without_the_stack_that_colab_s_widgets_lack(monkeypatch):
    monkeypatch.setattr(explore, "_Stack", explore._StackOfSeven)
    monkeypatch.setattr(explore, "_link", ipywidgets.link)
    live = explore.picture_slider(map(picture, ("red", "green", "blue")), labels=[1, 5, 10], value=1)

    def shown():
        return [number for number, frame in enumerate(live.stack.children) if frame.layout.display != "none"]

    assert shown() == [1]
    live.slider.index = 2
    assert shown() == [2]
    live.slider.index = 0
    assert shown() == [0]
    assert live.frames == [picture("red"), picture("green"), picture("blue")]


# --- the imitated machine ---------------------------------------------------------------------------------------------


def test_the_list_pins_every_version_and_names_its_source():
    lines = (STAND_IN / "versions.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert {"tensorflow", "keras", "numpy", "ipywidgets", "pip"} <= set(pins)
    assert all(re.fullmatch(r"[\w.]+", version) for version in pins.values())
    assert re.search(r"commit\s+#?\s*[0-9a-f]{40}", "\n".join(lines))


@pytest.fixture(scope="module")
def machine():
    """The interpreter of an environment with what Colab has, and nothing of this clone but the stand-in."""
    if sys.version_info >= environment.WITHOUT_WHEELS:
        pytest.skip("some versions of Colab's list have no wheel for this Python")
    return environment.make()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    with environment.served_wheel(tmp_path_factory.mktemp("wheel")) as address:
        yield address


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_chapter_runs_from_its_first_cell_on_and_nothing_of_colab_s_changes(machine, wheel, tmp_path):
    command = [machine, STAND_IN / "run.py", "01_first_transfer", "--package", wheel, "--out", tmp_path]
    result = subprocess.run(command, cwd=tmp_path, env=environment.variables(), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    listed = (STAND_IN / "versions.txt").read_text()
    tensorflow, keras = (re.search(rf"^{name}==(\S+)$", listed, re.MULTILINE)[1] for name in ("tensorflow", "keras"))
    assert f"tensorflow {tensorflow}, keras {keras}" in result.stdout
    print(result.stdout)

    executed = nbformat.read(tmp_path / "01_first_transfer.ipynb", 4)
    said = results.claims_in(executed)
    assert said == results.claims_in(ROOT / "notebooks" / "01_first_transfer.ipynb")
    assert all(claim["held"] for claim in said)
    assert set(results.records_in(executed)) == set(results.records_in(ROOT / "notebooks" / "01_first_transfer.ipynb"))
    views = [o for c in executed.cells for o in c.get("outputs", []) if "widget-view" in str(o.get("data", {}).keys())]
    assert views, "the figure that moves"
    assert runtime.COLAB_MENU in "\n".join(results.printed_in(executed))


WIDGETS = """
import io
from PIL import Image
from tlutils import explore

def png(color):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), color).save(buffer, format="png")
    return buffer.getvalue()

live = explore.picture_slider([png("red"), png("blue")], labels=["few", "many"], play=True)
shown = lambda: [picture.layout.display for picture in live.stack.children]
print(shown())
live.slider.index = 1
print(shown(), live.stack.selected_index)
"""

# One training on a machine of its own, which is gone before the third epoch if it is to disconnect.
TRAINING = """
import os, signal
from pathlib import Path
import google.colab
from tlutils import backbones, colab, data, models, runtime, training

colab.MOUNT = Path({mount!r})
colab.setup("05_fine_tuning", drive=True)
runtime.setup(gpu="off")
import keras

task = data.load("digits", labels_per_class=3)
model = models.classifier(backbones.load("pocket_vgg", input_shape=(*task.image_size, task.channels)), 10)
fit, calls = keras.Model.fit, []

def disconnecting(self, *args, **options):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return fit(self, *args, **options)

if {disconnects}:
    keras.Model.fit = disconnecting
training.fine_tune(model, task, **{options})
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_was_installed_moves_figures_and_goes_on_from_drive(machine, wheel, tmp_path):
    drive = tmp_path / "drive"
    drive.mkdir()
    variables = environment.variables(FAKE_DRIVE=str(drive))
    install = [machine, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheel]
    subprocess.run(install, check=True, env=variables)

    def run(code):
        return subprocess.run([machine, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True)

    def train(name, disconnects):
        return run(TRAINING.format(mount=str(tmp_path / name), disconnects=disconnects, options=TRAINED))

    moved = run(WIDGETS)
    assert moved.stdout.splitlines() == ["[None, 'none']", "['none', None] 1"], moved.stderr
    lost, resumed = train("first", True), train("second", False)
    assert (lost.returncode, resumed.returncode) == (-signal.SIGKILL, 0), lost.stderr + resumed.stderr
    assert (epochs_in(lost.stdout), epochs_in(resumed.stdout)) == ([1, 2], [3, 4])


# --- the weekly run in Colab's own image ------------------------------------------------------------------------------


def test_the_weekly_run_names_chapters_that_exist_and_speaks_up_only_when_it_fails():
    text = (ROOT / ".github" / "workflows" / "colab.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    when = workflow[True]  # YAML reads a bare `on` as true
    assert len(when["schedule"]) == 1 and "workflow_dispatch" in when
    assert workflow["permissions"] == {"contents": "read", "issues": "write"}
    steps = workflow["jobs"]["chapters"]["steps"]
    (run,) = [step["run"] for step in steps if "docker run" in step.get("run", "")]
    script, arguments = re.search(r"/book/(\S+\.py)((?: \w+)+)", run).groups()
    assert (ROOT / script).is_file()
    assert [name for name in arguments.split() if not (ROOT / "notebooks" / f"{name}.ipynb").is_file()] == []
    assert "pipefail" in run  # else the exit code would be that of tee
    (issue,) = [step for step in steps if "gh issue create" in step.get("run", "")]
    assert issue["if"] == "failure()"
    assert "GH_TOKEN" in issue["env"]


@pytest.mark.skipif(os.name == "nt", reason="the steps are written for bash")
@pytest.mark.parametrize(("known", "said"), [("", "issue create"), ("7", "issue comment 7")], ids=["new", "open"])
def test_a_failure_opens_one_issue_and_adds_to_it_afterwards(tmp_path, known, said):
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "colab.yml").read_text(encoding="utf-8"))
    step = next(s for s in workflow["jobs"]["chapters"]["steps"] if "gh issue create" in s.get("run", ""))
    gh = tmp_path / "gh"
    gh.write_text(f'#!/bin/sh\necho "$@" >> calls\ncase "$2" in list) echo "{known}";; *) cat body.md >> sent;; esac\n')
    gh.chmod(0o755)
    (tmp_path / "report.txt").write_text("13_vgg16_on_photos: failed\n")
    variables = {name: value for name, value in step["env"].items() if "${{" not in value}
    variables |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_REPOSITORY": "o/r", "RUN": "https://run"}
    subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=variables, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2 and calls[1].startswith(said)
    sent = (tmp_path / "sent").read_text()
    assert "https://run" in sent and "13_vgg16_on_photos: failed" in sent
