"""CKA: invariances that define it, against plain Gram matrices, in batches, and on layers."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from crykit.errors import InputError, UsageError  # noqa: E402
from crykit_train.understand.cka import (  # noqa: E402
    StreamingCka,
    activations,
    cka_matrix,
    gram,
    hsic,
    layer_grams,
    layer_names,
    linear_cka,
)

pytestmark = pytest.mark.torch

N = 40


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((N, 12)) @ rng.standard_normal((12, 12)) + 5.0


@pytest.fixture
def y(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Partly a function of x."""
    return np.tanh(x[:, :7]) + 0.5 * rng.standard_normal((N, 7))


def plain_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Kornblith et al., with H written out."""
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n
    k, l = x @ x.T, y @ y.T  # noqa: E741

    def criterion(a: np.ndarray, b: np.ndarray) -> float:
        return np.trace(a @ centring @ b @ centring) / (n - 1) ** 2

    return criterion(k, l) / math.sqrt(criterion(k, k) * criterion(l, l))


def slow_debiased_hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Song et al., by sums over distinct pairs, triples and quadruples of clips."""
    n = len(k)
    every = range(n)
    pairs = sum(k[i, j] * l[i, j] for i in every for j in every if i != j)
    triples = sum(
        k[i, j] * l[i, q] for i in every for j in every for q in every if len({i, j, q}) == 3
    )
    quadruples = sum(
        k[i, j] * l[q, r]
        for i in every
        for j in every
        for q in every
        for r in every
        if len({i, j, q, r}) == 4
    )
    return (
        pairs / (n * (n - 1))
        - 2 * triples / (n * (n - 1) * (n - 2))
        + quadruples / (n * (n - 1) * (n - 2) * (n - 3))
    )


def test_is_what_plain_gram_matrices_give(x: np.ndarray, y: np.ndarray) -> None:
    assert linear_cka(x, y) == pytest.approx(plain_cka(x, y), rel=1e-12)


def test_a_closed_form_by_singular_values(x: np.ndarray, y: np.ndarray) -> None:
    """Kornblith et al., section 3: |Y'X|_F^2 / (|X'X|_F |Y'Y|_F), centred."""
    a, b = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(b.T @ a) ** 2
    expected /= np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-12)


def test_debiased_hsic_is_the_u_statistic_over_distinct_clips(rng: np.random.Generator) -> None:
    k, l = (gram(rng.standard_normal((7, 3)) + 2.0) for _ in range(2))  # noqa: E741
    assert hsic(k, l, debiased=True) == pytest.approx(slow_debiased_hsic(k, l), rel=1e-9)


@pytest.mark.parametrize("debiased", [False, True])
def test_sees_neither_rotation_nor_scale_nor_shift(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, debiased: bool
) -> None:
    rotation, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    moved = 3.7 * x @ rotation - 11.0
    assert linear_cka(moved, y, debiased=debiased) == pytest.approx(
        linear_cka(x, y, debiased=debiased), abs=1e-10
    )
    assert linear_cka(moved, x, debiased=debiased) == pytest.approx(1.0, abs=1e-10)


def test_sees_an_invertible_map_that_is_no_rotation(
    x: np.ndarray, rng: np.random.Generator
) -> None:
    stretched = x @ np.diag(10.0 ** np.linspace(-3, 0, 12))
    assert linear_cka(stretched, x) < 0.9


@pytest.mark.parametrize("debiased", [False, True])
def test_is_one_for_itself_and_symmetric(x: np.ndarray, y: np.ndarray, debiased: bool) -> None:
    assert linear_cka(x, x, debiased=debiased) == pytest.approx(1.0, abs=1e-12)
    assert linear_cka(x, y, debiased=debiased) == pytest.approx(
        linear_cka(y, x, debiased=debiased), abs=1e-12
    )


def test_only_the_debiased_one_is_low_for_wide_independent_layers(
    rng: np.random.Generator,
) -> None:
    a, b = rng.standard_normal((2, N, 2000))
    assert linear_cka(a, b) > 0.9  # why the plain one must not be drawn for wide layers
    assert abs(linear_cka(a, b, debiased=True)) < 0.05


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("batch", [1, 7, N])
def test_batches_give_exactly_what_all_clips_give(
    x: np.ndarray, y: np.ndarray, batch: int, debiased: bool
) -> None:
    stream = StreamingCka()
    for start in range(0, N, batch):
        stream.update(x[start : start + batch] + 1e3, y[start : start + batch])
    assert stream.value(debiased=debiased) == pytest.approx(
        linear_cka(x, y, debiased=debiased), rel=1e-9
    )


def test_refuses_other_clips_and_too_few() -> None:
    with pytest.raises(InputError, match="the same clips"):
        linear_cka(np.ones((5, 2)), np.ones((6, 2)))
    with pytest.raises(InputError, match="at least 4 clips; got 3"):
        linear_cka(np.eye(3), np.eye(3))
    with pytest.raises(InputError, match="same clips"):
        StreamingCka().update(np.ones((5, 2)), np.ones((4, 2)))
    with pytest.raises(InputError, match="got 0"):
        StreamingCka().value()


def test_a_constant_layer_has_no_alignment(x: np.ndarray) -> None:
    assert math.isnan(linear_cka(np.full((N, 3), 2.0), x))


# --- layers -----------------------------------------------------------------------------------


class Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3, padding=1),
            torch.nn.BatchNorm2d(4),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
        )
        self.recurrent = torch.nn.LSTM(16, 5, batch_first=True)
        self.head = torch.nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        y, _ = self.recurrent(y.permute(0, 3, 1, 2).flatten(2))
        return self.head(y)


@pytest.fixture
def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


def test_layers_are_taken_as_the_next_one_reads_them(tiny: Tiny) -> None:
    assert layer_names(tiny) == ("features.3", "recurrent", "head")
    inputs = torch.randn(6, 1, 8, 10)
    seen = activations(tiny, inputs, layer_names(tiny))
    with torch.inference_mode():
        expected = tiny.eval().features(inputs).flatten(1)
    np.testing.assert_allclose(seen["features.3"], expected.numpy(), atol=1e-6)
    assert seen["recurrent"].shape == (6, 5 * 5)


def test_hooks_are_gone_afterwards_and_the_mode_is_kept(tiny: Tiny) -> None:
    tiny.train()
    activations(tiny, torch.randn(2, 1, 8, 10), ("head",))
    assert tiny.training
    assert all(not m._forward_hooks for m in tiny.modules())


def test_an_unknown_layer_lists_the_choices(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="no layer 'neck'.*features.0.*head"):
        activations(tiny, torch.randn(2, 1, 8, 10), ("neck",))


def test_blocks_of_a_list_are_layers_and_what_is_never_run_is_left_out() -> None:
    class Blocks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(2))
            self.spare = torch.nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks[1](self.blocks[0](x).relu())

    module, inputs = Blocks(), torch.randn(5, 6)
    assert layer_names(module) == ("blocks.0", "blocks.1", "spare")
    assert list(layer_grams(module, [inputs])) == ["blocks.0", "blocks.1", ""]
    with pytest.raises(UsageError, match="'spare' was never run"):
        layer_grams(module, [inputs], ["spare"])


def test_grams_do_not_depend_on_the_batches(tiny: Tiny) -> None:
    inputs = torch.randn(11, 1, 8, 10)
    whole = layer_grams(tiny, [inputs])
    parts = layer_grams(tiny, inputs.split(3))
    for name, expected in whole.items():
        np.testing.assert_allclose(parts[name], expected, atol=1e-4)


def test_a_model_against_itself_is_one_on_the_diagonal_and_another_is_less(tiny: Tiny) -> None:
    torch.manual_seed(1)
    other, inputs = Tiny(), [torch.randn(30, 1, 8, 10)]
    a, b = layer_grams(tiny, inputs), layer_grams(other, inputs)
    own, across = cka_matrix(a, a), cka_matrix(a, b)
    np.testing.assert_allclose(np.diag(own), 1.0, atol=1e-9)
    assert across.shape == (4, 4)  # three layers, and the module itself, which is the last
    np.testing.assert_allclose(across[2], across[3])
    assert (np.diag(across) < 0.999).all()
    direct = linear_cka(
        activations(tiny, inputs[0], ("head",))["head"],
        activations(other, inputs[0], ("head",))["head"],
        debiased=True,
    )
    assert across[2, 2] == pytest.approx(direct, abs=1e-6)
