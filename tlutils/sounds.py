"""Recordings of speech as pictures: log-mel spectrograms, computed from wav files.

Time runs to the right and frequency upwards, as spectrograms are usually drawn. A pixel is the energy in one frame and
one band, in decibels below the loudest pixel of the recording. How loud somebody spoke, or how near to the microphone,
is therefore not in the picture.
"""

import wave
from functools import cache

import numpy as np

from tlutils.notes import DataError

RATE = 8000  # samples a second
SECONDS = 1.0  # of each recording that are looked at, from its start
FRAME = 256  # samples under one Hann window: 32 ms
HOP = 64  # samples from one frame to the next: 8 ms
BANDS = 64  # mel bands, rows of the picture
FREQUENCIES = (50, 4000)  # hertz, the lowest and the highest edge of the bands
RANGE = 60  # decibels from white to black
_FFT = 512  # zero-padded, so that the lowest bands, 22 Hz apart, hold a frequency each


def read_wav(path):
    """The samples of a recording: float64 in [−1, 1), shape (N,).

    Raises:
        DataError: The file is no wav file or a part of one, or not mono with 16 bits and 8,000 samples a second.
    """
    try:
        with wave.open(str(path), "rb") as file:
            found = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            samples = file.readframes(file.getnframes())
            if 8 * len(samples) < file.getnframes() * found[0] * found[1]:
                raise EOFError("it breaks off")
    except (wave.Error, EOFError, OSError) as error:
        raise DataError(f"cannot read {path} as a wav file ({error}): fetch it again") from error
    if found != (1, 16, RATE):
        raise DataError(
            f"{path} has {found[0]} channels with {found[1]} bits and {found[2]:,} samples a second; wanted are 1, 16 "
            f"and {RATE:,}: convert it first"
        )
    return np.frombuffer(samples, "<i2") / 32768


def spectrogram(samples):
    """The log-mel spectrogram of a recording with 8,000 samples a second, as a picture.

    The first second counts; what is missing from it is black. Frames are 32 ms long, 8 ms apart and weighted with a
    Hann window. Their power spectra are summed up in 64 triangular bands between 50 and 4,000 Hz, equally spaced on the
    mel scale of O'Shaughnessy (1987), 2595 log₁₀(1 + f / 700). 255 is the loudest pixel, 0 is 60 dB below it or less.

    Args:
        samples: Shape (N,), any scale.

    Returns:
        uint8, shape (64, 125): the highest band first, the first frame left. All 0 for silence.
    """
    from scipy import fft, signal

    count = round(RATE * SECONDS)
    samples = np.asarray(samples, float)[:count]
    samples = np.pad(samples, (FRAME // 2, FRAME // 2 + count - len(samples)))  # a frame lies around its point in time
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[:count:HOP]
    spectra = fft.rfft(frames * signal.windows.hann(FRAME, sym=False), _FFT)
    power = _filters() @ (spectra.real**2 + spectra.imag**2).T
    if not power.max() > 0:
        return np.zeros(power.shape, np.uint8)
    with np.errstate(divide="ignore"):
        decibels = 10 * np.log10(power / power.max())
    return np.rint(255 * np.clip(1 + decibels / RANGE, 0, 1)).astype(np.uint8)[::-1]


def mel(frequency):
    """Hertz on the mel scale."""
    return 2595 * np.log10(1 + np.asarray(frequency) / 700)


def band_centres():
    """The frequency in hertz at which each band, from the lowest to the highest, is most sensitive: shape (64,)."""
    return _edges()[1:-1]


def _edges():
    """The frequencies where bands begin, peak and end: shape (BANDS + 2,)."""
    return 700 * (10 ** (np.linspace(*mel(FREQUENCIES), BANDS + 2) / 2595) - 1)


@cache
def _filters():
    """The bands as weights of the frequencies of a spectrum, each with its peak at 1: shape (BANDS, _FFT // 2 + 1).

    Sparse, because a band covers few frequencies, and a dense product this small would mostly wait for threads.
    """
    from scipy import sparse

    low, peak, high = (_edges()[i : i + BANDS, None] for i in range(3))
    frequencies = np.fft.rfftfreq(_FFT, 1 / RATE)
    rising, falling = (frequencies - low) / (peak - low), (high - frequencies) / (high - peak)
    return sparse.csr_array(np.clip(np.minimum(rising, falling), 0, None))
