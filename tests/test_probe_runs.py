"""The commands on a miniature manifest: tables, subsets, fine-tuning, timestamps, bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402

from crykit.errors import CrykitError, InputError, UsageError  # noqa: E402
from crykit.nn.pretrained import load_pretrained, random_pretrained, save_pretrained  # noqa: E402
from crykit_train.commands import command  # noqa: E402
from crykit_train.probe.subsets import draw_subset  # noqa: E402
from crykit_train.probe.timestamps import (  # noqa: E402
    ChunkRecipe,
    FrameHead,
    Recording,
    chunk_embeddings,
    detect_events,
    inside,
    on_frames,
)

pytestmark = pytest.mark.torch
RATE_HZ = 16_000
TINY = '{run = "none:audiontt2020", options = {channels = 4, size = 16}}'


def sound(event: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    if event != "cry":
        return 0.1 * rng.standard_normal(len(t))
    hz = rng.uniform(380, 480)
    return sum(0.2 * np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 6)) + 1e-3


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources, twelve groups each; a and b; cries are tones, dogs are noise."""
    folder = tmp_path_factory.mktemp("mini")
    rng = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["path", "event", "group", "split", "source", "licence", "duration_s"])
        for source in "ab":
            for g in range(12):
                for event in ("cry", "dog"):
                    name = f"{source}{g}{event}.wav"
                    soundfile.write(folder / name, sound(event, 0.4 + 0.1 * (g % 2), rng), RATE_HZ)
                    split = ("train", "train", "val", "test")[g % 4]
                    rows.writerow([name, event, f"{source}:{g}{event}", split, source, "cc0", 0.4])
    return folder / "manifest.csv"


def train(*arguments: str | Path) -> dict:
    done = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


TABLE = f"""
differences = [["none", "none"], ["none", "missing"]]

[[rows]]
label = "none"
model = {TINY}

[[rows]]
label = "missing"
model = {{run = "/nowhere"}}

[[columns]]
label = "linear"
probe = {{epochs = 3, repeats = 2, learning_rates = [1e-2]}}

[[columns]]
label = "logistic"
probe = {{protocol = "logistic"}}

[[columns]]
label = "linear+BN"
probe = {{protocol = "linear+bn", epochs = 1, repeats = 1, learning_rates = [1e-2], window_s = 0.3}}

[[tasks]]
name = "leave_out"
source = "b"
"""


def test_a_table_is_filled_and_goes_on_where_it_was(manifest: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.toml", TABLE)
    out = tmp_path / "out"
    common = ("evaluate", "--recipe", recipe, "--manifest", manifest, "--out", out)
    found = train(*common, "--set", f"cache={tmp_path / 'cache'}")
    cells = {(c["row"], c["column"]): c for c in found["cells"]}
    assert found["leaky"] is False
    assert cells["none", "logistic"]["value"] > 0.9  # noise and tones differ in any projection
    assert cells["none", "linear"]["repeats"] == 2
    assert cells["none", "linear"]["groups"] == 24
    assert cells["missing", "linear"] == {
        "row": "missing",
        "column": "linear",
        "task": "leave b out",
        "not_run": "no such run",
    }
    assert [(d["row"], d["value"], d["ci95"]) for d in found["differences"]] == [
        ("none", 0.0, [0.0, 0.0])
    ] * 3  # once a column; with a row that was not run, none
    text = (out / "table.md").read_text()
    assert "| missing | not run | not run | not run |" in text
    assert "24 test clips of 24 groups (other 12, cry 12)" in text
    with pytest.raises(UsageError, match="add --resume"):
        train(*common)
    again = train(*common, "--resume", "--set", "budget_minutes=1e-9")
    assert again["cells"] == found["cells"]  # nothing is computed again, though no time is left
    fresh = ("--set", "budget_minutes=1e-9", "--out", tmp_path / "none")
    late = train(*common[:-2], *fresh)
    assert {c["not_run"] for c in late["cells"]} == {"time", "no such run"}


def test_an_encoder_that_heard_the_left_out_source_is_marked(
    manifest: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    p = random_pretrained("audiontt2020", channels=4, size=16)
    p.record |= {
        "objective": "byol",
        "stage": "adapt",
        "training": {"data": [{"source": "a"}], "started_from": {"data": [{"source": "b"}]}},
    }
    p.mean, p.std = -6.0, 3.0
    save_pretrained(tmp_path / "run", p)
    text = TABLE
    # The row names a run that is not there, and this one for the task.
    text = text.replace('label = "missing"', 'label = "own"\nruns = {"leave b out" = "RUN"}')
    text = text.replace("RUN", str(tmp_path / "run"))
    recipe = write(tmp_path / "r.toml", text)
    common = ("evaluate", "--recipe", recipe, "--manifest", manifest, "--out", tmp_path / "o")
    found = train(*common)
    cell = next(c for c in found["cells"] if c["row"] == "own" and c["column"] == "linear")
    assert cell["heard_left_out"] == ["b"]
    assert cell["heard"] == ["a", "b"]
    assert "†" in (tmp_path / "o" / "table.md").read_text()


def test_finetuning_keeps_the_best_probe_and_resumes(manifest: Path, tmp_path: Path) -> None:
    text = f"""
model = {TINY}
task = {{name = "leave_out", source = "b"}}
probe = {{protocol = "end-to-end", epochs = 2, repeats = 2, learning_rates = [1e-2],
encoder_learning_rates = [1e-3], warm_up_epochs = 1, window_s = 0.3}}
""".replace("\nencoder", " encoder")
    recipe = write(tmp_path / "f.toml", text)
    out = tmp_path / "run"
    common = ("finetune", "--recipe", recipe, "--manifest", manifest, "--out", out)
    found = train(*common)
    assert found["repeats"] == 2
    names = {p.name for p in out.iterdir()}
    assert {"recipe.json", "environment.json", "metrics.json", "fits.json", "curves.png"} <= names
    trained = load_pretrained(out / "leave-b-out")
    assert trained.record["stage"] == "finetune"
    assert {d["source"] for d in trained.record["training"]["data"]} == {"a"}
    assert json.loads((out / "leave-b-out" / "probe.json").read_text())["classes"] == [
        "other",
        "cry",
    ]
    again = train(*common, "--resume")
    assert again == found
    fits = json.loads((out / "fits.json").read_text())
    other = tmp_path / "other"
    train(*common[:-1], other)
    assert json.loads((other / "fits.json").read_text()) == fits  # the same loss curve


def test_transfer_of_any_model_over_a_manifest(manifest: Path, tmp_path: Path) -> None:
    recipe = write(
        tmp_path / "t.toml",
        f"""
[[rows]]
label = "none"
model = {TINY}
[[tasks]]
name = "cry_detection"
""",
    )
    found = train("transfer", "--recipe", recipe, "--manifest", manifest, "--out", tmp_path / "o")
    cell = found["none"]["cry detection"]
    assert 0 <= cell["balanced_accuracy"] <= 1
    assert cell["groups"] == 12


def test_subsets_are_drawn_and_plotted(manifest: Path, tmp_path: Path) -> None:
    recipe = write(
        tmp_path / "s.toml",
        f"""
kind = "subsets"
shares = [0.25, 1.0]
seeds = 2
task = {{name = "leave_out", source = "b"}}
[[rows]]
label = "none"
model = {TINY}
[[columns]]
label = "linear"
probe = {{epochs = 2, learning_rates = [1e-2]}}
""",
    )
    out = tmp_path / "o"
    found = train("evaluate", "--recipe", recipe, "--manifest", manifest, "--out", out)
    assert [p["share"] for p in found["points"]] == [0.25, 1.0]
    assert [p["train_clips"] for p in found["points"]] == [2.0, 12.0]
    assert (out / "subsets.png").stat().st_size > 5000


def test_a_leaky_manifest_is_refused_or_stamped(manifest: Path, tmp_path: Path) -> None:
    text = manifest.read_text().replace("a:0cry,train", "a:3cry,train")  # a3cry.wav is test
    leaky = write(manifest.parent / "leaky.csv", text)
    recipe = write(tmp_path / "r.toml", TABLE.replace('"leave_out"', '"cry_detection"'))
    common = ("evaluate", "--recipe", recipe, "--manifest", leaky, "--out", tmp_path / "o")
    with pytest.raises(InputError, match="every group must be in one split"):
        train(*common)
    found = train(*common, "--leaky")
    assert found["leaky"] is True
    assert json.loads((tmp_path / "o" / "results.json").read_text())["leaky"] is True
    assert "LEAKY" in (tmp_path / "o" / "table.md").read_text()
    honest = ("--recipe", recipe, "--manifest", manifest, "--out", tmp_path / "o", "--resume")
    with pytest.raises(UsageError, match="with --leaky"):
        train("evaluate", *honest)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("color = 1", (), "color"),
        ('kind = "chart"', (), "kind is one of table, subsets, timestamps"),
        ('[[columns]]\nlabel = "x"\nprobe = {epochs = 0}', (), "must be 1 or more"),
        ('[[rows]]\nlabel = "y"\nmodel = {run = "yamnet"}', (), "needs path"),
        ('kind = "timestamps"\nrows = []\nchunk = {hop_ms = 15}', (), "multiple of 10"),
        ("", ("some/run",), "either a RUN folder or --recipe"),
    ],
)
def test_a_bad_recipe_is_told_of(
    manifest: Path, tmp_path: Path, text: str, arguments: tuple[str, ...], message: str
) -> None:
    recipe = write(tmp_path / "r.toml", text)
    with pytest.raises(CrykitError, match=message):
        train(
            "evaluate", *arguments, "--recipe", recipe, "--manifest", manifest, "-o", tmp_path / "o"
        )


def test_a_damaged_run_is_told_of(manifest: Path, tmp_path: Path) -> None:
    save_pretrained(tmp_path / "run", random_pretrained("audiontt2020", channels=4, size=16))
    record = tmp_path / "run" / "encoder.json"
    record.write_text(record.read_text().replace('"channels": 4', '"channels": 8'))
    recipe = write(tmp_path / "r.toml", TABLE.replace("/nowhere", str(tmp_path / "run")))
    with pytest.raises(InputError, match="another encoder"):
        train("evaluate", "--recipe", recipe, "--manifest", manifest, "-o", tmp_path / "o")


# --- subsets of labels -----------------------------------------------------------------------


def test_a_subset_is_stratified_and_of_whole_groups() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{i}" for i in rng.integers(0, 150, 600)]
    kind = {g: "rare" if int(g[1:]) < 30 else "common" for g in set(groups)}
    labels = [kind[g] for g in groups]
    for share in (0.03, 0.2, 0.5):
        picked = draw_subset(labels, groups, share, seed=1)
        inside_groups = {groups[i] for i in picked}
        assert len(picked) == sum(g in inside_groups for g in groups)  # whole groups
        for name in ("rare", "common"):
            wanted = share * labels.count(name)
            have = sum(labels[i] == name for i in picked)
            assert have >= 1
            assert abs(have - wanted) <= 6  # a group's size
    same = draw_subset(labels, groups, 0.2, seed=1)
    assert np.array_equal(same, draw_subset(labels, groups, 0.2, seed=1))
    assert not np.array_equal(same, draw_subset(labels, groups, 0.2, seed=2))
    assert len(draw_subset(labels, groups, 1.0, seed=1)) == 600
    with pytest.raises(UsageError, match="above 0"):
        draw_subset(labels, groups, 0.0, seed=1)


# --- timestamps ------------------------------------------------------------------------------


def test_every_chunk_is_the_embedding_of_its_own_window() -> None:
    torch.manual_seed(0)
    p = random_pretrained("audiontt2020", channels=4, size=16)
    samples = np.random.default_rng(0).normal(0, 0.1, RATE_HZ).astype(np.float32)
    values, times = chunk_embeddings(p, samples, ChunkRecipe(window_ms=200, hop_ms=50))
    assert times.tolist() == pytest.approx(np.arange(0, 1.001, 0.05).tolist())
    log_mel = p.log_mel(torch.from_numpy(samples)[None])
    with torch.inference_mode():
        for k in (4, 9):  # centred on 200 and 450 ms: frames 10..30 and 35..55
            alone = p.encoder(log_mel[..., 5 * k - 10 : 5 * k + 10])
            assert torch.allclose(alone[0], torch.from_numpy(values[k]), atol=1e-5)


def test_labels_and_frames_of_chunks() -> None:
    times = np.arange(6) * 0.5
    assert inside(times, [(0.5, 1.5)]).tolist() == [False, True, True, False, False, False]
    # Frames of 40 ms, chunk centres every 100 ms: centres at 20, 60, 100, 140, 180 ms.
    frames = on_frames(np.array([0.0, 1.0, 2.0]), hop_s=0.1, duration_s=0.2)
    assert frames.tolist() == [0, 1, 1, 1, 2]


def test_a_head_finds_the_cries_of_a_stream(monkeypatch) -> None:
    """Tones in noise, a random encoder: enough to find every tone to within a window."""
    from crykit_train.probe import timestamps
    from crykit_train.probe.recipes import ModelRecipe
    from crykit_train.probe.sources import open_source

    rng = np.random.default_rng(0)

    def stream(name: str, at: list[float]) -> Recording:
        x = 0.003 * rng.standard_normal(30 * RATE_HZ)
        spans = [(s, s + 4.0) for s in at]
        for s, e in spans:
            x[int(s * RATE_HZ) : int(e * RATE_HZ)] += sound("cry", e - s, rng)
        return Recording(name, x.astype(np.float32), spans, spans)

    source = open_source(ModelRecipe("none:audiontt2020", options={"channels": 4, "size": 16}))
    few = {"on_threshold": (0.5, 0.8), "off_threshold": (0.4, 0.7), "smoothing_ms": (0.0,)}
    rest = {"min_on_ms": (400.0,), "min_off_ms": (400.0,), "merge_gap_ms": (1000.0,)}
    monkeypatch.setattr("crykit_train.streams.CHOICES", few | rest)
    recipe = timestamps.TimestampsRecipe(
        "timestamps", (), chunk=ChunkRecipe(400, 100), c_grid=(1e-2,)
    )
    found = detect_events(
        source,
        [stream("t", [3, 18])],
        [stream("v", [8, 20])],
        [stream("x", [5, 15])],
        recipe,
    )
    assert found["test"]["found"] == found["test"]["bouts"] == 2
    assert found["test"]["false_alarms"] == 0
    assert found["test"]["time_f1"] > 0.85


def test_the_head_is_standardised_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)) * 3 + 1
    y = x[:, 0] > 1
    head = FrameHead((x, y), (x[:100], y[:100]), (1e-3, 1.0))
    assert head.c == 1.0
    z = (x - x.mean(0)) / x.std(0)
    plain = LogisticRegression(C=1.0, class_weight="balanced", max_iter=200).fit(z, y)
    assert head.probabilities(x) == pytest.approx(plain.predict_proba(z)[:, 1], abs=1e-4)
