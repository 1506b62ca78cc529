"""Pre-training and adaptation: kill and resume, faults, a full disk, wrong checkpoints."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("lightning_fabric", reason="needs the train extra")
pytest.importorskip("webdataset", reason="needs the train extra")

from ssl_toy import write_manifest  # noqa: E402

from crykit.dataset import read_manifest  # noqa: E402
from crykit.errors import FaultFound, InputError, UsageError  # noqa: E402
from crykit.nn.pretrained import load_pretrained  # noqa: E402
from crykit_train.commands import pretrain  # noqa: E402
from crykit_train.data.shards import write_shards  # noqa: E402
from crykit_train.recipe import load_recipe  # noqa: E402
from crykit_train.ssl import engine  # noqa: E402
from crykit_train.ssl.adaptation import adaptation_plan  # noqa: E402
from crykit_train.ssl.build import Plan, build_objective  # noqa: E402
from crykit_train.ssl.corpus import select_clips  # noqa: E402
from crykit_train.ssl.objectives import SimClr  # noqa: E402
from crykit_train.ssl.recipes import AdaptRecipe, PretrainRecipe, TrainRecipe  # noqa: E402

pytestmark = pytest.mark.torch

RECIPES = Path(__file__).parents[1] / "train" / "recipes"
TINY = (
    "encoder.options={channels=4, size=16}",
    "objective.hidden=16",
    "objective.size=8",
    "views.window_s=0.5",
    "views.mixup_memory=16",
    "train.batch=8",
    "train.steps=8",
    "train.warm_up_steps=0",
    "train.log_every_steps=2",
    "train.save_every_steps=4",
    "train.statistics_windows=50",
    "train.threads=1",
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("made"))


def tiny(kind: str, *more: str) -> PretrainRecipe:
    leave = {
        "supervised": ("objective.hidden", "objective.size"),
        "hybrid": ("objective.size",),
    }.get(kind, ())
    settings = tuple(s for s in TINY if not s.startswith(leave))
    return load_recipe(RECIPES / f"{kind}-small.toml", PretrainRecipe, settings + more)


def plan(kind: str, manifest: Path, *more: str) -> Plan:
    recipe = tiny(kind, *more)
    return Plan(recipe, select_clips(read_manifest(manifest), recipe.data), asked=recipe)


def rows(run: Path) -> list[dict[str, float]]:
    """The history without the clock."""
    lines = (run / "history.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in lines]


@pytest.fixture(scope="module")
def general(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished SimCLR run on what is no cry."""
    out = tmp_path_factory.mktemp("runs") / "general"
    engine.train(plan("simclr", manifest, 'data.exclude_sources=["clinic", "app"]'), out)
    return out


def test_run_folder_and_its_encoder(general: Path) -> None:
    assert [row["step"] for row in rows(general)] == [2, 4, 6, 8]
    for name in ("recipe.json", "environment.json", "metrics.json", "curves.png"):
        assert (general / name).stat().st_size > 0
    record = json.loads((general / "encoder.json").read_text())
    assert (record["objective"], record["stage"], record["leaky"]) == ("simclr", "pretrain", False)
    assert [s["source"] for s in record["training"]["data"]] == ["library"]
    pretrained = load_pretrained(general)
    assert pretrained.size == 16
    assert pretrained.embed(torch.zeros(2, 8000)).shape == (2, 16)
    assert pretrained.mean == pytest.approx(record["log_mel"]["mean"])


@pytest.mark.parametrize("kind", ["byol", "supervised"])
def test_other_objectives_run(kind: str, manifest: Path, tmp_path: Path) -> None:
    metrics = engine.train(plan(kind, manifest), tmp_path / kind)
    assert metrics["windows"] == 64 and metrics["last"]["loss"] > 0
    assert load_pretrained(tmp_path / kind).head is None


def test_hybrid_runs_on_features(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "crykit_train.ssl.compare_windows.compare_features",
        lambda samples: samples[:6373].astype("float32"),
    )
    engine.train(plan("hybrid", manifest, "train.steps=2"), tmp_path / "run")
    assert {"supervised", "self_supervised"} <= rows(tmp_path / "run")[-1].keys()
    record = read_manifest(manifest)
    adapted = adaptation_plan(AdaptRecipe(train={"steps": 2}), tmp_path / "run", record)
    assert "compare.scale" in adapted.tensors
    engine.train(adapted, tmp_path / "on")


def test_simclr_learns(manifest: Path, tmp_path: Path) -> None:
    more = ("train.steps=80", "train.log_every_steps=10", "train.learning_rate=3e-3")
    engine.train(plan("simclr", manifest, *more), tmp_path / "run")
    history = rows(tmp_path / "run")
    assert history[-1]["loss"] < history[0]["loss"] - 0.3


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "crykit.cli", "train", *map(str, arguments)]


def test_killed_in_the_middle_it_resumes_to_the_same_curve(manifest: Path, tmp_path: Path) -> None:
    """SIGKILL between two checkpoints, while it runs as a command."""
    settings = [s for s in TINY if not s.startswith("train.steps")] + ["train.steps=60"]
    base = command("pretrain", "--recipe", RECIPES / "byol-small.toml", "--manifest", manifest)
    base += [part for s in settings for part in ("--set", s)]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = subprocess.run([*base, "--out", str(whole)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 60
    process = subprocess.Popen(
        [*base, "--out", str(cut)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (cut / "history.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = len(rows(cut))
    assert 0 < killed_at < 30 and not (cut / "encoder.json").exists()
    again = subprocess.run(
        [*base, "--out", str(cut), "--resume"], capture_output=True, text=True, env=os.environ
    )
    assert again.returncode == 0, again.stderr
    assert rows(cut) == rows(whole)
    one, two = (load_pretrained(run).encoder.state_dict() for run in (whole, cut))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_two_processes_of_torchrun_share_a_run(manifest: Path, tmp_path: Path) -> None:
    """The command as it stands, under torchrun: one folder, one answer, every clip once."""
    run = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    call = command("pretrain", "--recipe", RECIPES / "simclr-small.toml", "--manifest", manifest)
    settings = [*TINY, "train.accelerator=cpu"]
    call = call[1:] + [part for s in settings for part in ("--set", s)]
    done = subprocess.run(
        [*launch, *call, "--out", str(run)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["windows"] == 64
    assert [row["step"] for row in rows(run)] == [2, 4, 6, 8]
    tensors, state = engine.RunFolder(run).load()
    assert len(state["positions"]) == 2
    assert tensors["memory"].shape[:2] == (2, 16)  # each process has a memory of its own
    assert not torch.equal(*tensors["memory"])
    assert load_pretrained(run).size == 16


def test_shards_feed_the_engine_and_resume(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [c for c in read_manifest(manifest) if c.split == "train"]
    write_shards(clips, tmp_path / "shards", clips_per_shard=8)
    recipe = tiny("byol", f'data.shards=["{tmp_path / "shards"}"]')
    whole = Plan(recipe, [], asked=recipe)
    engine.train(whole, tmp_path / "whole")
    saved = engine._Run._save

    def save_then_die(run: engine._Run, position: tuple[int, int]) -> None:
        saved(run, position)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine._Run, "_save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        engine.train(whole, tmp_path / "cut")
    monkeypatch.undo()
    engine.train(whole, tmp_path / "cut", resume=True)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    with pytest.raises(UsageError, match="manifest"):
        labelled = tiny("supervised", f'data.shards=["{tmp_path / "shards"}"]')
        engine.train(Plan(labelled, [], asked=labelled), tmp_path / "no")


def test_loss_that_is_no_number_stops_and_keeps_the_last_good_state(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    learn = engine._Run._learn

    def poisoned(self: engine._Run, batch: object) -> dict[str, torch.Tensor]:
        losses = learn(self, batch)  # type: ignore[arg-type]
        return {"loss": losses["loss"] * float("nan")} if self.step == 6 else losses

    monkeypatch.setattr(engine._Run, "_learn", poisoned)
    with pytest.raises(FaultFound, match=r"no number at step 6.*of step 4, is in"):
        engine.train(plan("simclr", manifest), run)
    monkeypatch.undo()
    assert [row["step"] for row in rows(run)] == [2, 4] and not (run / "encoder.json").exists()
    engine.train(plan("simclr", manifest), run, resume=True)
    assert rows(run)[-1]["step"] == 8


def test_weights_that_are_no_numbers_are_never_saved(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last step may break the weights while its own loss was still sound."""

    def broken(objective: SimClr) -> None:
        steps = int(objective.projector[1].num_batches_tracked)
        if steps == 6:
            torch.nn.init.constant_(objective.encoder.fc[0].bias, float("inf"))

    monkeypatch.setattr(SimClr, "after_step", broken)
    more = ("train.save_every_steps=2",)
    with pytest.raises(FaultFound, match="weight is no number at step 6.*of step 4, is in"):
        engine.train(plan("simclr", manifest, *more), tmp_path / "run")
    tensors, state = engine.RunFolder(tmp_path / "run").load()
    assert state["step"] == 4 and all(t.isfinite().all() for t in tensors.values())


def _small_disk() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_full_disk_is_told_and_the_old_checkpoint_stays(general: Path, tmp_path: Path) -> None:
    """A process that may write no file over 20 kB: what a full disk does to the checkpoint."""
    run = tmp_path / "run"
    shutil.copytree(general, run)
    before = (run / "checkpoint.safetensors").read_bytes()
    code = (
        "import sys, torch; from pathlib import Path; from crykit.errors import CrykitError\n"
        "from crykit_train.ssl.folder import RunFolder\n"
        "try: RunFolder(Path(sys.argv[1])).save({'x': torch.zeros(99999)}, {'history': []})\n"
        "except CrykitError as error: print(error); sys.exit(error.exit_code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)],
        capture_output=True,
        text=True,
        preexec_fn=_small_disk,
    )
    assert done.returncode == 3, done.stderr
    assert "cannot be written" in done.stdout and "--resume" in done.stdout
    assert (run / "checkpoint.safetensors").read_bytes() == before
    assert not list(run.glob("*.partial"))


def test_folders_and_recipes_that_do_not_fit_are_refused(
    general: Path, manifest: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="not empty"):
        engine.train(plan("simclr", manifest), general)
    with pytest.raises(UsageError, match="another recipe"):
        engine.train(plan("simclr", manifest), general, resume=True)
    with pytest.raises(InputError, match="no run to resume"):
        engine.train(plan("simclr", manifest), tmp_path / "none", resume=True)
    with pytest.raises(UsageError, match="warmup"):
        tiny("simclr", "train.warmup=3")
    with pytest.raises(UsageError, match="optimiser"):
        tiny("simclr", "train.optimiser=adagrad")
    with pytest.raises(UsageError, match="longer window"):
        engine.train(plan("simclr", manifest, "views.window_s=0.01"), tmp_path / "short")


def test_killed_before_the_first_checkpoint_it_begins_anew(
    general: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(run: engine._Run, position: tuple[int, int]) -> None:
        raise KeyboardInterrupt

    asked = plan("simclr", manifest, 'data.exclude_sources=["clinic", "app"]')
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine._Run, "_save", die)
        engine.train(asked, tmp_path / "run")
    engine.train(asked, tmp_path / "run", resume=True)
    assert rows(tmp_path / "run") == rows(general)


def test_checkpoint_of_another_encoder_is_refused(
    general: Path, manifest: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(general, run)
    record = json.loads((run / "encoder.json").read_text())
    record["training"]["recipe"]["encoder"]["options"]["channels"] = 6
    (run / "encoder.json").write_text(json.dumps(record))
    adapted = adaptation_plan(AdaptRecipe(), run, read_manifest(manifest))
    with pytest.raises(InputError, match="another encoder or objective"):
        engine.train(adapted, tmp_path / "on")
    (run / "checkpoint.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match="cannot be read"):
        adaptation_plan(AdaptRecipe(), run, read_manifest(manifest))
    with pytest.raises(InputError, match="finished run"):
        adaptation_plan(AdaptRecipe(), tmp_path, read_manifest(manifest))


# --- adaptation ------------------------------------------------------------------------------


def test_adaptation_starts_from_encoder_and_projector(
    general: Path, manifest: Path, tmp_path: Path
) -> None:
    recipe = AdaptRecipe(replay_share=0.0, train={"steps": 2, "learning_rate": 1e-12})
    adapted = adaptation_plan(recipe, general, read_manifest(manifest))
    assert {c.event for c in adapted.clips} == {"cry", "unverified"}
    assert adapted.recipe.train.batch == 200 and adapted.recipe.train.optimiser == "adam"
    engine.train(adapted, tmp_path / "on")
    first, second = (engine.RunFolder(run).load()[0] for run in (general, tmp_path / "on"))
    moved = [k for k in first if k.startswith("objective.") and "running" not in k]
    moved = [k for k in moved if "num_batches" not in k]
    assert any("projector" in k for k in moved)
    for key in moved:
        torch.testing.assert_close(first[key], second[key], atol=1e-6, rtol=0)
    record = json.loads((tmp_path / "on" / "encoder.json").read_text())
    assert record["stage"] == "adapt"
    assert [s["source"] for s in record["training"]["started_from"]["data"]] == ["library"]
    one, two = load_pretrained(general), load_pretrained(tmp_path / "on")
    assert (one.mean, one.std) == (two.mean, two.std)  # the encoder keeps its own scale


def test_replay_brings_back_half_of_the_first_audio(general: Path, manifest: Path) -> None:
    clips = read_manifest(manifest)
    heard = {c.path for c in adaptation_plan(AdaptRecipe(), general, clips).clips}
    cries = {c.path for c in clips if c.split == "train" and c.event in ("cry", "unverified")}
    library = {c.path for c in clips if c.split == "train" and c.source == "library"}
    assert cries < heard and len(heard - cries) == -(-len(library) // 2)
    assert heard - cries < library


def test_a_source_left_out_is_heard_nowhere(general: Path, manifest: Path) -> None:
    clips = read_manifest(manifest)
    from crykit_train.ssl.recipes import DataRecipe

    data = DataRecipe(include_events=("cry", "unverified"), exclude_sources=("app",))
    heard = adaptation_plan(AdaptRecipe(data=data), general, clips).clips
    assert {c.source for c in heard} == {"clinic", "library"}
    assert "baby" not in {c.group for c in heard}
    everything = DataRecipe(include_events=("cry",), exclude_sources=("library",))
    with pytest.raises(InputError, match="widen"):  # nothing is left to replay
        adaptation_plan(AdaptRecipe(data=everything), general, clips)


def test_adaptation_recipe_refuses_unknown_keys(general: Path, manifest: Path) -> None:
    with pytest.raises(UsageError, match="warmup"):
        adaptation_plan(AdaptRecipe(train={"warmup": 3}), general, read_manifest(manifest))


def test_leaking_split_is_refused_or_stamped(manifest: Path, tmp_path: Path) -> None:
    text = manifest.read_text().replace("g28,train", "g29,train")  # g29 is in val as well
    torn = manifest.with_name("torn.csv")
    torn.write_text(text)
    call = ["--recipe", str(RECIPES / "simclr-small.toml"), "--manifest", str(torn)]
    call += [part for s in (*TINY, "train.steps=2") for part in ("--set", s)]
    call += ["--out", str(tmp_path / "run")]
    refused = CliRunner().invoke(pretrain.command, call)
    assert isinstance(refused.exception, InputError) and "split by group" in str(refused.exception)
    done = CliRunner().invoke(pretrain.command, [*call, "--leaky"])
    assert done.exit_code == 0, done.output
    for name in ("encoder.json", "metrics.json"):
        assert json.loads((tmp_path / "run" / name).read_text())["leaky"] is True


def test_leak_is_stamped_along(general: Path, manifest: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(general, run)
    record = json.loads((run / "encoder.json").read_text())
    (run / "encoder.json").write_text(json.dumps({**record, "leaky": True}))
    assert adaptation_plan(AdaptRecipe(), run, read_manifest(manifest)).leaky


PAPERS = {  # layers of projectors and predictors: Gorin 2.2; Niizumi 2021; Elbanna 2.2
    "simclr": {(2048, 2048), (2048, 512)},
    "byol": {(2048, 4096), (4096, 256), (256, 4096)},
    "hybrid": {(2048, 4096), (4096, 6373), (6373, 4096)},
    "supervised": {(2048, 309)},
}


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.toml")), ids=lambda f: f.stem)
def test_recipes_of_the_house_are_valid(file: Path) -> None:
    stem = file.stem.removesuffix("-small")
    if stem == "adapt":
        load_recipe(file, AdaptRecipe)
    elif stem in ("simclr", "byol", "byol-v2", "hybrid", "supervised"):
        recipe = load_recipe(file, PretrainRecipe)
        assert (RECIPES / f"{stem}-small.toml").is_file()
        with torch.device("meta"):  # shapes without memory
            objective = build_objective(recipe, classes=309)
        if file.stem in PAPERS:
            layers = [m for m in objective.modules() if isinstance(m, torch.nn.Linear)]
            shapes = {(layer.in_features, layer.out_features) for layer in layers}
            assert PAPERS[file.stem] <= shapes


def test_learning_rates() -> None:
    t = TrainRecipe(learning_rate=1.0, schedule="cosine", warm_up_steps=4)
    rates = [engine.learning_rate(t, step, 12) for step in range(13)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and rates[4] == 1.0
    assert rates[8] == pytest.approx(0.5) and rates[12] == pytest.approx(0.0)
    assert engine.learning_rate(TrainRecipe(), 99, 100) == 3e-4
