"""Objectives against plain references, and NT-Xent in two processes against one."""

from __future__ import annotations

import copy
import socket
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("lightning_fabric", reason="needs the train extra")

from ssl_toy import ToyEncoder  # noqa: E402

from crykit_train.ssl.objectives import (  # noqa: E402
    Byol,
    Hybrid,
    SimClr,
    Supervised,
    byol_loss,
    mlp,
    nt_xent,
)

pytestmark = pytest.mark.torch


def plain_nt_xent(one: np.ndarray, two: np.ndarray, temperature: float) -> float:
    """Equation 1 of Chen et al., pair by pair."""
    z = np.concatenate([one, two]).astype(np.float64)
    n = len(one)

    def similarity(i: int, j: int) -> float:
        return float(z[i] @ z[j] / np.linalg.norm(z[i]) / np.linalg.norm(z[j]))

    losses = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = [np.exp(similarity(i, k) / temperature) for k in range(2 * n) if k != i]
        losses.append(-np.log(np.exp(similarity(i, j) / temperature) / sum(others)))
    return float(np.mean(losses))


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent_equals_the_plain_sum(temperature: float) -> None:
    rng = np.random.default_rng(1)
    one, two = rng.standard_normal((2, 7, 5)).astype(np.float32)
    ours = nt_xent(torch.from_numpy(one), torch.from_numpy(two), temperature)
    assert float(ours) == pytest.approx(plain_nt_xent(one, two, temperature), abs=1e-5)


def test_nt_xent_closed_forms() -> None:
    # Identical views of orthogonal clips: log(e^(1/t) + 2 (n - 1)) - 1/t.
    eye = torch.eye(4)
    expected = np.log(np.exp(2.0) + 6) - 2.0
    assert float(nt_xent(3 * eye, 0.1 * eye, 0.5)) == pytest.approx(expected, abs=1e-5)
    # All alike: chance among 2 n - 1.
    same = torch.ones(4, 3)
    assert float(nt_xent(same, same, 0.1)) == pytest.approx(np.log(7), abs=1e-4)


def simclr() -> SimClr:
    torch.manual_seed(3)
    return SimClr(ToyEncoder(), hidden=10, size=4, temperature=0.2, batch_norm=False)


def joined_views() -> torch.Tensor:
    return torch.randn(2, 6, 1, 8, 9, generator=torch.Generator().manual_seed(4))


def _two_processes(rank: int, port: int, out: str) -> None:
    import os

    from lightning_fabric import Fabric

    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "RANK": str(rank),
        "NODE_RANK": "0",
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test",
    }
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    objective = simclr()
    objective.gather = lambda z: fabric.all_gather(z, sync_grads=True)  # type: ignore[assignment]
    objective.rank = fabric.global_rank
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.1)
    model, optimiser = fabric.setup(objective, optimiser)
    own = joined_views()[:, 3 * rank : 3 * rank + 3]
    losses = model(own)
    fabric.backward(losses["loss"])
    loss = fabric.all_reduce(losses["loss"].detach().clone(), reduce_op="mean")
    if rank == 0:
        gradients = [p.grad for p in objective.parameters()]
        torch.save({"loss": loss, "gradients": gradients}, out)


def test_two_processes_equal_one_with_the_joined_batch(tmp_path: Path) -> None:
    """Loss and every gradient to 1e-5, over gloo, through Fabric and its DDP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = tmp_path / "rank0.pt"
    torch.multiprocessing.spawn(_two_processes, args=(port, str(out)), nprocs=2)
    theirs = torch.load(out, weights_only=True)
    one = simclr()
    loss = one(joined_views())["loss"]
    loss.backward()
    assert float(theirs["loss"]) == pytest.approx(float(loss.detach()), abs=1e-5)
    for ours, gathered in zip(one.parameters(), theirs["gradients"], strict=True):
        assert ours.grad is not None and ours.grad.abs().max() > 1e-3
        torch.testing.assert_close(gathered, ours.grad, atol=1e-5, rtol=0)


def test_layer_one_of_the_projector_is_what_the_head_computes() -> None:
    for batch_norm in (False, True):
        torch.manual_seed(5)
        objective = SimClr(ToyEncoder(), 10, 4, batch_norm=batch_norm)
        for _ in range(3):
            objective(2 * torch.randn(2, 9, 1, 8, 9) + 1)
        objective.eval()
        embedding = objective.encoder(joined_views()[0])
        expected = objective.projector[: 3 if batch_norm else 2](embedding)
        torch.testing.assert_close(objective.head()(embedding), expected)


def test_projector_shapes_of_the_paper() -> None:
    layers = [m for m in mlp((2048, 2048, 2048, 512)) if isinstance(m, torch.nn.Linear)]
    shapes = [(layer.in_features, layer.out_features) for layer in layers]
    assert shapes == [(2048, 2048), (2048, 2048), (2048, 512)]


def test_byol_loss_is_the_squared_distance_of_unit_vectors() -> None:
    rng = np.random.default_rng(2)
    p, t = rng.standard_normal((2, 6, 5))
    unit_p, unit_t = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (p, t))
    expected = float(((unit_p - unit_t) ** 2).sum(1).mean())
    assert float(byol_loss(torch.from_numpy(p), torch.from_numpy(t))) == pytest.approx(expected)


def byol(**options: float) -> Byol:
    torch.manual_seed(6)
    return Byol(ToyEncoder(), hidden=12, size=5, **options)  # type: ignore[arg-type]


def test_byol_is_symmetric_and_crosses_the_views() -> None:
    objective = byol().eval()  # without batch statistics, so that each sample stands alone
    with torch.no_grad():
        for p in objective.target_encoder.parameters():
            p.add_(0.3)
    views = joined_views()
    loss = float(objective(views)["loss"].detach())
    assert loss == pytest.approx(float(objective(views.flip(0))["loss"].detach()), abs=1e-6)
    online = [objective.predictor(objective.projector(objective.encoder(x))) for x in views]
    slow = [objective.target_projector(objective.target_encoder(x)) for x in views]
    total = 0.0
    for p, t in ((online[0], slow[1]), (online[1], slow[0])):
        for row, other in zip(p.detach().numpy(), t.detach().numpy(), strict=True):
            cosine = row @ other / np.linalg.norm(row) / np.linalg.norm(other)
            total += (2 - 2 * cosine) / len(p)
    assert loss == pytest.approx(total, abs=1e-5)


def test_byol_target_gets_no_gradient_and_follows_slowly() -> None:
    objective = byol(decay=0.99)
    before = copy.deepcopy(objective)
    optimiser = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.5)
    objective(joined_views())["loss"].backward()
    target = [*objective.target_encoder.parameters(), *objective.target_projector.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in target)
    optimiser.step()
    old = [*before.target_encoder.parameters(), *before.target_projector.parameters()]
    for now, was in zip(target, old, strict=True):
        assert torch.equal(now, was)  # the optimiser leaves it alone
    objective.after_step()
    online = [*objective.encoder.parameters(), *objective.projector.parameters()]
    for now, was, fast in zip(target, old, online, strict=True):
        torch.testing.assert_close(now, 0.99 * was + 0.01 * fast)
    assert not torch.equal(target[0], old[0])


def test_hybrid_adds_the_branches_by_their_weights() -> None:
    views = joined_views()
    features = torch.randn(6, 7, generator=torch.Generator().manual_seed(8))
    torch.manual_seed(7)
    objective = Hybrid(ToyEncoder(), 7, hidden=12, alpha=0.5, beta=2.0).eval()
    losses = objective(views, features)
    predicted = [
        objective.predictor(objective.projector(objective.encoder(x))).detach().numpy()
        for x in views
    ]
    by_hand = np.mean([np.mean((p - features.numpy()) ** 2) for p in predicted])
    assert float(losses["supervised"]) == pytest.approx(float(by_hand), abs=1e-6)
    ss = Byol.forward(objective, views)["loss"]
    assert float(losses["self_supervised"]) == pytest.approx(float(ss.detach()), abs=1e-6)
    whole = 0.5 * losses["supervised"] + 2.0 * losses["self_supervised"]
    assert float(losses["loss"].detach()) == pytest.approx(float(whole), abs=1e-6)


def test_hybrid_learns_its_features() -> None:
    torch.manual_seed(9)
    objective = Hybrid(ToyEncoder(), 3, hidden=16, alpha=1.0, beta=0.0)
    x = torch.randn(32, 1, 8, 9)
    features = x.mean(dim=(1, 3))[:, :3] * 3
    optimiser = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(60):
        out = objective(torch.stack([x, x]), features)
        optimiser.zero_grad()
        out["loss"].backward()
        optimiser.step()
        losses.append(float(out["supervised"]))
    assert losses[-1] < 0.3 * losses[0]


def test_supervised_is_cross_entropy_on_both_views() -> None:
    torch.manual_seed(10)
    objective = Supervised(ToyEncoder(), 3)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    views = joined_views()
    losses = objective(views, labels)
    total, hits = 0.0, 0
    for x in views:
        logits = objective.classifier(objective.encoder(x)).detach().double().numpy()
        for row, label in zip(logits, labels.tolist(), strict=True):
            total -= row[label] - np.log(np.exp(row).sum())
            hits += int(row.argmax() == label)
    assert float(losses["loss"].detach()) == pytest.approx(total / 12, abs=1e-5)
    assert float(losses["accuracy"]) == pytest.approx(hits / 12)
