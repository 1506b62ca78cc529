"""Augmentations of a batch: each against its definition, one sample at a time."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from torch.nn import functional as F  # noqa: E402

from crykit_train.ssl import augment as au  # noqa: E402
from crykit_train.ssl.recipes import ViewsRecipe  # noqa: E402

pytestmark = pytest.mark.torch


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_log_mix_exp_mixes_energies() -> None:
    x, other = torch.randn(4, 1, 5, 6, generator=generator()), torch.randn(4, 1, 5, 6)
    weight = torch.tensor([1e-6, 0.1, 0.4, 0.9]).reshape(4, 1, 1, 1)
    mixed = au.log_mix_exp(x, other, weight).numpy()
    w, a, b = (v.double().numpy() for v in (weight, x, other))
    np.testing.assert_allclose(mixed, np.log((1 - w) * np.exp(a) + w * np.exp(b)), atol=1e-5)


def test_memory_is_first_in_first_out_and_holds_inputs_not_mixtures() -> None:
    memory = au.MixMemory(5)
    batches = [torch.full((3, 1, 2, 2), float(k)) for k in range(4)]
    assert memory.mix(batches[0], 0.4, generator()) is batches[0]  # nothing to mix with as yet
    for batch in batches:
        memory.remember(batch)
    assert memory.kept is not None
    assert memory.kept[:, 0, 0, 0].tolist() == [2, 2, 3, 3, 3]
    mixed = memory.mix(torch.zeros(2000, 1, 2, 2), 0.4, generator())[:, 0, 0, 0].double()
    # log(1 - w + w e^k) with w below 0.4 and k of 2 or 3: both are met, neither bound is passed.
    most = np.log(0.6 + 0.4 * np.exp(3))
    assert 0 <= mixed.min() < 0.05 and 0.9 * most < mixed.max() <= most
    weights = (mixed.exp() - 1) / (np.exp(3) - 1)
    assert abs((weights <= 0.4 * (np.e**2 - 1) / (np.e**3 - 1)).double().mean() - 0.62) < 0.05


def test_resize_matrix_equals_interpolation_of_the_crop() -> None:
    canvas = torch.randn(40, 90, generator=generator(2))
    boxes = [(0, 40, 0, 90), (3, 17, 20, 61), (39, 1, 5, 2), (10, 30, 89, 1), (2, 24, 30, 60)]
    low, bands, first, length = (torch.tensor(side) for side in zip(*boxes, strict=True))
    over_bands = au.resize_matrix(low, bands, 24, 40)
    over_frames = au.resize_matrix(first, length, 60, 90)
    for k, (i, h, j, w) in enumerate(boxes):
        crop = canvas[i : i + h, j : j + w][None, None]
        expected = F.interpolate(crop, size=(24, 60), mode="bicubic", align_corners=True)[0, 0]
        ours = over_bands[k] @ canvas @ over_frames[k].T
        torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)


def test_resize_crop_equals_the_plain_procedure() -> None:
    """Canvas of zeros, input in the middle, crop, resize: one sample at a time."""
    views = ViewsRecipe(resize_crop=True)
    x = torch.randn(6, 1, 16, 24, generator=generator(3))
    ours = au.random_resize_crop(x, views, generator(4))
    boxes = au.random_boxes(
        6, (16, 24), (16, 36), (0.6, 1.5), (0.6, 1.5), generator(4), torch.device("cpu")
    )
    for k, (i, h, j, w) in enumerate(zip(*(b.tolist() for b in boxes), strict=True)):
        canvas = torch.zeros(16, 36)
        canvas[:, 6:30] = x[k, 0]
        crop = canvas[i : i + h, j : j + w][None, None]
        expected = F.interpolate(crop, size=(16, 24), mode="bicubic", align_corners=True)[0]
        torch.testing.assert_close(ours[k], expected, atol=2e-5, rtol=1e-4)


def test_boxes_stay_on_the_canvas_and_cover_the_range() -> None:
    boxes = au.random_boxes(
        4000, (64, 96), (64, 144), (0.6, 1.5), (0.6, 1.5), generator(), torch.device("cpu")
    )
    low, bands, first, length = boxes
    assert (low >= 0).all() and (low + bands <= 64).all()
    assert (first >= 0).all() and (first + length <= 144).all()
    assert bands.min() == 38 and bands.max() == 64  # taller crops are cut to the canvas
    assert length.min() == 57 and 140 <= length.max() <= 144
    assert ((first == 0) & (length < 100)).any() and (first + length == 144).any()


def test_masks_are_bands_and_stretches_of_zeros() -> None:
    views = ViewsRecipe(
        frequency_masks=1, frequency_mask_share=0.25, time_masks=2, time_mask_share=0.1
    )
    x = torch.ones(500, 1, 16, 40)
    masked = au.spec_augment(x, views, generator(5))[:, 0]
    bands, frames = masked.amax(2) == 0, masked.amax(1) == 0
    assert torch.equal(masked == 0, bands[:, :, None] | frames[:, None, :])
    assert bands.sum(1).max() == 4 and bands.sum(1).min() == 0
    assert frames.sum(1).max() == 8 and 3 < frames.float().sum(1).mean() < 5
    edges = (bands[:, 1:] & ~bands[:, :-1]).sum(1) + bands[:, 0]
    assert edges.max() == 1  # one band in one piece


def test_views_differ_and_are_standardised_together() -> None:
    views = ViewsRecipe(mixup=0.4, mixup_memory=16, resize_crop=True, post_normalise=True)
    augmenter = au.Augmenter(views, mean=-6.0, std=4.0)
    chunk = 4 * torch.randn(1, 8, 1, 16, 24, generator=generator()) - 6
    both = augmenter(chunk, generator(2))
    assert both.shape == (2, 8, 1, 16, 24)
    assert abs(float(both.mean())) < 1e-5 and abs(float(both.std()) - 1) < 1e-5
    assert (both[0] - both[1]).abs().mean() > 0.1
    assert augmenter.memory.kept is not None
    torch.testing.assert_close(augmenter.memory.kept.float(), (chunk[0] + 6) / 4, atol=2e-3, rtol=0)
    again = au.Augmenter(views, mean=-6.0, std=4.0)(chunk, generator(2))
    assert torch.equal(both, again)


def test_own_chunks_become_one_view_each() -> None:
    chunks = torch.arange(2.0).reshape(2, 1, 1, 1, 1).expand(2, 3, 1, 8, 9)
    both = au.Augmenter(ViewsRecipe(), 0.0, 2.0)(chunks, generator())
    assert both[0].unique().tolist() == [0.0] and both[1].unique().tolist() == [0.5]
