"""Throughput: operations against a count by hand, rates and utilisation by their formulas."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from click.testing import CliRunner  # noqa: E402
from tiny_model import write_manifest_csv  # noqa: E402
from torch import nn  # noqa: E402

from crykit.errors import UsageError  # noqa: E402
from crykit.nn.encoders import build_encoder  # noqa: E402
from crykit_train import throughput as tp  # noqa: E402
from crykit_train.commands.throughput import command  # noqa: E402
from crykit_train.ssl.sources import Batch  # noqa: E402

pytestmark = pytest.mark.torch

BYOL_HIDDEN, BYOL_SIZE = 4096, 256


def counted_by_hooks(encoder: nn.Module, frames: int) -> float:
    """Operations of every convolution and linear layer for one window."""
    total = 0.0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        total += 2.0 * output.numel() * weight[0].numel()

    for module in encoder.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        encoder.eval()(torch.zeros(1, 1, encoder.n_mels, frames))  # type: ignore[arg-type]
    return total


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("audiontt2020", {"channels": 8, "size": 64}),
        ("audiontt2020-2block", {"channels": 8, "size": 64}),
        ("cnn14", {"channels": 2, "size": 32}),
    ],
)
def test_forward_operations_are_those_of_the_layers(name: str, options: dict[str, int]) -> None:
    encoder = build_encoder(name, **options)
    assert tp.flops(encoder, 96)["forward"] == counted_by_hooks(encoder, 96)


def test_attention_is_counted() -> None:
    encoder = build_encoder("cvt", channels=4)
    attention = 0.0
    for (mels, t), heads in zip(((16, 24), (8, 12), (4, 6)), (1, 3, 6), strict=True):
        cells, keys = mels * t, (-(-mels // 2)) * (-(-t // 2))
        attention += 2 * 2.0 * heads * cells * keys * 64  # scores, and the mixing of values
    layers = counted_by_hooks(encoder, 96)
    assert tp.flops(encoder, 96)["forward"] == pytest.approx(layers + attention, rel=1e-6)


def test_the_lstm_is_counted() -> None:
    encoder = build_encoder("clstm", channels=4, hidden=8, size=16)
    steps, features = 22, 14 * 4
    lstm = 2.0 * steps * 2 * 4 * 8 * (features + 8)
    assert tp.flops(encoder, 96)["forward"] == counted_by_hooks(encoder, 96) + lstm


def test_a_training_step_is_eight_forwards_less_what_needs_no_gradient() -> None:
    """Two views forwards and two backwards each through the online network, two forwards slow.

    The input wants no gradient, which spares the first convolution one of its two backwards.
    """
    encoder = build_encoder("audiontt2020", channels=8, size=64)
    found = tp.flops(encoder, 96)
    first = 2.0 * (64 * 96 * 8) * 9
    projector = 2.0 * (64 * BYOL_HIDDEN + BYOL_HIDDEN * BYOL_SIZE)
    predictor = 2.0 * 2 * BYOL_SIZE * BYOL_HIDDEN
    online = 2 * 3 * (found["forward"] + projector + predictor) - 2 * first
    slow = 2 * (found["forward"] + projector)
    assert found["training"] == online + slow


def test_counting_leaves_the_encoder_and_the_dice_alone() -> None:
    encoder = build_encoder("student", size=8)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    tp.flops(encoder, 96)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


def test_utilisation_and_rates_are_by_their_formulas() -> None:
    # 2e12 operations in half a second on a device of 40 TFLOP/s.
    assert tp.utilisation(2e12, 0.5, 40e12) == pytest.approx(0.1)
    rates = tp.Timing(steps=10, clock_s=4.0, process_s=2.0).rates(audio_s=8 * 0.95)
    assert rates == {"clock": 19.0, "process": 38.0}


def test_peaks_are_found_by_whole_words() -> None:
    assert tp.peak_of("NVIDIA H200", "bf16-mixed") == 989.4
    assert tp.peak_of("NVIDIA A100-SXM4-80GB", "32-true") == 156.0
    assert tp.peak_of("NVIDIA L40S", "bf16-mixed") is None
    assert tp.peak_tflops(torch.device("cpu"), "32-true") is None


def test_steps_are_timed_without_the_first() -> None:
    seen: list[int] = []

    def step(number: int) -> None:
        seen.append(number)
        time.sleep(0.2 if number == 0 else 0.01)

    timing = tp.time_steps(step, tp.Work(seconds=0.0))
    assert seen == [0, 1, 2] and timing.steps == 2
    assert 0.02 <= timing.clock_s < 0.2


def test_a_slow_source_shows_as_waiting_and_its_batches_come_in_order() -> None:
    asked: list[int] = []
    taken: list[float] = []

    def load(number: int) -> Batch:
        asked.append(number)
        return Batch(torch.full((1,), float(number)))

    def slow_load(number: int) -> Batch:
        time.sleep(0.3)
        return load(number)

    def slow_step(batch: Batch) -> None:
        taken.append(float(batch.chunks))
        time.sleep(0.3)

    work = tp.Work(seconds=0.0)
    starved = tp._time_loaded(lambda batch: taken.append(float(batch.chunks)), slow_load, work)
    assert asked[:3] == [0, 1, 2] and taken == [0.0, 1.0, 2.0]
    assert 0.4 < starved.waited_s <= starved.clock_s  # the first of three is not counted
    fed = tp._time_loaded(slow_step, load, work)
    assert fed.waited_s < 0.2 * fed.clock_s


def test_utilisation_is_reported_where_the_peak_is_known() -> None:
    encoder = build_encoder("audiontt2020", channels=2, size=8)
    row = tp.measure(encoder, tp.Work(batch=2, seconds=0.0, peak_tflops=1.0))
    per_second = tp.flops(encoder, 96)["training"] / 0.95
    assert row["utilisation"] == pytest.approx(
        row["training"]["clock"] * per_second / 1e12, rel=0.02, abs=1e-4
    )
    assert "utilisation" not in tp.measure(encoder, tp.Work(batch=2, seconds=0.0))


def test_audio_is_turned_into_log_mel_in_the_step() -> None:
    encoder = build_encoder("audiontt2020", channels=2, size=8)
    step = tp.TrainingStep(encoder, tp.Work(batch=2), (-8.0, 4.5))
    before = [p.detach().clone() for p in step.objective.parameters()]
    step(Batch(0.1 * torch.randn(1, 2, 15_200), is_audio=True))
    after = list(step.objective.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_command_writes_what_it_prints(tmp_path: Path) -> None:
    manifest, out = write_manifest_csv(tmp_path / "data"), tmp_path / "speed.json"
    small = "audiontt2020:channels=2,size=8"
    arguments = ["--encoder", small, "--manifest", str(manifest), "--batch", "2", "--out", str(out)]
    done = CliRunner().invoke(command, [*arguments, "--seconds", "0"], catch_exceptions=False)
    report = json.loads(out.read_text())
    assert json.loads(done.stdout) == report
    (row,) = report["encoders"]
    assert row["embedding_size"] == 8 and row["training_loaded"]["clock"] > 0
    assert report["device"] == "cpu" and not report["leaky"]


def test_what_cannot_be_is_refused() -> None:
    for text in ("audiontt2020:channels", "audiontt2020:channels=x", "oak", "cvt:size=3"):
        with pytest.raises(UsageError):
            tp.build_named(text)
    for arguments in (["--device", "abacus"], ["--batch", "1"], ["--window", "0"]):
        with pytest.raises(UsageError):
            CliRunner().invoke(
                command, ["--encoder", "cvt:channels=4", *arguments], catch_exceptions=False
            )
    with pytest.raises(UsageError, match="window_s"):
        tp.measure(build_encoder("cnn14", channels=2, size=8), tp.Work(window_s=0.1))
