"""Figures you can move: a slider over pictures drawn beforehand, alive in a rendered page with no kernel behind it.

A browser cannot run Python, so every position of the slider is drawn when the notebook runs and stored with it. The
slider and the pictures are linked in JavaScript (``jslink``); ``interact``, ``observe`` and ``Output`` would be dead
without a kernel.
"""

import io

import ipywidgets as widgets
import traitlets
from PIL import Image, features

DPI = 144
"""Dots per inch of an encoded figure: sharp on a phone, 7 to 40 kB a frame as WebP."""

QUALITY = 80
"""WebP quality of an encoded figure."""


class _Picture(widgets.Image):
    """An image that may have a tooltip: ipywidgets 8.1 fails in the browser on a tooltip without a description."""

    description = traitlets.Unicode("").tag(sync=True)
    tooltip = traitlets.Unicode(None, allow_none=True).tag(sync=True)  # ipywidgets 7 has none


class _StackOfSeven(widgets.VBox):
    """``Stack`` for ipywidgets 7, which knows none and which Colab has: of all pictures one is shown.

    The kernel changes it, not the browser; while a notebook is open on Colab there is a kernel.
    """

    selected_index = traitlets.Int(-1)

    def __init__(self, children, selected_index):
        super().__init__(children)
        for child in children:
            child.layout = widgets.Layout(width="100%", display="none")
        self.selected_index = selected_index

    @traitlets.observe("selected_index")
    def _show(self, change):
        for number, child in enumerate(self.children):
            child.layout.display = None if number == change.new else "none"


_Stack, _link = (widgets.Stack, widgets.jslink) if hasattr(widgets, "Stack") else (_StackOfSeven, widgets.link)


class LiveFigure(widgets.VBox):
    """A slider above a picture. Make one with :func:`picture_slider`.

    Where no widget can be shown (GitHub, LaTeX, PDF, e-mail) the notebook output holds the picture of the starting
    position as a PNG. ``repr`` depends on the slider alone, never on widget ids, so two runs print the same.
    """

    def __init__(self, slider, stack, *, play=None, **kwargs):
        row = widgets.HBox([play, slider] if play else [slider])
        super().__init__([row, stack], **kwargs)
        self.add_class("tl-live")
        self.slider = slider
        self.stack = stack

    @property
    def frames(self):
        """The encoded pictures, in the order of the slider (list of bytes)."""
        return [bytes(image.value) for image in self.stack.children]

    def __repr__(self):
        options = getattr(self.slider, "options", None)
        positions = ", ".join(options) if options else f"{self.slider.min}–{self.slider.max}"
        return f"LiveFigure({self.slider.description}: {positions})"

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        bundle["text/plain"] = repr(self)
        bundle["image/png"] = _as_png(self.frames[self.stack.selected_index])
        return bundle


def picture_slider(frames, labels=None, description="step", play=False, value=0, alt=None):
    """Show one picture at a time, chosen by a slider; works without a kernel and without a network.

    Give every frame the same size and the same axes, so that only what the slider changes moves.

    Args:
        frames: Matplotlib figures (encoded here and closed) or encoded pictures (bytes of a PNG, WebP, JPEG or GIF),
            at least two; a generator is drawn one frame at a time.
        labels: What the slider reads at each frame; its numbers 0, 1, 2… by default.
        description: What the slider changes, such as ``"labels per class"``.
        play: Add a play button that runs through the frames.
        value: Index of the frame shown first.
        alt: What the picture shows, for readers who cannot see it: one text, to which the slider's position is added,
            or one a frame. ``description`` by default.

    Returns:
        LiveFigure: The slider above the picture; the value of a notebook cell.

    Raises:
        TypeError: A frame is neither a figure nor bytes.
        ValueError: Fewer than two frames; ``labels`` or ``alt`` of another length; ``value`` is no frame; bytes that
            are no picture.
    """
    frames = [_encode(frame, number) for number, frame in enumerate(frames)]
    count = len(frames)
    if count < 2:
        raise ValueError(f"a slider needs at least two frames, got {count}; show a single figure as it is")
    if labels is not None:
        labels = [str(label) for label in labels]
        if len(labels) != count:
            raise ValueError(f"{len(labels)} labels for {count} frames; give one label a frame")
    if not 0 <= value < count:
        raise ValueError(f"value {value} is no frame; the {count} frames are numbered 0 to {count - 1}")
    descriptions = _alt_texts(alt, description, labels or range(count), count)

    # One Layout for all: each frame would otherwise carry a kilobyte of its own.
    layout = widgets.Layout(width="100%")
    images = [
        _Picture(value=data, format=kind, layout=layout, tooltip=text)
        for (data, kind), text in zip(frames, descriptions, strict=True)
    ]
    stack = _Stack(images, selected_index=value)
    look = {"description": description, "layout": layout, "style": {"description_width": "initial"}}
    if labels is None:
        slider, trait = widgets.IntSlider(value=value, min=0, max=count - 1, **look), "value"
    else:
        slider, trait = widgets.SelectionSlider(options=labels, index=value, **look), "index"
    _link((slider, trait), (stack, "selected_index"))
    button = None
    if play:
        button = widgets.Play(value=value, min=0, max=count - 1, interval=600, tooltip=f"Run through {description}")
        widgets.jslink((button, "value"), (slider, trait))
    return LiveFigure(slider, stack, play=button)


def _encode(frame, number):
    """Return ``(bytes, format)`` of a figure or of an encoded picture."""
    if isinstance(frame, bytes | bytearray | memoryview):
        data = bytes(frame)
        try:
            with Image.open(io.BytesIO(data)) as picture:
                return data, picture.format.lower()
        except OSError as error:
            raise ValueError(f"frame {number} is no picture that Pillow can read ({len(data)} bytes)") from error
    if not hasattr(frame, "savefig"):
        raise TypeError(
            f"frame {number} is a {type(frame).__name__}; give a matplotlib Figure or the bytes of a picture"
        )
    from matplotlib import pyplot

    buffer = io.BytesIO()
    # Pillow without libwebp is rare (some minimal Linux builds); PNG is larger but everywhere.
    kind = "webp" if features.check("webp") else "png"
    options = {"pil_kwargs": {"quality": QUALITY, "method": 6}} if kind == "webp" else {}
    frame.savefig(buffer, format=kind, dpi=DPI, **options)
    pyplot.close(frame)
    return buffer.getvalue(), kind


def _as_png(data):
    """Return an encoded picture as the bytes of a PNG, with 256 colours: a stand-in, so kept small."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        picture.convert("RGB").quantize(256).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _alt_texts(alt, description, labels, count):
    """Return one text a frame for readers who cannot see the picture."""
    if alt is None or isinstance(alt, str):
        lead = f"{alt.rstrip('. ')}; " if alt else ""
        return [f"{lead}{description}: {label}" for label in labels]
    alt = [str(text) for text in alt]
    if len(alt) != count:
        raise ValueError(f"{len(alt)} alt texts for {count} frames; give one text, or one a frame")
    return alt
