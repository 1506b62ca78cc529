"""The student network: size, causality, and streaming equal to offline."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from crykit.nn.frontend import BLOCK_FRAMES, N_MELS, LogMelFrontEnd  # noqa: E402
from crykit.nn.student import FRAME_HOPS, CryStudent, StudentConfig  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def student() -> CryStudent:
    """Random weights with batch-norm statistics that are not the identity."""
    torch.manual_seed(3)
    model = CryStudent()
    for _ in range(4):
        model.logits(torch.randn(2, 2, N_MELS, 64), *model.initial_state(2))
    return model.eval()


def features(frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, 2, N_MELS, frames, generator=torch.Generator().manual_seed(seed))


def macs_per_second(model: CryStudent) -> float:
    macs = 0

    def count(module, _, output) -> None:
        nonlocal macs
        macs += output.numel() * module.weight[0].numel()

    handles = [
        m.register_forward_hook(count) for m in model.modules() if isinstance(m, torch.nn.Conv2d)
    ]
    model(features(400), *model.initial_state())
    for handle in handles:
        handle.remove()
    return macs / 4.0


def test_budget(student: CryStudent) -> None:
    assert sum(p.numel() for p in student.parameters()) <= 300_000
    assert macs_per_second(student) <= 30e6


@pytest.mark.parametrize("seed", range(4))
def test_random_chunkings_equal_whole(student: CryStudent, seed: int) -> None:
    x = features(320, seed)
    with torch.inference_mode():
        whole, whole_embedding, *_ = student(x, *student.initial_state())
        generator = torch.Generator().manual_seed(seed)
        state, parts, embeddings, at = student.initial_state(), [], [], 0
        while at < x.shape[3]:
            frames = FRAME_HOPS * int(torch.randint(1, 20, (1,), generator=generator))
            p, e, *state = student(x[..., at : at + frames], *state)
            parts.append(p)
            embeddings.append(e)
            at += frames
    assert (torch.cat(parts, 1) - whole).abs().max() <= 1e-5
    assert (torch.cat(embeddings, 1) - whole_embedding).abs().max() <= 1e-4


def test_no_look_ahead(student: CryStudent) -> None:
    """Output frame j must not change when anything after log-mel frame 4 (j + 1) does."""
    x = features(160)
    changed = x.clone()
    changed[..., 80:] += 5.0
    with torch.inference_mode():
        a, *_ = student(x, *student.initial_state())
        b, *_ = student(changed, *student.initial_state())
    assert torch.equal(a[:, :20], b[:, :20])
    assert not torch.equal(a[:, 20], b[:, 20])


def test_receptive_field_is_what_it_says(student: CryStudent) -> None:
    """By the gradient of one output frame: the oldest log-mel frame that has any."""
    x = features(2 * student.receptive_field_frames // 4 * 4).requires_grad_()
    logits, *_ = student.logits(x, *student.initial_state())
    logits[0, -1].backward()
    assert x.grad is not None
    reached = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert x.shape[3] - int(reached[0]) == student.receptive_field_frames


def test_audio_to_probability_in_steps(student: CryStudent) -> None:
    front_end = LogMelFrontEnd()
    audio = 0.1 * torch.randn(1, 6 * 2560, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        f, *_ = front_end(audio, *front_end.initial_state())
        whole, *_ = student(f, *student.initial_state())
        ears, memory, parts = front_end.initial_state(), student.initial_state(), []
        for step in audio.split(2560, dim=1):
            f, *ears = front_end(step, *ears)
            assert f.shape[3] == BLOCK_FRAMES
            p, _, *memory = student(f, *memory)
            parts.append(p)
    assert (torch.cat(parts, 1) - whole).abs().max() <= 1e-5


def test_another_shape_builds() -> None:
    config = StudentConfig(blocks=((16, 2, 1, True), (24, 2, 2, False)), temporal_dilations=(1,))
    model = CryStudent(config).eval()
    p, e, *state = model(features(32), *model.initial_state())
    assert p.shape == (1, 8) and e.shape == (1, 8, config.embedding_size)
    assert [s.shape for s in state] == [s.shape for s in model.initial_state()]
