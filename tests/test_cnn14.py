"""CNN14 is the yardstick of cost: its size and shape must be those of the paper."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from crykit.nn.cnn14 import AUDIOSET_CLASSES, WINDOW_SAMPLES, Cnn14, WaveformCnn14  # noqa: E402
from crykit.nn.frontend import TAIL_SAMPLES  # noqa: E402

pytestmark = pytest.mark.torch

# PANNs, table 12: 80.8 M parameters. Ours has no spectrogram weights of its own.
PUBLISHED_PARAMETERS = 79.7e6


@pytest.fixture(scope="module")
def cnn14() -> WaveformCnn14:
    torch.manual_seed(0)
    return WaveformCnn14().eval()


def test_has_the_published_number_of_parameters(cnn14: WaveformCnn14) -> None:
    count = sum(p.numel() for p in cnn14.network.parameters())
    assert count == pytest.approx(PUBLISHED_PARAMETERS, rel=0.03)


def test_one_second_of_audio_gives_a_probability_for_each_class(cnn14: WaveformCnn14) -> None:
    with torch.inference_mode():
        tags = cnn14(0.1 * torch.randn(1, TAIL_SAMPLES + WINDOW_SAMPLES))
    assert tags.shape == (1, AUDIOSET_CLASSES)
    assert bool(((tags > 0) & (tags < 1)).all())


def test_costs_about_two_billion_multiplications_a_second(cnn14: WaveformCnn14) -> None:
    counted: list[int] = []

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        weights = module.weight[0].numel()  # type: ignore[union-attr,operator]
        counted.append(output.numel() * weights)

    hooks = [
        m.register_forward_hook(count)
        for m in cnn14.modules()
        if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)
    ]
    with torch.inference_mode():
        cnn14(torch.zeros(1, TAIL_SAMPLES + WINDOW_SAMPLES))
    for hook in hooks:
        hook.remove()
    assert 1.8e9 < sum(counted) < 2.2e9


def test_ranks_windows_apart_from_their_neighbours_in_a_batch() -> None:
    torch.manual_seed(0)
    network = Cnn14().eval()
    windows = torch.randn(2, 100, 64)
    with torch.inference_mode():
        together, alone = network(windows), network(windows[1:])
    assert torch.allclose(together[1:], alone, atol=1e-5)
