"""Spectrograms against sounds whose frequencies are known, and against SciPy's own short-time Fourier transform."""

import wave

import numpy as np
import pytest
from scipy import signal

from tlutils import sounds
from tlutils.data import DataError


def sine(frequency, seconds=1.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * sounds.RATE)) / sounds.RATE)


def write(path, samples, rate=sounds.RATE, channels=1, width=2):
    """A wav file of samples in [−1, 1)."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.round(np.asarray(samples) * 32768).astype("<i2").tobytes())
    return path


def row(frequency):
    """The row of the picture, counted from the top, whose band peaks nearest to a frequency, by the formula alone."""
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (50, 4000))
    step = (high - low) / 65
    return 63 - round((2595 * np.log10(1 + frequency / 700) - low) / step - 1)


@pytest.mark.parametrize("frequency", [100, 250, 440, 1000, 2000, 3500])
def test_a_sine_is_brightest_in_the_row_of_its_frequency(frequency):
    picture = sounds.spectrogram(sine(frequency))
    assert (picture.shape, picture.dtype) == ((64, 125), np.uint8)
    middle = picture[:, 10:-10].astype(int)
    assert (np.abs(middle.argmax(axis=0) - row(frequency)) <= 1).all()
    assert picture.max() == 255 and middle.max(axis=0).min() > 240
    far = np.abs(np.arange(64) - row(frequency)) > 12
    assert middle[far].max() < 64


def test_a_rising_tone_rises_in_the_picture():
    time = np.arange(sounds.RATE) / sounds.RATE
    rows = sounds.spectrogram(signal.chirp(time, 200, 1, 3000)).argmax(axis=0)
    assert (np.diff(rows[5:-5]) <= 0).all() and rows[5] > 45 and rows[-5] < 15


def test_bands_are_equally_far_apart_on_the_mel_scale():
    steps = np.diff(sounds.mel([50, *sounds.band_centres(), 4000]))
    np.testing.assert_allclose(steps, steps[0])
    np.testing.assert_allclose(sounds.mel(1000), 1000, atol=0.1)  # what the scale was made for


def test_the_picture_is_that_of_scipys_transform():
    samples = np.random.default_rng(0).normal(size=8000)
    window = signal.windows.hann(256, sym=False)
    power = signal.ShortTimeFFT(window, 64, 8000, mfft=512, scale_to=None).spectrogram(samples, p0=0, p1=125)
    frequencies = np.arange(257) * 8000 / 512
    edges = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([50, 4000]) / 700)), 66) / 2595) - 1)
    bands = np.stack([np.interp(frequencies, edges[i : i + 3], [0, 1, 0]) for i in range(64)]) @ power
    wanted = 255 * (1 + np.clip(10 * np.log10(bands / bands.max()), -60, 0) / 60)
    assert np.abs(sounds.spectrogram(samples)[::-1] - wanted).max() <= 0.5 + 1e-6


def test_the_range_is_60_decibels():
    loud, quiet = sine(500, 0.5), sine(500, 0.5, amplitude=0.5 * 10 ** (-30 / 20))
    picture = sounds.spectrogram(np.concatenate([loud, quiet]))
    steps = picture.max(axis=0)[[30, 95]].astype(float)
    assert abs(steps[0] - steps[1] - 255 * 30 / 60) <= 2
    silent = sounds.spectrogram(np.concatenate([loud, quiet * 10 ** (-35 / 20)]))  # 65 dB down
    assert silent[:, 80:].max() == 0


def test_how_loud_it_is_does_not_matter():
    samples = np.random.default_rng(1).normal(size=5000)
    assert np.array_equal(sounds.spectrogram(samples), sounds.spectrogram(samples / 1024))


def test_short_ones_end_in_black_and_of_long_ones_the_first_second_counts():
    samples = np.random.default_rng(2).normal(size=16000)
    short = sounds.spectrogram(samples[:4000])
    assert short[:, :60].min(axis=0).max() > 0 and not short[:, 66:].any()
    assert np.array_equal(sounds.spectrogram(samples), sounds.spectrogram(samples[:8000]))
    assert not sounds.spectrogram(np.zeros(800)).any() and not sounds.spectrogram([]).any()


def test_a_recording_is_read_as_it_was_written(tmp_path):
    samples = np.array([0, 0.5, -1, 32767 / 32768])
    assert np.array_equal(sounds.read_wav(write(tmp_path / "a.wav", samples)), samples)


def test_other_recordings_are_refused(tmp_path):
    for options, words in (
        ({"rate": 16000}, "1 channels with 16 bits and 16,000 samples"),
        ({"channels": 2}, "2 channels with 16 bits and 8,000"),
        ({"width": 1}, "1 channels with 8 bits"),
    ):
        with pytest.raises(DataError, match=words):
            sounds.read_wav(write(tmp_path / "other.wav", np.zeros(800), **options))
    (tmp_path / "text.wav").write_bytes(b"no sound at all")
    whole = write(tmp_path / "whole.wav", np.zeros(800)).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[:1001])  # within a sample
    for name in ("text.wav", "missing.wav", "cut.wav"):
        with pytest.raises(DataError, match=f"cannot read .*{name}"):
            sounds.read_wav(tmp_path / name)
