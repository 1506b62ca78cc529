"""Embeddings in two dimensions, to look at: t-SNE (L. van der Maaten and G. Hinton, 2008).

As M. Ogg (2025), figure 2, draws them: each data set alone, coloured by class and by pitch. Axes
and distances between clusters mean nothing, neighbourhoods do; `neighbours_agree` puts a number on
what the picture shows, measured before the projection.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crykit.errors import InputError

LEAST_CLIPS = 10
PERPLEXITY = 30.0
PRINCIPAL = 50  # dimensions that t-SNE starts from, as its authors advise
NEIGHBOURS = 5


def project(
    embeddings: ArrayLike, *, perplexity: float = PERPLEXITY, seed: int = 0
) -> NDArray[np.float32]:
    """Places (n, 2) of embeddings (n, size); the same for the same seed.

    Each dimension is standardised, then the 50 first principal components are projected. With few
    clips the perplexity is lowered to a third of them.

    Raises:
        InputError: fewer than ten clips, or embeddings that are not finite.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    values = _checked(embeddings)
    scaled = StandardScaler().fit_transform(values)
    parts = min(PRINCIPAL, *scaled.shape)
    reduced = PCA(parts, random_state=seed).fit_transform(scaled)
    fitted = TSNE(
        2, perplexity=min(perplexity, (len(values) - 1) / 3), init="pca", random_state=seed
    )
    return np.asarray(fitted.fit_transform(reduced), np.float32)


def neighbours_agree(
    embeddings: ArrayLike,
    labels: Sequence[str],
    groups: Sequence[str] | None = None,
    k: int = NEIGHBOURS,
) -> tuple[float, float]:
    """Share of each clip's ``k`` nearest (cosine) that bear its label, and what chance gives.

    Args:
        groups: clips of a clip's own group do not count as its neighbours: that two takes of one
            recording lie together says nothing of the class.

    Returns:
        Means over classes, so that a frequent class does not decide: (found, chance).
    """
    values = _checked(embeddings)
    values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    likeness = values @ values.T
    own = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    other = own[:, None] != own[None]
    likeness[~other] = -np.inf
    names = np.asarray(labels)
    same = names[:, None] == names[None]
    usable = other.sum(1) >= k
    if not usable.any():
        raise InputError(f"t-SNE: no clip has {k} neighbours of other groups; give more groups")
    nearest = np.argpartition(-likeness, k - 1, axis=1)[:, :k]
    found = np.take_along_axis(same, nearest, 1).mean(1)
    chance = (same & other).sum(1) / np.maximum(other.sum(1), 1)
    classes = [usable & (names == name) for name in np.unique(names)]
    present = [mask for mask in classes if mask.any()]
    return (
        float(np.mean([found[mask].mean() for mask in present])),
        float(np.mean([chance[mask].mean() for mask in present])),
    )


def _checked(embeddings: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(embeddings, np.float64)
    if values.ndim != 2 or len(values) < LEAST_CLIPS or not np.isfinite(values).all():
        raise InputError(
            f"t-SNE needs finite embeddings of at least {LEAST_CLIPS} clips; got shape "
            f"{values.shape}"
        )
    return values
