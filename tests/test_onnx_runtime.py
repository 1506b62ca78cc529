"""ONNX Runtime reads and writes two buffers in turn, and nobody can tell."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from crykit.bundle import Bundle
from crykit.runtime import Runtime, open_runtime

STEP = 2560


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Runtime:
    return open_runtime(bundle, "onnx")


def hear(model: Runtime, samples: np.ndarray, state: object) -> tuple[np.ndarray, object]:
    probabilities: list[np.ndarray] = []
    for start in range(0, len(samples), STEP):
        output, state = model.step(samples[start : start + STEP], state)
        probabilities.append(output.cry_probability)
    return np.concatenate(probabilities), state


def test_every_state_that_is_kept_can_be_resumed_from(model: Runtime, cry: np.ndarray) -> None:
    state, states, expected = model.initial_state(), [], []
    for start in range(0, 12 * STEP, STEP):
        states.append(state)
        output, state = model.step(cry[start : start + STEP], state)
        expected.append(output.cry_probability)
    for index in (3, 11, 0, 3, 7, 8, 8):
        output, _ = model.step(cry[index * STEP : (index + 1) * STEP], states[index])
        np.testing.assert_array_equal(output.cry_probability, expected[index])


def test_streams_can_take_turns(model: Runtime, cry: np.ndarray) -> None:
    other = cry[::-1].copy()
    alone = [hear(model, x[: 10 * STEP], model.initial_state())[0] for x in (cry, other)]
    states = [model.initial_state(), model.initial_state()]
    heard: list[list[np.ndarray]] = [[], []]
    for start in range(0, 10 * STEP, STEP):
        for i, x in enumerate((cry, other)):
            output, states[i] = model.step(x[start : start + STEP], states[i])
            heard[i].append(output.cry_probability)
    for together, expected in zip(heard, alone, strict=True):
        np.testing.assert_array_equal(np.concatenate(together), expected)


def test_threads_can_share_a_model(model: Runtime, cry: np.ndarray) -> None:
    sounds = [np.roll(cry, 5000 * i)[: 30 * STEP] for i in range(3)]
    alone = [hear(model, sound, model.initial_state())[0] for sound in sounds]
    together: list[np.ndarray | None] = [None] * len(sounds)

    def listen(i: int) -> None:
        together[i], _ = hear(model, sounds[i], model.initial_state())

    threads = [threading.Thread(target=listen, args=(i,)) for i in range(len(sounds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_goes_on_in_another_runtime_of_the_same_model(
    bundle: Bundle, model: Runtime, cry: np.ndarray
) -> None:
    _, state = hear(model, cry[: 4 * STEP], model.initial_state())
    expected, _ = model.step(cry[4 * STEP : 5 * STEP], state)
    output, _ = open_runtime(bundle, "onnx").step(cry[4 * STEP : 5 * STEP], state)
    np.testing.assert_array_equal(output.cry_probability, expected.cry_probability)


def test_a_step_of_another_length_is_refused(model: Runtime, cry: np.ndarray) -> None:
    with pytest.raises(ValueError):
        model.step(cry[: STEP // 2], model.initial_state())
