"""Centred kernel alignment: how alike are two layers, whatever their widths and rotations?

Linear CKA of S. Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML
2019, section 3: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with Gram matrices K = X X', L = Y Y'. The
plain estimate of HSIC is biased: where a layer is wider than there are clips, unrelated layers look
alike. The debiased one (L. Song et al., "Feature Selection via Dependence Maximization", JMLR 2012,
equation 5; used for CKA by T. Nguyen et al., ICLR 2021) has expectation 0 there, so it is the
default of what is drawn. G. Elbanna et al. (2022), figure 3, compares layers of BYOL models so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from crykit.errors import InputError, UsageError

Array = NDArray[np.float64]

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.LSTM, nn.GRU)
_PASSIVE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.ReLU, nn.GELU)
_PASSIVE += (nn.MaxPool2d, nn.AvgPool2d, nn.Dropout)
LEAST_CLIPS = 4  # the debiased estimate divides by n (n - 3)


def gram(features: ArrayLike) -> Array:
    """X X' of features (n, ...), flattened after the first axis: (n, n)."""
    flat = np.asarray(features, dtype=np.float64)
    flat = flat.reshape(len(flat), -1)
    return flat @ flat.T


def hsic(k: Array, l: Array, *, debiased: bool = False) -> float:  # noqa: E741
    """Hilbert-Schmidt independence criterion of two Gram matrices (n, n), up to a constant.

    Plain: tr(K H L H) / (n - 1)^2. Debiased: the U-statistic of Song et al., equation 5.
    """
    n = len(k)
    if not debiased:
        centred = _centre(k)
        return float((centred * _centre(l)).sum()) / (n - 1) ** 2
    k, l = _hollow(k), _hollow(l)  # noqa: E741
    trace = float((k * l).sum())
    means = float(k.sum() * l.sum()) / ((n - 1) * (n - 2))
    cross = float(k.sum(0) @ l.sum(0)) * 2.0 / (n - 2)
    return (trace + means - cross) / (n * (n - 3))


def cka(k: Array, l: Array, *, debiased: bool = False) -> float:  # noqa: E741
    """CKA of two Gram matrices over the same clips, both (n, n).

    1 for representations that are equal but for a rotation and a scale. The debiased value is
    about 0 for unrelated ones and may fall a little below. nan where a layer is constant.

    Raises:
        InputError: Gram matrices of different clips, or fewer than four clips.
    """
    if k.shape != l.shape or k.ndim != 2 or len(k) != k.shape[1]:
        raise InputError(
            f"CKA needs two Gram matrices over the same clips; got {k.shape} and {l.shape}"
        )
    if len(k) < LEAST_CLIPS:
        raise InputError(f"CKA needs at least {LEAST_CLIPS} clips; got {len(k)}")
    own = hsic(k, k, debiased=debiased) * hsic(l, l, debiased=debiased)
    scale = float(np.abs(_centre(k)).max() * np.abs(_centre(l)).max())
    if own <= 1e-24 * scale**2 or scale == 0.0:
        return math.nan
    return hsic(k, l, debiased=debiased) / math.sqrt(own)


def linear_cka(x: ArrayLike, y: ArrayLike, *, debiased: bool = False) -> float:
    """`cka` of features (n, ...) and (n, ...) of the same n clips."""
    return cka(gram(x), gram(y), debiased=debiased)


class StreamingCka:
    """Linear CKA of two layers in one pass over batches of any size, without any Gram matrix.

    Keeps sums over clips, of sizes (p, q), (p, p) and (q, q) for layers p and q wide, so it suits
    narrow layers over any number of clips. What it gives is no average over batches: it is exactly
    what the Gram matrices of all clips give, debiased too, in whatever batches they came.
    """

    def __init__(self) -> None:
        self._pairs: dict[tuple[int, int], _PairSums] = {}

    def update(self, x: ArrayLike, y: ArrayLike) -> None:
        """Add a batch, (batch, p) and (batch, q)."""
        layers = [np.asarray(v, dtype=np.float64).reshape(len(v), -1) for v in (x, y)]  # pyright: ignore[reportArgumentType]
        if len(layers[0]) != len(layers[1]):
            raise InputError(
                f"CKA needs both layers of the same clips; got {len(layers[0])} "
                f"and {len(layers[1])}"
            )
        for pair in ((0, 0), (0, 1), (1, 1)):
            a, b = layers[pair[0]], layers[pair[1]]
            if pair not in self._pairs:
                self._pairs[pair] = _PairSums(a.shape[1], b.shape[1])
            self._pairs[pair].add(a, b)

    def value(self, *, debiased: bool = False) -> float:
        """CKA of everything added so far; nan where a layer is constant."""
        if not self._pairs or self._pairs[0, 1].n < LEAST_CLIPS:
            n = self._pairs[0, 1].n if self._pairs else 0
            raise InputError(f"CKA needs at least {LEAST_CLIPS} clips; got {n}")
        xx, xy, yy = (self._pairs[p].hsic(debiased) for p in ((0, 0), (0, 1), (1, 1)))
        return xy / math.sqrt(xx * yy) if xx * yy > 0.0 else math.nan


class _PairSums:
    """Sums from which HSIC of two linear kernels follows. Features count from the first clip seen:
    CKA does not see a shift, and sums of what is far from zero would lose digits."""

    def __init__(self, p: int, q: int) -> None:
        self.n = 0
        self.cross = np.zeros((p, q))  # sum of x y'
        self.x, self.y = np.zeros(p), np.zeros(q)
        self.x_by_y, self.y_by_x = np.zeros(p), np.zeros(q)  # sums of x |y|^2 and y |x|^2
        self.xx = self.yy = self.xxyy = 0.0  # sums of |x|^2, |y|^2, |x|^2 |y|^2

    def add(self, x: Array, y: Array) -> None:
        if self.n == 0:
            self.origin = x[0].copy(), y[0].copy()
        x, y = x - self.origin[0], y - self.origin[1]
        norms_x, norms_y = (x**2).sum(1), (y**2).sum(1)
        self.n += len(x)
        self.cross += x.T @ y
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.x_by_y += norms_y @ x
        self.y_by_x += norms_x @ y
        self.xx += norms_x.sum()
        self.yy += norms_y.sum()
        self.xxyy += norms_x @ norms_y

    def hsic(self, debiased: bool) -> float:
        n = self.n
        if not debiased:
            centred = self.cross - np.outer(self.x, self.y) / n
            return float((centred**2).sum()) / (n - 1) ** 2
        # The three terms of Song et al. with k_ij = x_i.x_j and no diagonal, each a sum over clips.
        trace = (self.cross**2).sum() - self.xxyy
        means = (self.x @ self.x - self.xx) * (self.y @ self.y - self.yy) / ((n - 1) * (n - 2))
        rows = (
            self.x @ self.cross @ self.y - self.x @ self.x_by_y - self.y @ self.y_by_x + self.xxyy
        )
        return float(trace + means - 2.0 * rows / (n - 2)) / (n * (n - 3))


# --- layers of an encoder ---------------------------------------------------------------------


def layer_names(module: nn.Module) -> tuple[str, ...]:
    """The layers worth comparing, in order: every convolution, linear and recurrent layer, and
    every larger block of a `nn.Sequential` or `nn.ModuleList` as one.

    A layer's features are taken after the normalisation, non-linearity and pooling that follow it
    in its `nn.Sequential`, since that is what the next layer reads.
    """
    names: list[str] = []
    holder = isinstance(module, nn.Sequential | nn.ModuleList)
    for name, child in module.named_children():
        if isinstance(child, _LAYERS):
            names.append(_read_by_next(module, name))
        elif holder and not isinstance(child, (nn.Sequential, nn.ModuleList, *_PASSIVE)):
            names += [name] if any(True for _ in child.parameters()) else []
        else:
            names += [f"{name}.{inner}" for inner in layer_names(child)]
    return tuple(dict.fromkeys(names))


def activations(
    module: nn.Module, inputs: Tensor, layers: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """What the named layers give for inputs (batch, ...), each (batch, features), by hooks.

    A recurrent layer's sequence is taken, without its states.

    Raises:
        UsageError: a layer that the module lacks; the choices are listed.
    """
    modules = dict(module.named_modules())
    unknown = [name for name in layers if name not in modules]
    if unknown:
        raise UsageError(
            f"no layer {unknown[0]!r}; the choices are {', '.join(filter(None, modules))}"
        )
    seen: dict[str, NDArray[np.float32]] = {}

    def keep(name: str):
        def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            value = output[0] if isinstance(output, tuple) else output
            seen[name] = value.detach().reshape(len(inputs), -1).float().cpu().numpy().copy()

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
    training = module.training
    try:
        module.eval()
        with torch.inference_mode():
            module(inputs)
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    return seen


def layer_grams(
    module: nn.Module, batches: Iterable[Tensor], layers: Sequence[str] | None = None
) -> dict[str, Array]:
    """Gram matrix (n, n) of every layer over all clips; how they are batched changes nothing.

    Every clip must be as long as the others. Holds all activations while it runs: clips x features
    x 4 bytes, some 60 MB for 300 clips of a layer 50,000 wide.

    Args:
        layers: names within the module, or "" for the module itself; without them, `layer_names`
            as far as the module runs them, and itself.

    Raises:
        UsageError: a layer asked for that the module lacks or does not run.
    """
    names = tuple(layers) if layers is not None else (*layer_names(module), "")
    kept: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for batch in batches:
        for name, value in activations(module, batch, names).items():
            kept[name].append(value)
    missing = [name for name, parts in kept.items() if not parts]
    if missing and layers is not None:
        raise UsageError(f"layer {missing[0]!r} was never run; leave it out")
    return {
        name: _gram_by_parts(np.concatenate(kept.pop(name)))
        for name in names
        if name not in missing
    }


def cka_matrix(
    a: Mapping[str, Array], b: Mapping[str, Array], *, debiased: bool = True
) -> NDArray[np.float64]:
    """CKA of each layer of one model with each of another, (layers of a, layers of b)."""
    return np.array([[cka(k, l, debiased=debiased) for l in b.values()] for k in a.values()])  # noqa: E741


def _gram_by_parts(features: NDArray[np.float32], width: int = 8192) -> Array:
    """`gram` without a copy of all features in double precision. They are centred first."""
    total = np.zeros((len(features), len(features)))
    for start in range(0, features.shape[1], width):
        part = features[:, start : start + width].astype(np.float64)
        part -= part.mean(0)
        total += part @ part.T
    return total


def _centre(k: Array) -> Array:
    means = k.mean(0)
    return k - means - means[:, None] + means.mean()


def _hollow(k: Array) -> Array:
    hollow = k.copy()
    np.fill_diagonal(hollow, 0.0)
    return hollow


def _read_by_next(parent: nn.Module, name: str) -> str:
    """The last norm, non-linearity or pooling that follows a layer in its `nn.Sequential`."""
    if not isinstance(parent, nn.Sequential):
        return name
    members = list(parent.named_children())
    index = [key for key, _ in members].index(name)
    while index + 1 < len(members) and isinstance(members[index + 1][1], _PASSIVE):
        index += 1
    return members[index][0]
