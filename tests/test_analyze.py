"""`crykit train analyze`: which clips a domain hears, paired differences, and whole runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402

from crykit.dataset import Clip, read_clip, read_manifest  # noqa: E402
from crykit.errors import InputError, UsageError  # noqa: E402
from crykit_train.commands.analyze import command  # noqa: E402
from crykit_train.probe.outcome import Outcome  # noqa: E402
from crykit_train.probe.tasks import Task  # noqa: E402
from crykit_train.recipe import load_recipe  # noqa: E402
from crykit_train.understand import pictures  # noqa: E402
from crykit_train.understand.domains import (  # noqa: E402
    domain_clips,
    labels_task,
    pretrain_domains,
    seconds_of,
)
from crykit_train.understand.models import open_models, split_name  # noqa: E402
from crykit_train.understand.paired import paired  # noqa: E402
from crykit_train.understand.recipes import AnalyzeRecipe, DomainsRecipe  # noqa: E402
from crykit_train.understand.study import Study, to_json  # noqa: E402

pytestmark = pytest.mark.torch

RECIPES = Path(__file__).parents[1] / "train" / "recipes"
HELD = ("sounds", "words", "babies")


def sound(kind: int, rng: np.random.Generator, seconds: float = 1.0) -> np.ndarray:
    """A harmonic tone (even kinds) or filtered noise (odd ones), by the kind."""
    t = np.arange(int(16_000 * seconds)) / 16_000
    if kind % 2:
        noise = rng.standard_normal(len(t))
        return 0.1 * np.convolve(noise, np.ones(1 + 3 * kind) / (1 + 3 * kind), "same")
    hz = 200.0 * (1 + kind) * rng.uniform(0.9, 1.1)
    return 0.1 * sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 4))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of one second, a group each: speech and noises to hear, three sources to ask about."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    rows: list[dict[str, str]] = []

    def add(source: str, event: str, label: str, split: str, kind: int) -> None:
        name = f"{len(rows)}.wav"
        soundfile.write(folder / name, sound(kind, rng), 16_000)
        rows.append(
            {
                "path": name,
                "event": event,
                "group": f"{source}:{len(rows)}",
                "split": split,
                "source": source,
                "orig_label": label,
                "duration_s": "1.0",
            }
        )

    for _ in range(10):
        add("talks", "speech", "talk", "train", 0)
    for _ in range(20):
        add("places", "noise", "wind", "train", 1)
    for split, n in (("train", 6), ("val", 6), ("test", 6)):
        for _ in range(n):
            add("sounds", "household", "tap", split, 1)
            add("sounds", "alarm", "bell", split, 4)
            add("words", "speech", "word:one", split, 0)
            add("words", "speech", "word:two", split, 2)
            add("babies", "cry", "cry", split, 2)
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def clips(manifest: Path) -> list[Clip]:
    return read_manifest(manifest)


RECIPE = """
[encoder]
name = "audiontt2020"
options = { channels = 4, size = 32 }

[cka]
clips = 12
window_s = 0.95

[rsa]
sources = ["sounds", "words"]
pitched_sources = ["words"]
clips = 24
permutations = 19

[tsne]
clips = 30
panels = [{ title = "sounds", colour = "label", sources = ["sounds"] },
          { title = "words, by pitch", colour = "pitch", sources = ["words"] },
          { title = "none such", sources = ["nowhere"] }]

[domains]
held_out = ["sounds", "words", "babies"]
plan = { repeats = 2, epochs = 30, learning_rate = 1e-2 }
c_grid = [0.01, 0.1]
tasks = [{ domain = "non-speech", labels_of = "sounds" },
         { domain = "cry", task = { name = "cry_detection" } }]

[domains.pretrain]
objective = { kind = "byol", hidden = 16, size = 8 }
encoder = { name = "audiontt2020", options = { channels = 4, size = 32 } }
train = { steps = 2, batch = 4, log_every_steps = 1, statistics_windows = 20 }
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "analyze.toml"
    path.write_text(RECIPE)
    return path


# --- what a domain hears ----------------------------------------------------------------------


def events_of(heard: list[Clip]) -> dict[str, int]:
    return {event: sum(c.event == event for c in heard) for event in ("speech", "noise")}


def test_domains_hear_as_many_seconds_each(clips: list[Clip]) -> None:
    recipe = DomainsRecipe(held_out=HELD)
    heard = {d: domain_clips(clips, d, recipe) for d in ("speech", "non-speech", "both", "sum")}
    assert events_of(heard["speech"]) == {"speech": 10, "noise": 0}
    assert events_of(heard["non-speech"]) == {"speech": 0, "noise": 10}
    assert events_of(heard["both"]) == {"speech": 5, "noise": 5}
    assert events_of(heard["sum"]) == {"speech": 10, "noise": 10}
    assert seconds_of(heard["both"]) == pytest.approx(10.0)
    # Nothing is in both that speech or non-speech did not hear.
    alone = {c.path for d in ("speech", "non-speech") for c in heard[d]}
    assert {c.path for c in heard["both"]} < alone


def test_no_encoder_hears_a_source_that_is_asked_about(clips: list[Clip]) -> None:
    for domain in ("speech", "non-speech", "both"):
        heard = domain_clips(clips, domain, DomainsRecipe(held_out=HELD))
        assert not {c.source for c in heard} & set(HELD)
        assert {c.split for c in heard} == {"train"}


def test_refuses_more_seconds_than_there_are_and_an_empty_domain(clips: list[Clip]) -> None:
    with pytest.raises(InputError, match="speech holds 10 s, fewer than 15"):
        domain_clips(clips, "both", DomainsRecipe(held_out=HELD, seconds=15))
    with pytest.raises(InputError, match="no train clip of speech is left"):
        domain_clips(clips, "speech", DomainsRecipe(held_out=(*HELD, "talks")))


def test_durations_come_from_the_files_where_the_manifest_has_none(clips: list[Clip]) -> None:
    bare = Clip(clips[0].path, "speech", "g", "train", "s", "l", "x", "", {})
    assert seconds_of([bare, clips[1]]) == pytest.approx(2.0)


def test_labels_that_a_split_lacks_are_no_classes(clips: list[Clip]) -> None:
    task = labels_task(clips, "sounds")
    assert task.classes == ("bell", "tap")
    torn = [c for c in clips if not (c.label == "bell" and c.split == "val")]
    with pytest.raises(InputError, match=r"sounds has 1 class\(es\)"):
        labels_task(torn, "sounds")


def test_needs_a_pretraining_section(clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="domains.pretrain"):
        pretrain_domains(DomainsRecipe(held_out=HELD), clips, tmp_path)


# --- paired differences -----------------------------------------------------------------------


def outcome(scores: np.ndarray, targets: np.ndarray, metric: Any = "auc") -> Outcome:
    n = len(targets)
    task = Task("t", [], [], ("a", "b"), np.array([], np.str_), metric)
    both = np.stack([-scores, scores], -1)
    return Outcome(task, targets, [str(i // 2) for i in range(n)], both)


@pytest.mark.parametrize("metric", ["auc", "average precision"])
def test_a_model_does_not_differ_from_itself(metric: str) -> None:
    rng = np.random.default_rng(0)
    targets = np.arange(40) % 2
    same = outcome(rng.standard_normal((3, 40)), targets, metric)
    assert paired(same, same, draws=20) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("metric", ["auc", "average precision"])
def test_a_better_model_is_better_and_pairing_narrows_the_interval(metric: str) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, 80)
    base = targets + 1.5 * rng.standard_normal(80)
    weak = outcome(base[None], targets, metric)
    strong = outcome((base + 0.8 * targets)[None], targets, metric)
    value, low, high = paired(strong, weak, draws=100)
    measure = roc_auc_score if metric == "auc" else average_precision_score
    expected = measure(targets, base + 0.8 * targets) - measure(targets, base)
    assert value == pytest.approx(expected, abs=1e-9)
    assert 0.0 < low < value < high
    other = outcome((targets + 1.5 * rng.standard_normal(80))[None], targets, metric)
    _, low_other, high_other = paired(other, weak, draws=100)
    assert high - low < 0.7 * (high_other - low_other)


def test_refuses_other_clips() -> None:
    a = outcome(np.zeros((1, 6)), np.arange(6) % 2)
    b = outcome(np.zeros((1, 8)), np.arange(8) % 2)
    with pytest.raises(InputError, match="same clips"):
        paired(a, b)


# --- models -----------------------------------------------------------------------------------


def test_models_are_named_by_their_path_or_by_the_user() -> None:
    assert split_name("mine=runs/byol") == ("mine", "runs/byol")
    assert split_name("runs/byol") == ("byol", "runs/byol")
    assert split_name("random") == ("random", "random")
    with pytest.raises(UsageError, match="NAME=PATH"):
        split_name("=x")


def test_an_untrained_encoder_hears_normalised_log_mels(clips: list[Clip], tmp_path: Path) -> None:
    recipe = AnalyzeRecipe()
    models = open_models([("random", "random")], recipe.encoder)
    train = [c for c in clips if c.split == "train"]
    study = Study(recipe, clips, models, tmp_path, also=train)
    frames = torch.cat([models["random"].pretrained.log_mel(_read(c)).flatten() for c in train])
    assert len(study.bank.clips) == len(clips)
    found = study.models["random"]
    assert found.pretrained is not None and found.name == "random"
    assert found.pretrained.mean == pytest.approx(float(frames.mean()), abs=0.01)
    assert found.pretrained.std == pytest.approx(float(frames.std()), abs=0.01)


def _read(clip: Clip) -> Any:
    return torch.from_numpy(read_clip(clip))[None]


def test_refuses_a_name_twice_and_a_path_that_is_nothing(tmp_path: Path) -> None:
    encoder = AnalyzeRecipe().encoder
    with pytest.raises(UsageError, match="a: is given twice"):
        open_models([("a", "log-mel"), ("a", "log-mel")], encoder)
    with pytest.raises(InputError, match="no such folder"):
        open_models([("a", str(tmp_path / "none"))], encoder)


def test_log_mel_tells_the_mean_and_the_deviation_of_each_band() -> None:
    floor = open_models([("floor", "log-mel")], AnalyzeRecipe().encoder)["floor"]
    assert floor.name == "floor" and not floor.trainable
    _, windows = floor.peer.run(np.zeros(16_000, np.float32))
    assert windows.shape == (1, 128)
    np.testing.assert_allclose(windows[0, 64:], 0.0, atol=1e-5)  # silence does not vary


def test_wavlm_weights_are_opened_from_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stand:
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def embed(self, samples: np.ndarray) -> Any:
            return torch.full((1, 16), float(len(samples)))

    monkeypatch.setattr("crykit_train.peers.wavlm.Wavlm", Stand)
    folder = tmp_path / "wavlm"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    model = open_models([split_name(f"peer={folder}")], AnalyzeRecipe().encoder)["peer"]
    assert model.peer.model.folder == folder
    _, windows = model.peer.run(np.zeros(8000, np.float32))
    np.testing.assert_array_equal(windows, np.full((1, 16), 8000.0))


# --- pictures ---------------------------------------------------------------------------------


def test_a_leaky_picture_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    titles: list[str] = []
    plain = Figure.suptitle

    def keep(figure: Figure, text: str, **kwargs: Any) -> Any:
        titles.append(text)
        return plain(figure, text, **kwargs)

    monkeypatch.setattr(Figure, "suptitle", keep)
    matrix = {("a", "b"): np.eye(2)}
    layers = {"a": ["x", "y"], "b": ["x", "y"]}
    pictures.draw_cka(matrix, layers, tmp_path / "c.png", title="CKA", leaky=True)
    pictures.draw_cka(matrix, layers, tmp_path / "c.png", title="CKA")
    assert pictures.STAMP in titles[0] and pictures.STAMP not in titles[1]
    assert (tmp_path / "c.png").read_bytes()[1:4] == b"PNG"


def test_sixty_four_categories_differ() -> None:
    assert len({tuple(pictures.style(i).values()) for i in range(64)}) == 64


def test_json_has_null_for_what_is_no_number() -> None:
    found = to_json({"a": np.array([1.0, np.nan]), "b": (np.int64(3), None), 4: float("inf")})
    assert found == {"a": [1.0, None], "b": [3, None], "4": None}
    json.dumps(found, allow_nan=False)


# --- whole runs -------------------------------------------------------------------------------


def analyze(*arguments: str | Path) -> Any:
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=True)


def test_a_whole_study_is_written(manifest: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    done = analyze(
        "--recipe", recipe, "--manifest", manifest, "--out", out, "--model", "random",
        "--model", "floor=log-mel",
    )  # fmt: skip
    assert done.exit_code == 0, done.output + repr(done.exception)
    for name in ("domains", "cka", "rsa", "tsne"):
        assert json.loads((out / f"{name}.json").read_text())["leaky"] is False
        assert (out / f"{name}.png").stat().st_size < 150_000
    domains = json.loads((out / "domains.json").read_text())
    assert list(domains["transfer"]["scores"]) == [
        "speech",
        "non-speech",
        "both",
        "random",
        "floor",
    ]
    assert domains["seconds"] == {"speech": 10.0, "non-speech": 10.0, "both": 10.0}
    for protocol in ("transfer", "logistic"):
        score = domains[protocol]["scores"]["floor"]["sounds labels"]
        assert score["value"] > 0.9 and score["groups"] == 12
    compared = {(d["a"], d["b"]) for d in domains["transfer"]["differences"]}
    assert {("speech", "non-speech"), ("both", "random")} < compared
    heard = {e["source"] for e in domains["models"]["speech"]["heard"]}
    assert heard == {"talks"}
    cka = json.loads((out / "cka.json").read_text())
    assert {(p["a"], p["b"]) for p in cka["pairs"]} > {("speech", "random")}
    assert cka["layers"]["random"][-1] == "embedding"
    rsa = json.loads((out / "rsa.json").read_text())
    assert [s["name"] for s in rsa["sets"]] == ["sounds", "words"]
    pitch = rsa["descriptors"].index("pitch")
    assert rsa["n_sets"][0][pitch] == 1  # of words alone
    tsne = json.loads((out / "tsne.json").read_text())
    assert [p["drawn"] for p in tsne["panels"]] == [True, True, False]
    assert tsne["panels"][0]["neighbours_agree"]["floor"]["found"] > 0.9


def test_pretraining_that_is_finished_is_not_done_again(
    manifest: Path, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    arguments = ("--recipe", recipe, "--manifest", manifest, "--out", out, "--what", "domains")
    assert analyze(*arguments).exit_code == 0
    stamp = (out / "both-1" / "encoder.safetensors").stat().st_mtime_ns
    first = json.loads((out / "domains.json").read_text())
    assert analyze(*arguments).exit_code == 0
    assert (out / "both-1" / "encoder.safetensors").stat().st_mtime_ns == stamp
    assert json.loads((out / "domains.json").read_text())["transfer"] == first["transfer"]
    other = analyze(*arguments, "--set", "domains.seconds=6.0")
    assert isinstance(other.exception, UsageError) and "other clips" in str(other.exception)


def test_a_leaking_split_is_refused_or_stamped(
    manifest: Path, recipe: Path, tmp_path: Path
) -> None:
    rows = list(csv.DictReader(manifest.open()))
    for row in rows:
        if row["source"] == "sounds":
            row["group"] = "one recording"
        row["path"] = str(manifest.parent / row["path"])
    torn = tmp_path / "torn.csv"
    with torn.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    arguments = ("--recipe", recipe, "--manifest", torn, "--out", tmp_path / "o", "--what", "tsne")
    refused = analyze(*arguments, "--model", "log-mel")
    assert isinstance(refused.exception, InputError)
    done = analyze(*arguments, "--model", "log-mel", "--leaky")
    assert done.exit_code == 0, repr(done.exception)
    assert json.loads((tmp_path / "o" / "tsne.json").read_text())["leaky"] is True


@pytest.mark.parametrize(
    ("what", "message"),
    [("cka", "no encoder of ours"), ("rsa", "at least 1 model"), ("tsne", "at least 1 model")],
)
def test_says_which_model_is_missing(
    manifest: Path, recipe: Path, tmp_path: Path, what: str, message: str
) -> None:
    done = analyze(
        "--recipe", recipe, "--manifest", manifest, "--out", tmp_path / "o", "--what", what
    )
    assert isinstance(done.exception, UsageError) and message in str(done.exception)


def test_a_manifest_is_needed_and_an_unknown_key_is_named(recipe: Path, tmp_path: Path) -> None:
    done = analyze("--recipe", recipe, "--out", tmp_path / "o")
    assert isinstance(done.exception, UsageError) and "no manifest" in str(done.exception)
    recipe.write_text("[cka]\nclip = 3\n")
    done = analyze("--recipe", recipe, "--out", tmp_path / "o", "--manifest", "x.csv")
    assert isinstance(done.exception, UsageError) and "clip" in str(done.exception)


@pytest.mark.parametrize("name", ["analyze.toml", "analyze-small.toml"])
def test_recipes_that_come_with_the_kit_are_read(name: str) -> None:
    recipe = load_recipe(RECIPES / name, AnalyzeRecipe)
    assert recipe.domains.pretrain is not None
    assert recipe.domains.domains[:3] == ("speech", "non-speech", "both")
