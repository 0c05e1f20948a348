"""Kernel-less sliders: what a static page needs is in the widget state, and nothing else is needed."""

import io
import subprocess
import sys

import numpy as np
import pytest
from ipywidgets.embed import dependency_state
from matplotlib.figure import Figure
from PIL import Image

from tlutils import explore


def figure(level):
    fig = Figure(figsize=(3, 2))
    fig.add_subplot().plot([0, 1], [level, level])
    return fig


def png(color, size=(4, 3)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, format="png")
    return buffer.getvalue()


@pytest.fixture
def live():
    return explore.picture_slider(
        [png("red"), png("green"), png("blue")], labels=[1, 5, 10], description="labels", value=1
    )


def test_figures_become_sharp_pictures_of_one_size():
    live = explore.picture_slider(figure(level) for level in range(3))
    pictures = [Image.open(io.BytesIO(data)) for data in live.frames]
    assert {picture.size for picture in pictures} == {(3 * 144, 2 * 144)}
    assert {image.format for image in live.stack.children} <= {"webp", "png"}
    assert np.asarray(pictures[0].convert("L")).std() > 0
    assert live.frames[0] != live.frames[2]


def test_png_where_pillow_has_no_webp(monkeypatch):
    monkeypatch.setattr(explore.features, "check", lambda feature: False)
    live = explore.picture_slider([figure(0), figure(1)])
    assert all(data.startswith(b"\x89PNG") for data in live.frames)


def test_bytes_are_kept_as_they_are(live):
    assert live.frames == [png("red"), png("green"), png("blue")]
    assert [image.format for image in live.stack.children] == ["png"] * 3


def test_slider_and_picture_are_linked_in_the_browser(live):
    """The saved state holds a link slider → stack between standard models that any widget manager knows."""
    state = dependency_state([live])
    models = {key: model["model_name"] for key, model in state.items()}
    assert models[live.model_id] == "VBoxModel"
    assert {"SelectionSliderModel", "StackModel", "ImageModel"} <= set(models.values())
    links = [model["state"] for model in state.values() if model["model_name"] == "LinkModel"]
    ends = {tuple(end[1] for end in (link["source"], link["target"])) for link in links}
    assert ends == {("index", "selected_index")}
    assert len({image.layout.model_id for image in live.stack.children}) == 1


def test_moving_the_slider_in_a_kernel_is_not_needed_for_the_first_picture(live):
    assert (live.slider.index, live.stack.selected_index) == (1, 1)


def test_play_drives_the_slider():
    live = explore.picture_slider([png("red"), png("blue")], play=True)
    names = [model["model_name"] for model in dependency_state([live]).values()]
    assert names.count("LinkModel") == 2 and "PlayModel" in names


def test_a_page_without_widgets_shows_the_starting_picture(live):
    bundle = live._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == live.model_id
    picture = Image.open(io.BytesIO(bundle["image/png"])).convert("RGB")
    assert picture.size == (4, 3)
    assert picture.getpixel((0, 0)) == (0, 128, 0)  # green: the frame at value=1


def test_repr_is_the_same_in_every_run(live):
    again = explore.picture_slider([png("red")] * 3, labels=[1, 5, 10], description="labels")
    assert repr(live) == repr(again) == "LiveFigure(labels: 1, 5, 10)"
    assert live._repr_mimebundle_()["text/plain"] == repr(live)
    assert repr(explore.picture_slider([png("red")] * 3)) == "LiveFigure(step: 0–2)"


def test_alt_text_says_what_and_where():
    frames = [png("red"), png("blue")]
    one = explore.picture_slider(frames, labels=["a", "b"], description="letter", alt="A confusion matrix.")
    assert [image.tooltip for image in one.stack.children] == [
        "A confusion matrix; letter: a",
        "A confusion matrix; letter: b",
    ]
    each = explore.picture_slider(frames, alt=["first", "second"])
    assert [image.tooltip for image in each.stack.children] == ["first", "second"]


@pytest.mark.parametrize(
    ("frames", "options", "error", "message"),
    [
        ([], {}, ValueError, "at least two frames, got 0"),
        ([png("red")], {}, ValueError, "at least two frames, got 1"),
        ([png("red")] * 2, {"labels": ["a"]}, ValueError, "1 labels for 2 frames"),
        ([png("red")] * 2, {"alt": ["a"]}, ValueError, "1 alt texts for 2 frames"),
        ([png("red")] * 2, {"value": 2}, ValueError, "value 2 is no frame"),
        ([png("red"), b"no picture"], {}, ValueError, "frame 1 is no picture"),
        ([png("red"), "picture.png"], {}, TypeError, "frame 1 is a str"),
    ],
)
def test_wrong_arguments_are_named(frames, options, error, message):
    with pytest.raises(error, match=message):
        explore.picture_slider(frames, **options)


def test_figures_are_closed():
    from matplotlib import pyplot

    before = set(pyplot.get_fignums())
    explore.picture_slider([pyplot.subplots()[0], pyplot.subplots()[0]])
    assert set(pyplot.get_fignums()) == before


def test_importing_does_not_load_tensorflow():
    code = "import sys, tlutils.explore; print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
