"""The encoders: the papers' sizes, and each computation that could be wrong against a plain one."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from crykit.errors import UsageError  # noqa: E402
from crykit.nn.cnn14 import Cnn14  # noqa: E402
from crykit.nn.encoders import ENCODERS, build_encoder, mean_max  # noqa: E402
from crykit.nn.encoders.cvt import ChannelNorm, ConvAttention  # noqa: E402
from crykit.nn.encoders.student import DB_PER_NEPER  # noqa: E402
from crykit.nn.frontend import N_MELS, LogMelFrontEnd  # noqa: E402

pytestmark = pytest.mark.torch

# Millions, and widths of the pooled embedding.
PUBLISHED = {
    "cnn14": (80.0, 2048),  # Gorin et al., 2023, section 2.1
    "audiontt2020": (5.3, 2048),  # Elbanna et al., 2022, table 1, as the next three
    "resnetish34": (21.3, 2048),
    "clstm": (18.6, 1024),
    "cvt": (5.0, 2048),
    # No table gives the two-block network of Ogg's section 2.2. From its architecture: convolutions
    # (640 + 128) and (36,928 + 128), layers 1024 x 2048 + 2048 and 2048 x 2048 + 2048.
    "audiontt2020-2block": (6.333376, 3072),
}
SMALL = {
    "cnn14": {"channels": 2, "size": 10},
    "audiontt2020": {"channels": 3, "size": 12},
    "audiontt2020-2block": {"channels": 3, "size": 12},
    "resnetish34": {"channels": 2},
    "clstm": {"channels": 3, "hidden": 4, "size": 6},
    "cvt": {"channels": 4},
    "student": {"size": 8},
}


def small(name: str, seed: int = 0):
    torch.manual_seed(seed)
    return build_encoder(name, **SMALL[name])


def noise(*shape: int, seed: int = 1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def log_mels(encoder, batch: int, frames: int, seed: int = 1):
    return noise(batch, 1, encoder.n_mels, frames, seed=seed)


def test_every_encoder_of_the_registry_is_tested() -> None:
    assert set(SMALL) == set(ENCODERS) == set(PUBLISHED) | {"student"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_has_the_published_size(name: str) -> None:
    millions, width = PUBLISHED[name]
    encoder = build_encoder(name)
    count = sum(p.numel() for p in encoder.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.03)
    assert encoder.embedding_size == width


@pytest.mark.parametrize("name", ENCODERS)
def test_widths_and_frames_are_what_the_encoder_says(name: str) -> None:
    encoder = small(name).eval()
    with torch.inference_mode():
        one = encoder.frames(log_mels(encoder, 2, 160))
        two = encoder.frames(log_mels(encoder, 2, 160 + 2 * encoder.hop_frames))
        pooled = encoder(log_mels(encoder, 2, 160))
    assert one.shape[2] == encoder.frame_size
    assert two.shape[1] == one.shape[1] + 2
    assert pooled.shape == (2, encoder.embedding_size)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_recording_is_embedded_the_same_in_any_batch(name: str) -> None:
    encoder = small(name).eval()
    x = log_mels(encoder, 5, 96)
    with torch.inference_mode():
        together, alone = encoder(x), torch.cat([encoder(row[None]) for row in x])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_shortest_input_goes_in_and_shorter_is_repeated(name: str) -> None:
    encoder = small(name).eval()
    x = log_mels(encoder, 1, 3)
    padded = encoder.pad_to_min(x)
    assert padded.shape[3] == encoder.min_frames
    assert torch.equal(padded, torch.cat([x] * 11, dim=3)[..., : encoder.min_frames])
    long = log_mels(encoder, 1, 100)
    assert encoder.pad_to_min(long) is long
    with torch.inference_mode():
        frames = encoder.frames(padded)
        assert frames.shape[1] >= 1 and bool(torch.isfinite(encoder(padded)).all())


@pytest.mark.parametrize("name", ENCODERS)
def test_gradient_reaches_every_parameter(name: str) -> None:
    encoder = small(name).train()
    weights = noise(4, encoder.embedding_size, seed=3)
    (encoder(log_mels(encoder, 4, 96)) * weights).sum().backward()
    for key, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), key


@pytest.mark.parametrize("name", ENCODERS)
def test_state_goes_out_and_in(name: str) -> None:
    one, two = small(name, 0).eval(), small(name, 1).eval()
    x = log_mels(one, 2, 96)
    with torch.inference_mode():
        assert not torch.allclose(one(x), two(x))
        two.load_state_dict(one.state_dict())
        assert torch.equal(one(x), two(x))


@pytest.mark.parametrize("name", ENCODERS)
def test_the_centre_of_a_frame_is_where_it_hears(name: str) -> None:
    """A click in one log-mel frame moves the embedding frames around it, most the one there."""
    if name in ("clstm", "cvt"):
        pytest.skip("hears the whole recording in every frame")
    encoder = small(name).eval().double()
    x = log_mels(encoder, 1, 320).double().requires_grad_()
    frames = encoder.frames(x)
    k = frames.shape[1] // 2
    frames[0, k].square().sum().backward()
    assert x.grad is not None
    weight = x.grad[0, 0].abs().sum(0)
    centre = encoder.centre_frames + k * encoder.hop_frames
    if name == "student":  # causal: nothing after its last frame
        assert float(weight[math.ceil(centre + encoder.hop_frames / 2) :].sum()) == 0
        return
    heard = weight.nonzero().flatten()
    # Rectifiers may silence an edge, so a frame or two either way.
    assert float(heard.double().mean()) == pytest.approx(centre, abs=encoder.hop_frames / 2)


def test_pooling_is_the_mean_plus_the_maximum_over_time() -> None:
    frames = noise(3, 7, 5)
    expected = np.zeros((3, 5))
    for i in range(3):
        for j in range(5):
            column = [float(frames[i, t, j]) for t in range(7)]
            expected[i, j] = sum(column) / 7 + max(column)
    assert np.allclose(mean_max(frames).numpy(), expected, atol=1e-6)
    encoder = small("audiontt2020").eval()
    with torch.inference_mode():
        x = log_mels(encoder, 2, 96)
        assert torch.equal(encoder(x), mean_max(encoder.frames(x)))


@pytest.mark.parametrize(("name", "n_blocks"), [("audiontt2020", 3), ("audiontt2020-2block", 2)])
def test_byol_a_frames_are_what_the_layers_give_one_by_one(name: str, n_blocks: int) -> None:
    encoder = small(name).eval()
    x = log_mels(encoder, 1, 40)
    with torch.inference_mode():
        y = x
        for i in range(n_blocks):
            conv, norm = encoder.features[4 * i], encoder.features[4 * i + 1]
            y = torch.nn.functional.max_pool2d(torch.relu(norm(conv(y))), 2)
        rows = []
        for t in range(y.shape[3]):
            # mel-major, channels innermost, as the published weights lie
            local = torch.stack([y[0, c, m, t] for m in range(y.shape[2]) for c in range(3)])
            hidden = torch.relu(encoder.fc[0](local))
            out = torch.relu(encoder.fc[3](hidden))
            rows.append(out if n_blocks == 3 else torch.cat([local, out]))
        assert torch.allclose(encoder.frames(x)[0], torch.stack(rows), atol=1e-5)


def test_cvt_attention_equals_a_plain_loop() -> None:
    torch.manual_seed(2)
    attention = ConvAttention(6, heads=2, head_size=4).eval()
    x = noise(2, 6, 5, 7)
    with torch.inference_mode():
        got = attention(x)
        query, (key, value) = attention.query(x), attention.key_value(x).chunk(2, dim=1)
        assert key.shape[2:] == (3, 4)  # half the grid
        out = torch.zeros(2, 8, 5, 7)
        for b in range(2):
            for h in range(2):
                own = slice(4 * h, 4 * h + 4)
                keys = [key[b, own, i, j] for i in range(3) for j in range(4)]
                values = [value[b, own, i, j] for i in range(3) for j in range(4)]
                for m in range(5):
                    for t in range(7):
                        q = query[b, own, m, t]
                        scores = [math.exp(float(q @ k) / math.sqrt(4)) for k in keys]
                        mixed = sum(s * v for s, v in zip(scores, values, strict=True))
                        out[b, own, m, t] = mixed / sum(scores)
        assert torch.allclose(got, attention.out(out), atol=1e-5)


def test_channel_norm_is_over_the_channels_of_each_cell() -> None:
    x = 3 + 2 * noise(2, 6, 3, 4)
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    assert torch.allclose(ChannelNorm(6)(x), (x - mean) / (var + 1e-5).sqrt(), atol=1e-5)


def test_clstm_frames_equal_two_loops_over_time() -> None:
    encoder = small("clstm").eval()
    x = log_mels(encoder, 1, 48)
    lstm = encoder.lstm

    def run(steps, suffix: str):
        h = c = torch.zeros(4)
        states = []
        for step in steps:
            gates = (
                getattr(lstm, f"weight_ih_l0{suffix}") @ step
                + getattr(lstm, f"bias_ih_l0{suffix}")
                + getattr(lstm, f"weight_hh_l0{suffix}") @ h
                + getattr(lstm, f"bias_hh_l0{suffix}")
            )
            i, f, g, o = gates.chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            states.append(h)
        return states

    with torch.inference_mode():
        steps = list(encoder.conv(x).permute(0, 3, 2, 1).flatten(2)[0])
        forward, backward = run(steps, ""), run(steps[::-1], "_reverse")[::-1]
        rows = [
            torch.relu(encoder.fc(torch.cat(pair))) for pair in zip(forward, backward, strict=True)
        ]
        assert torch.allclose(encoder.frames(x)[0], torch.stack(rows), atol=1e-5)


def test_cnn14_embeds_as_the_tagger_does_before_its_tags() -> None:
    with torch.device("meta"):
        tagger = Cnn14(n_mels=80)
        encoder = build_encoder("cnn14")
    expected = {
        key: value.shape
        for key, value in tagger.state_dict().items()
        if not key.startswith("fc_audioset")
    }
    assert {k: v.shape for k, v in encoder.state_dict().items()} == expected


def test_cnn14_pools_then_applies_its_last_hidden_layer() -> None:
    encoder = small("cnn14").eval()
    x = log_mels(encoder, 2, 128)
    with torch.inference_mode():
        y = encoder.norm0(x[:, 0][..., None]).permute(0, 3, 2, 1)  # bands as channels
        assert torch.allclose(y[:, 0], x[:, 0].transpose(1, 2) / math.sqrt(1 + 1e-5), atol=1e-6)
        cells = encoder.blocks(y)
        frames = torch.stack([cells[:, :, t, :].mean(2) for t in range(4)], dim=1)
        assert torch.allclose(encoder.frames(x), frames, atol=1e-6)
        pooled = frames.amax(1) + frames.mean(1)
        expected = torch.relu(pooled @ encoder.fc1.weight.T + encoder.fc1.bias)
        assert torch.allclose(encoder(x), expected, atol=1e-6)


def test_student_hears_the_two_channels_of_its_front_end() -> None:
    """Its own log-mel, as a normalised natural logarithm, comes back with its contrast."""
    samples = 0.1 * noise(2, 10 * 2560, seed=6) * torch.linspace(0.01, 1, 25600)
    front_end = LogMelFrontEnd("fft")
    expected, *_ = front_end(samples, *front_end.initial_state(2))
    encoder = build_encoder("student", log_mel_mean=-7.0, log_mel_std=3.0).eval()
    natural = (expected[:, :1] * 20.0 - 60.0) / DB_PER_NEPER
    got = encoder.features((natural + 7.0) / 3.0)
    assert got.shape == expected.shape == (2, 2, N_MELS, 160)
    assert torch.allclose(got, expected, atol=1e-4)
    assert float(expected[:, 1].std()) > 0.1
    # A length that fills no whole block of the tracker changes nothing before its end.
    assert torch.allclose(encoder.features((natural[..., :100] + 7.0) / 3.0), got[..., :100])
    with torch.inference_mode():
        _, embedding, _ = encoder.student.logits(expected, *encoder.student.initial_state(2))
        assert torch.allclose(encoder.frames((natural + 7.0) / 3.0), embedding, atol=1e-3)


def test_unknown_names_and_options_are_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="choose one of cnn14, audiontt2020"):
        build_encoder("resnet50")
    with pytest.raises(UsageError, match="no option 'width'; it has n_mels, channels, size"):
        build_encoder("audiontt2020", width=3)
    for value in (0, -4, 2.5, "wide", True):
        with pytest.raises(UsageError, match="whole number above 0 for channels"):
            build_encoder("audiontt2020", channels=value)
