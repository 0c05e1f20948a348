import io
import json
import os
import re
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from pictures import Folder, encoded, noise

import tlutils
from tlutils import cli, results, runner


def command(*arguments, **options):
    """Run the command as a user does; return the finished process."""
    return subprocess.run([sys.executable, "-m", "tlutils.cli", *arguments], capture_output=True, text=True, **options)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with two notebooks, one of which fails."""
    (tmp_path / "notebooks").mkdir()
    for name, last in (("01_good", 'print("hello")'), ("02_bad", "1 / 0")):
        parameters = nbformat.v4.new_code_cell(
            'PROFILE = "quick"\nGPU = "auto"\nSEED = 0\nDATASET = None\nBACKBONE = None',
            metadata={"tags": ["parameters"]},
        )
        show = nbformat.v4.new_code_cell("print(PROFILE, GPU, SEED, DATASET, BACKBONE)")
        notebook = nbformat.v4.new_notebook(cells=[parameters, show, nbformat.v4.new_code_cell(last)])
        runner.write(runner.tidy(notebook), tmp_path / "notebooks" / f"{name}.ipynb")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- what it loads and how it speaks ----------------------------------------------------------------------------------


def test_help_is_instant_and_loads_no_tensorflow():
    code = """
import contextlib, io, sys, tlutils
from tlutils import cli, results, runner
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
    cli.main(["--help"])
print([m for m in ("tensorflow", "keras") if m in sys.modules], "doctor" in text.getvalue())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("[] True\n", "")
    best = min(_seconds("--help") for _ in range(3))
    assert best < 1


def _seconds(*arguments):
    begin = time.perf_counter()
    assert command(*arguments).returncode == 0
    return time.perf_counter() - begin


def test_version():
    assert command("--version").stdout == f"tlutils {tlutils.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["walk"], "invalid choice: 'walk'"),
        (["run", "--profile", "fast"], "invalid choice: 'fast'"),
        (["run", "--jobs", "0"], "'0' is not a whole number of at least 1"),
        (["run", "--seed", "-1"], "--seed"),
        (["run", "--timeout", "soon"], "'soon' is not a whole number"),
        (["run", "1_god"], "no notebook is called '1_god'; did you mean '01_good'?"),
        (["run", "--dataset", "digitz"], "did you mean 'digits'?"),
        (["run", "--dataset", "no/such/folder"], "no data set or folder is called 'no/such/folder'"),
        (["run", "--backbone", "pocket_resnett"], "did you mean 'pocket_resnet'?"),
        (["run", "--write", "--profile", "full"], "leave out --profile full"),
        (["run", "--write", "--seed", "1"], "--write is for the set-up that the chapters describe"),
        (["run", "--out", "notebooks"], "would overwrite"),
        (["run", "--record"], "only results at ImageNet scale are recorded: choose the full profile"),
        (["run", "--record", "--profile", "full", "--backbone", "pocket_vgg"], "pocket_vgg has no ImageNet weights"),
    ],
)
def test_a_wrong_command_gets_one_sentence_and_exit_code_2(clone, capsys, arguments, words):
    before = sorted(clone.rglob("*"))
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert words in printed.err and printed.err.startswith("tlutils: ") and printed.err.count("\n") == 1
    assert printed.out == "" and sorted(clone.rglob("*")) == before


def test_a_missing_library_names_the_extra(clone, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.delitem(sys.modules, "tlutils.runner")
    assert cli.main(["run"]) == 1
    assert "psutil is not installed: pip install 'tlutils[" in capsys.readouterr().err


# --- run --------------------------------------------------------------------------------------------------------------


def test_run_reports_each_notebook_and_fails_if_one_fails(clone, capsys):
    folder = clone / "my photos ü"
    folder.mkdir()
    assert cli.main(["run", "--jobs", "2", "--dataset", folder.name, "--gpu", "off", "--seed", "3"]) == 1
    printed = capsys.readouterr()
    assert "01_good: ok, 4/4 cells" in printed.out and "02_bad    failed" in printed.out
    kept = os.path.join("_build", "notebooks", "02_bad.ipynb")
    assert printed.err.splitlines() == [
        "02_bad failed in cell 4, In [4]: ZeroDivisionError: division by zero",
        f"  look at {kept}, kept as far as it ran",
    ]
    notebook = nbformat.read(kept, 4)
    assert notebook.cells[2].outputs[0].text == f"quick off 3 {folder} None\n"
    report = json.loads((clone / "_build" / "notebooks" / "report.json").read_text(encoding="utf-8"))
    assert [entry["status"] for entry in report["notebooks"]] == ["ok", "failed"]


def test_writing_twice_changes_nothing(clone, capsys):
    assert cli.main(["run", "1", "--write", "--gpu", "off", "--out", "out"]) == 0
    assert f"updated {os.path.join('notebooks', '01_good.ipynb')}" in capsys.readouterr().out
    committed = (clone / "notebooks" / "01_good.ipynb").read_bytes()
    assert b"hello" in committed and b"injected" not in committed
    assert cli.main(["run", "1", "--write", "--gpu", "off", "--out", "out"]) == 0
    assert "updated" not in capsys.readouterr().out
    assert (clone / "notebooks" / "01_good.ipynb").read_bytes() == committed


@pytest.mark.parametrize("device", [[], ["--gpu", "off"]])
def test_the_set_up_of_the_chapters_may_be_spelt_out(clone, capsys, device):
    assert cli.main(["run", "1", "--write", "--profile", "quick", *device]) == 0
    assert "updated" in capsys.readouterr().out


def test_a_notebook_that_is_edited_while_it_runs_is_kept(clone, capsys, monkeypatch):
    path = clone / "notebooks" / "01_good.ipynb"
    mine = path.read_bytes().replace(b"hello", b"my change")
    display = runner.Display()

    def editing(outcomes):
        display(outcomes)
        if outcomes[0].cells_done:
            path.write_bytes(mine)

    monkeypatch.setattr(runner, "Display", lambda: editing)
    assert cli.main(["run", "1", "--write", "--out", "out"]) == 1
    printed = capsys.readouterr()
    kept = os.path.join("notebooks", "01_good.ipynb")
    assert printed.err == f"kept {kept}: it was edited while it ran; the executed copy is in out\n"
    assert "updated" not in printed.out
    assert path.read_bytes() == mine
    assert b"hello" in (clone / "out" / "01_good.ipynb").read_bytes()


def test_a_notebook_that_the_runner_did_not_write_is_not_replaced(clone, tmp_path, capsys):
    draft = tmp_path / "draft" / "01_good.ipynb"
    draft.parent.mkdir()
    shutil.copyfile(clone / "notebooks" / "01_good.ipynb", draft)
    before = draft.read_bytes()
    assert cli.main(["run", str(clone / "notebooks" / "01_good.ipynb"), "--out", str(draft.parent)]) == 2
    assert "holds a 01_good.ipynb that no earlier run has written" in capsys.readouterr().err
    assert draft.read_bytes() == before and list(draft.parent.iterdir()) == [draft]


def test_what_an_earlier_run_wrote_is_replaced_even_if_it_did_not_end(clone, monkeypatch):
    def interrupted(outcomes):
        if outcomes[0].status == "ok":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "Display", lambda: interrupted)
        assert cli.main(["run", "--out", "out"]) == cli.INTERRUPTED
    assert (clone / "out" / "01_good.ipynb").is_file()
    assert cli.main(["run", "1", "--out", "out"]) == 0


def test_recording_keeps_what_succeeded_and_says_where(clone, folder, capsys, monkeypatch):
    stored = clone / "book" / "results"
    stored.mkdir(parents=True)
    monkeypatch.setattr(results, "_stored_folders", lambda: (stored, clone / "package"))
    folder.fill("ants", 6).fill("bees", 6)
    command = ["run", "--profile", "full", "--dataset", folder.path.name, "--record", "--out", "out"]
    assert cli.main(command) == 1, "one of the two fails"
    assert "recorded book/results/full/01_good.json\n" in capsys.readouterr().out
    assert [path.name for path in stored.rglob("*.json")] == ["01_good.json"]
    command = "tlutils run 01_good --profile full --dataset photos --record"
    assert results.load("full/01_good")["command"] == command


def test_recording_needs_images_and_a_clone(clone, folder, capsys, monkeypatch):
    monkeypatch.setattr(results, "_stored_folders", lambda: (clone / "nowhere", clone / "package"))
    command = ["run", "1", "--profile", "full", "--record", "--dataset", str(folder.path)]
    assert cli.main(command) == 1
    assert "stored in a clone of the book" in capsys.readouterr().err
    (clone / "nowhere").mkdir()
    assert cli.main(command) == 2, "the folder is empty"
    assert str(folder.path) in capsys.readouterr().err
    assert not (clone / "_build").exists(), "nothing has run"


def test_a_folder_on_another_drive_is_named_in_full(clone, capsys, monkeypatch):
    def no_way(path, start=None):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")  # what Windows says

    monkeypatch.setattr(cli.os.path, "relpath", no_way)
    assert cli.main(["run", "1", "--write", "--out", str(clone / "out")]) == 0
    out = capsys.readouterr().out
    assert f"executed notebooks and report.json: {clone / 'out'}" in out
    assert f"updated {clone / 'notebooks' / '01_good.ipynb'}" in out


def test_a_terminal_that_lacks_a_character_gets_a_question_mark():
    found = command("doctor", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert "UnicodeEncodeError" not in found.stderr
    assert found.returncode == 0 and "GPU" in found.stdout


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_a_required_gpu_is_asked_for_in_utf8(clone):
    found = command("run", "--gpu", "require", cwd=clone, env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert found.returncode == 3
    assert "Runtime ? Change runtime type" in found.stderr


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_a_required_gpu_that_is_missing_is_one_sentence(clone):
    found = command("run", "--gpu", "require", cwd=clone)
    assert found.returncode == 3 and found.stdout == ""
    assert "Runtime → Change runtime type" in found.stderr and "Traceback" not in found.stderr
    assert not (clone / "_build").exists()


def test_progress_on_a_terminal_is_one_live_line_and_a_line_for_each_that_is_done(tmp_path, monkeypatch):
    class Terminal(list):
        write = list.append
        isatty = staticmethod(lambda: True)
        flush = staticmethod(lambda: None)

    terminal, clock = Terminal(), iter(range(100))
    monkeypatch.setattr(runner.time, "monotonic", lambda: next(clock))
    display = runner.Display(terminal)
    outcome = runner.Outcome("01_a", tmp_path / "01_a.ipynb", "running", cells=7, cells_done=3, peak_mb=512.4)
    display([outcome])
    assert "\n" not in terminal[-1] and "01_a 3/7 cells   512 MB" in terminal[-1]
    outcome.status, outcome.seconds, outcome.cells_done = "ok", 4.0, 7
    display([outcome])
    assert terminal[-1] == "01_a: ok, 7/7 cells, 4.0 s, 512 MB\n"


# --- diagnose ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path, tensorflow):
    """A function that saves a small classifier of two classes with a given last activation, and returns its path."""
    import keras

    def save(activation):
        pool = keras.layers.GlobalAveragePooling2D()
        inputs = [keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(2, 3), pool]
        model = keras.Sequential([*inputs, keras.layers.Dense(2, activation=activation)])
        model.compile("adam", "sparse_categorical_crossentropy")
        model.save(tmp_path / "my model.keras")
        return tmp_path / "my model.keras"

    return save


def test_diagnose_is_content_with_a_right_model_and_changes_nothing(saved, folder, capsys):
    folder.fill("cats", 3).fill("dogs", 4)
    path = saved("softmax")
    before = {file: file.read_bytes() for file in (path, *folder.path.rglob("*.png"))}
    assert cli.main(["diagnose", str(path), str(folder.path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("nothing found.") and printed.err == ""
    assert "7 images of the training data" in printed.out
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("with_images", [True, False])
def test_diagnose_ends_with_4_where_it_finds_an_error(saved, folder, capsys, with_images):
    folder.fill("cats", 3).fill("dogs", 4)
    assert cli.main(["diagnose", str(saved(None)), *([str(folder.path)] if with_images else [])]) == cli.FOUND == 4
    printed = capsys.readouterr()
    assert "error    the model gives logits" in printed.out and printed.err == ""


def test_diagnose_says_what_it_cannot_read(saved, folder, tmp_path, capsys):
    model = saved("softmax")
    (tmp_path / "no model.keras").write_bytes(b"something else")
    (folder.path / "lonely.png").write_bytes(b"")
    for arguments, code, words in (
        ([str(tmp_path / "missing.keras")], 2, "there is no model at"),
        ([str(tmp_path)], 2, "there is no model at"),
        ([str(model), str(tmp_path / "missing")], 2, "there is no folder of images at"),
        ([str(model), str(model)], 2, "there is no folder of images at"),
        ([str(tmp_path / "no model.keras")], 1, "cannot load"),
        ([str(model), str(folder.path)], 1, "holds images but no sub-folders"),
        ([], 2, "MODEL"),
    ):
        assert cli.main(["diagnose", *arguments]) == code
        printed = capsys.readouterr()
        assert words in printed.err and printed.err.startswith("tlutils: ") and printed.err.count("\n") == 1
        assert printed.out == ""


def test_diagnose_ends_with_0_where_it_only_warns(saved, folder, capsys):
    folder.fill("cats", 2).fill("dogs", 30)
    assert cli.main(["diagnose", str(saved("softmax")), str(folder.path)]) == cli.OK == 0
    assert capsys.readouterr().out.startswith("1 warning.")


def test_the_help_of_diagnose_says_what_its_exit_codes_mean(capsys):
    with pytest.raises(SystemExit):
        cli.main(["diagnose", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    for code, meaning in (
        (cli.OK, "no error was found (warnings and notes do not count)"),
        (cli.FOUND, "an error was found"),
        (cli.FAILED, "the model or the folder could not be read"),
        (cli.USAGE, "the command was wrong"),
        (cli.INTERRUPTED, "interrupted"),
    ):
        assert f"{code} {meaning}" in words


def test_diagnose_from_a_terminal_is_quiet_on_stderr(saved):
    found = command("diagnose", str(saved("softmax")))
    assert (found.returncode, found.stderr) == (0, "") and found.stdout.startswith("nothing found.")


# --- train, evaluate, predict -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, tensorflow):
    """A folder of noise in two classes with a file that is no image, and the model that the command makes of it."""
    folder = Folder(tmp_path_factory.mktemp("noise") / "my photos")
    folder.fill("cats", 6).fill("dogs", 6)
    folder.put("cats/notes.jpg", b"no pixels")
    model = folder.path.parent / "pets ü.keras"
    options = ["--backbone", "Pocket-VGG", "--epochs", "1", "--seed", "3", "--gpu", "off", "--out", str(model)]
    found = command("train", str(folder.path), *options)
    return folder, model, found


def test_train_says_what_it_does_and_writes_the_model_and_what_belongs_to_it(photographs):
    folder, model, found = photographs
    assert (found.returncode, found.stderr) == (0, "")
    printed = " ".join(found.stdout.split())  # lines are broken, and columns set apart
    for words in (
        "Running on the CPU; seed 3.",
        "my photos: 2 classes (cats, dogs).",
        "Note: skipped cats/notes.jpg: not an image",
        "linear probe: pocket_vgg looks once at",
        "epoch 1/1 ",
        "validation accuracy",
        "Kept: the ",
        "(not a test: choices may have been made on them)",
        "These validation images chose the model",
        "pets ü.keras",
    ):
        assert words in printed
    assert {path.name for path in model.parent.iterdir()} == {
        folder.path.name,
        *(f"pets ü{suffix}" for suffix in (".keras", ".md", ".json", ".png")),
    }


def test_train_names_every_file_that_it_cannot_use_and_goes_on(folder, tmp_path, capsys, tensorflow):
    folder.fill("cats", 4).fill("dogs", 4)
    whole = encoded(noise(100, size=(64, 64)))
    for name, content in {
        "words.jpg": b"no pixels",
        "empty.png": b"",
        "cut.jpg": whole[: len(whole) // 2],
        "phone.heic": b"ftypheic",
        "page.ps.jpg": b"%!PS-Adobe-3.0",
    }.items():
        folder.put(f"dogs/{name}", content)
    (folder.path / "dogs" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    (folder.path / "dogs" / "album.jpg").mkdir()
    for name, mode in (("print.jpg", "CMYK"), ("clear.png", "RGBA"), ("gray.png", "L"), ("deep.png", "I;16")):
        folder.put(f"cats/{name}", noise(len(name)).convert("L" if mode == "I;16" else "RGB").convert(mode))
    out = tmp_path / "pets.keras"
    assert cli.main(["train", str(folder.path), "--backbone", "pocket_vgg", "--epochs", "0", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    skipped = re.findall(r"Note: skipped dogs/(\S+): ", printed.out)
    assert sorted(skipped) == ["cut.jpg", "empty.png", "lost.png", "page.ps.jpg", "phone.heic", "words.jpg"]
    assert "10 train, 2 val, no test" in printed.out and printed.err == "" and out.exists()


def test_train_without_a_name_calls_the_model_like_the_folder(folder, tmp_path, monkeypatch, tensorflow):
    folder.fill("cats", 3).fill("dogs", 3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["train", "../photos", "--backbone", "pocket_vgg", "--epochs", "0", "--image-size", "40"]) == 0
    assert tlutils.photos.load("photos.keras").image_size == (40, 40)
    monkeypatch.chdir(folder.path)
    assert cli.main(["train", ".", "--backbone", "pocket_vgg"]) == 2  # here it would lie inside the folder


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train"], 2, "FOLDER"),
        (["train", "missing"], 2, "no data set or folder is called 'missing'"),
        (["train", "list.txt"], 2, "no data set or folder is called 'list.txt'"),
        (["train", "good", "--backbone", "mobilenet_v9"], 2, "did you mean 'mobilenet_v"),
        (["train", "good", "--backbone", "pocket_vgg", "--out", "model.h5"], 2, "must end in .keras"),
        (["train", "good", "--backbone", "pocket_vgg", "--out", "no/model.keras"], 2, "there is no folder no"),
        (["train", "good", "--backbone", "pocket_vgg", "--out", "list.keras"], 2, "list.md would be replaced"),
        (["train", "good", "--backbone", "pocket_vgg", "--out", "good/a.keras"], 2, "which is only read"),
        (["train", "good", "--epochs", "-1"], 2, "'-1' is not a whole number"),
        (["train", "good", "--backbone", "pocket_vgg", "--image-size", "8"], 1, "images of at least 16 pixels"),
        (["train", "empty", "--backbone", "pocket_vgg"], 1, "is empty"),
        (["train", "flat", "--backbone", "pocket_vgg"], 1, "holds images but no sub-folders"),
        (["train", "one", "--backbone", "pocket_vgg"], 1, "has one class only (cats)"),
        (["train", "bad", "--backbone", "pocket_vgg"], 1, "no file of the class 'dogs' can be used"),
        (["evaluate", "model.keras"], 2, "FOLDER"),
        (["evaluate", "missing.keras", "good"], 2, "there is no model at missing.keras"),
        (["evaluate", "list.txt", "good"], 1, "list.txt is not a Keras model"),
        (["evaluate", "model.keras", "missing"], 2, "there is no folder of images at missing"),
        (["evaluate", "model.keras", "other"], 1, "does not know (birds); it knows cats, dogs"),
        (["evaluate", "model.keras", "flat"], 1, "holds images but no sub-folders"),
        (["predict", "model.keras"], 2, "IMAGE"),
        (["predict", "missing.keras", "good/cats/0000.png"], 2, "there is no model at missing.keras"),
        (["predict", "list.txt", "good/cats/0000.png"], 1, "list.txt is not a Keras model"),
    ],
)
def test_a_photo_command_that_cannot_be_done_gets_one_sentence_and_its_code(
    photographs, tmp_path, monkeypatch, capsys, arguments, code, words
):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(photographs[1], "model.keras")
    (tmp_path / "list.txt").write_text("milk")
    (tmp_path / "list.md").write_text("milk")
    for name in ("empty", "flat"):
        (tmp_path / name).mkdir()
    Folder(tmp_path / "good").fill("cats", 3).fill("dogs", 3)
    Folder(tmp_path / "other").fill("cats", 3).fill("birds", 3)
    Folder(tmp_path / "one").fill("cats", 3)
    Folder(tmp_path / "bad").fill("cats", 3).put("dogs/1.jpg", b"no pixels")
    Folder(tmp_path / "flat").put("1.png", noise(1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert cli.main(arguments) == code
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.startswith("tlutils: ") and printed.err.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_there_is_replaced_only_if_asked_for(photographs, tmp_path, capsys):
    folder, model, _ = photographs
    copy = shutil.copyfile(model, tmp_path / "pets.keras")
    before = copy.read_bytes()
    arguments = ["train", str(folder.path), "--backbone", "pocket_vgg", "--epochs", "0", "--out", str(copy)]
    assert cli.main(arguments) == 2
    assert "would be replaced" in capsys.readouterr().err and copy.read_bytes() == before
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert copy.read_bytes() != before


def test_without_weights_and_network_train_offers_the_pocket_zoo(photographs, tmp_path):
    nobody = "http://127.0.0.1:9"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), **dict.fromkeys(names, nobody), "no_proxy": ""}
    found = command("train", str(photographs[0].path), "--out", str(tmp_path / "pets.keras"), env=environment)
    assert found.returncode == 1
    assert found.stderr.startswith("tlutils: the ImageNet weights of mobilenet_v2 are not on this machine")
    assert "use the pocket zoo" in found.stderr and found.stderr.endswith("For example: --backbone pocket_resnet\n")
    assert found.stderr.count("\n") == 1 and "Traceback" not in found.stdout
    assert not list(tmp_path.glob("pets*"))


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_train_ends_with_3_where_a_required_gpu_is_missing(photographs, capsys):
    assert cli.main(["train", str(photographs[0].path), "--backbone", "pocket_vgg", "--gpu", "require"]) == 3
    assert "Runtime → Change runtime type" in capsys.readouterr().err


def test_an_interrupted_training_says_how_to_go_on(photographs, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(tlutils.training, "linear_probe", interrupted)
    out = tmp_path / "pets.keras"
    assert cli.main(["train", str(photographs[0].path), "--backbone", "pocket_vgg", "--out", str(out)]) == 130
    assert capsys.readouterr().err == "tlutils: interrupted: the same command goes on where it was\n"


def test_a_damaged_backup_is_one_line(photographs, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    arguments = ["train", str(photographs[0].path), "--backbone", "pocket_vgg", "--epochs", "0"]
    arguments += ["--out", str(tmp_path / "pets.keras")]
    with monkeypatch.context() as patch:
        patch.setattr(tlutils.evaluation, "model_card", interrupted)
        assert cli.main(arguments) == 130
    probe = tmp_path / "pets.backup" / "probe.npz"
    probe.write_bytes(probe.read_bytes()[:-9])
    capsys.readouterr()
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith(f"tlutils: {probe} is damaged (") and printed.err.count("\n") == 1
    assert "going on from" in printed.out


def test_too_little_memory_is_one_line(photographs, tmp_path, capsys, monkeypatch):
    def greedy(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(tlutils.training, "linear_probe", greedy)
    out = tmp_path / "pets.keras"
    assert cli.main(["train", str(photographs[0].path), "--backbone", "pocket_vgg", "--out", str(out)]) == 1
    assert capsys.readouterr().err == (
        "tlutils: there is not enough memory: close other programs, or give fewer images\n"
    )


def test_evaluate_prints_the_report_and_what_it_left_out(photographs, folder, capsys):
    trained_on, model, _ = photographs
    assert cli.main(["evaluate", str(model), str(trained_on.path)]) == 0
    printed = capsys.readouterr()
    assert "images that the model was trained on." in printed.out and printed.err == ""
    assert "images chose the model, so the numbers flatter it." in printed.out
    for seed in range(4):
        folder.put(f"dogs/{seed}.png", noise(1000 + seed))
    assert cli.main(["evaluate", str(model), str(folder.path)]) == 0
    assert "on 4 test images" in capsys.readouterr().out


def test_predict_names_what_it_can_read_and_ends_with_1_if_there_is_more(photographs, folder, capsys):
    model = str(photographs[1])
    images = [str(folder.put(f"{seed}.png", noise(2000 + seed))) for seed in range(2)]
    assert cli.main(["predict", model, *images]) == 0
    printed = capsys.readouterr()
    heading, *lines = printed.out.splitlines()
    assert heading.split() == ["image", "first", "second"] and printed.err == ""
    for image, line in zip(images, lines, strict=True):
        name, first, p, second, q = line.replace(image, "image").split()
        assert (name, {first, second}) == ("image", {"cats", "dogs"})
        assert float(p) >= float(q) and float(p) + float(q) == pytest.approx(1, abs=0.002)

    pattern = str(folder.path / "*.png")  # as a shell on Windows hands it over
    assert cli.main(["predict", model, pattern]) == 0
    assert capsys.readouterr().out.splitlines() == [heading, *lines]
    nothing = str(folder.path / "*.jpg")
    assert cli.main(["predict", model, nothing]) == 1
    assert capsys.readouterr().err == f"tlutils: {nothing}: there is no such file; check the path\n"

    words = str(folder.put("words.txt", b"milk"))
    assert cli.main(["predict", model, words, *images]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1:] == lines
    assert printed.err.startswith(f"tlutils: {words}: not an image") and printed.err.count("\n") == 1
    assert cli.main(["predict", model, words]) == 1
    assert capsys.readouterr().out == ""


def test_predict_gives_json_to_programs(photographs, folder, capsys, monkeypatch):
    image, words = folder.put("ö.png", noise(3000)), folder.put("words.txt", b"milk")
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")  # a pipe on Windows knows few letters
    monkeypatch.setattr(sys, "stdout", narrow)
    assert cli.main(["predict", "--json", str(photographs[1]), str(image), str(words)]) == 1
    assert capsys.readouterr().err.startswith(f"tlutils: {words}: not an image")
    narrow.seek(0)
    first, second = json.load(narrow)
    assert first["file"] == str(image) and first["problem"] is None
    assert {row["name"] for row in first["classes"]} == {"cats", "dogs"}
    assert sum(row["probability"] for row in first["classes"]) == pytest.approx(1)
    assert second == {"file": str(words), "classes": [], "problem": second["problem"]} and second["problem"]


@pytest.mark.parametrize(
    ("name", "codes"),
    [("train", ["0", "1", "2", "3", "130"]), *((name, ["0", "1", "2", "130"]) for name in ("evaluate", "predict"))],
)
def test_the_exit_codes_are_documented(capsys, name, codes):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    listed = text[text.index("Exit codes:") : text.index("positional arguments")]
    assert re.findall(r"(?:codes:|,) (\d+) ", listed) == codes


# --- lists and doctor -------------------------------------------------------------------------------------------------


def test_datasets_are_listed_with_their_licences(capsys):
    assert cli.main(["datasets"]) == 0
    text = capsys.readouterr().out
    assert "digits\n" in text and "licence: CC BY 4.0" in text and "(229 MB)" in text
    assert "people: the voices of six people" in text and "cite: Z. Jackson, C. Souza" in text


@pytest.fixture
def fetchable(tmp_path, monkeypatch):
    """A function that registers data sets under these names: each comes from an archive saved by hand, if there is one.

    Where there is none, it would come from a server that does not answer.
    """
    import tarfile

    from tlutils import data
    from tlutils.downloads import Archive, Contents, Download

    home = tmp_path / "keras" / "datasets"
    home.mkdir(parents=True)
    monkeypatch.setenv("KERAS_HOME", str(home.parent))
    monkeypatch.setenv("NO_PROXY", "*")

    def register(*names, saved=()):
        described = {"description": "small", "licence": "CC0", "citation": "none", "people": "none"}
        sources = [data.registry()["digits"]]
        for name in names:
            url = f"http://127.0.0.1:1/{name}.tar"
            archive = Archive(url, "files", f"{name}.tar")
            download = Download(name, name, (archive,), Contents("*/*.jpg", 1))
            sources.append(data.DataSource(name=name, url=url, download=download, **described))
        for name in saved:
            with tarfile.open(home / f"{name}.tar", "w") as archive:
                member = tarfile.TarInfo("files/a/1.jpg")
                member.size = 3
                archive.addfile(member, io.BytesIO(b"one"))
        monkeypatch.setattr(data, "_SOURCES", tuple(sources))
        return home

    return register


def test_datasets_get_fetches_and_says_where(fetchable, capsys):
    home = fetchable("ants", "bees", saved=["ants", "bees"])
    assert cli.main(["datasets"]) == 0
    assert capsys.readouterr().out.count("here: no; tlutils datasets get") == 2
    assert cli.main(["datasets", "get", "ants", "bees", "digits"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.splitlines() == [
        "ants: from http://127.0.0.1:1/ants.tar; licence: CC0",
        f"ants: checked, in {home / 'ants'}",
        "bees: from http://127.0.0.1:1/bees.tar; licence: CC0",
        f"bees: checked, in {home / 'bees'}",
        "digits: made or installed on this machine, nothing to fetch",
    ]
    assert (home / "ants" / "a" / "1.jpg").read_bytes() == b"one"
    assert cli.main(["datasets", "get", "ants"]) == 0
    assert capsys.readouterr().out == f"ants: checked, in {home / 'ants'}\n"
    assert cli.main(["datasets"]) == 0
    assert f"here: {home / 'ants'}\n" in capsys.readouterr().out


def test_datasets_get_goes_on_after_one_that_fails(fetchable, capsys):
    home = fetchable("ants", "bees", saved=["bees"])
    assert cli.main(["datasets", "get", "ants", "bees"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("tlutils: could not fetch http://127.0.0.1:1/ants.tar for the data set 'ants'")
    assert printed.err.count("\n") == 1 and "Traceback" not in printed.err
    assert (home / "bees").is_dir() and not (home / "ants").exists()


def test_datasets_get_of_an_unknown_name_lists_the_known_and_fetches_nothing(fetchable, capsys):
    home = fetchable("ants", saved=["ants"])
    assert cli.main(["datasets", "get", "ants", "wasps"]) == 2
    printed = capsys.readouterr()
    assert printed.err == "tlutils: no data set is called 'wasps'; there are digits, ants\n" and printed.out == ""
    assert not (home / "ants").exists()
    assert cli.main(["datasets", "get", "digit"]) == 2
    assert capsys.readouterr().err.endswith("did you mean 'digits'?\n")
    assert cli.main(["datasets", "get"]) == 2
    assert "NAME" in capsys.readouterr().err


def test_datasets_says_what_is_only_half_there(fetchable, capsys):
    home = fetchable("ants")
    (home / "ants").mkdir()
    assert cli.main(["datasets"]) == 0
    assert "it holds 0 files */*.jpg, expected 1" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["datasets", "get", "ants"]) == 1
    assert "Move it away or delete it" in capsys.readouterr().err


def test_backbones_are_listed(capsys):
    assert cli.main(["backbones"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert names == list(tlutils.backbones.available())


def test_doctor_finds_this_installation_well():
    found = command("doctor")
    assert found.returncode == 0, found.stdout
    lines = found.stdout.splitlines()
    assert all(line.split()[0] in ("ok", "warn") for line in lines)
    for word in ("Python", "TensorFlow", "Keras", "GPU", "KERAS_HOME", "ipywidgets", "papermill", "disk", "memory"):
        assert word in found.stdout


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ('raise ImportError("libcuda is broken")', "problem  TensorFlow does not load: ImportError: libcuda is broken"),
        ("""print('{"tensorflow": "2", "keras": "3", "gpus": ["a"]}')""", "ok       GPU: 1 seen"),
    ],
)
def test_doctor_says_what_it_found(monkeypatch, capsys, check, words):
    monkeypatch.setattr(cli, "_TENSORFLOW_CHECK", check)
    assert cli.main(["doctor"]) == (1 if "problem" in words else 0)
    assert words in capsys.readouterr().out


def test_doctor_says_how_to_mend_what_is_missing(monkeypatch, capsys, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "vgg16_weights.h5").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(cli.shutil, "which", lambda name: None)
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "problem  TensorFlow is not installed: pip install 'tlutils[tensorflow]'" in text
    assert "warn     papermill is not installed (tlutils run): pip install 'tlutils[run]'" in text
    assert "warn     pooch is not installed (fetching data sets): pip install 'tlutils[data]'" in text
    assert "1 weight files (vgg16_weights.h5)" in text


@pytest.mark.parametrize(("platform", "fix"), [("linux", "apt-get"), ("darwin", "PATH"), ("win32", "PATH")])
def test_the_advice_for_a_browser_fits_the_system(monkeypatch, platform, fix):
    monkeypatch.setattr(cli.shutil, "which", lambda name: None)
    monkeypatch.setattr(cli.sys, "platform", platform)
    level, text = cli._check_browser()
    assert level == "warn" and fix in text
    assert ("apt-get" in text) == (platform == "linux")
