"""Distillation: targets are honest and land on the right frames, and a student learns them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("scipy", reason="needs the train extra")
pytest.importorskip("sklearn", reason="needs the train extra")

from conftest import Cli  # noqa: E402

from crykit.dataset import Clip, read_manifest  # noqa: E402
from crykit.errors import InputError, MissingPart, UsageError  # noqa: E402
from crykit.nn.student import StudentConfig  # noqa: E402
from crykit.synth import synthetic_cry  # noqa: E402
from crykit_train import rounds, targets  # noqa: E402
from crykit_train.compose import ClipBank, Composer  # noqa: E402
from crykit_train.detector import Imitation, train_detector  # noqa: E402
from crykit_train.mix import mix_detectors  # noqa: E402
from crykit_train.models import load_run  # noqa: E402
from crykit_train.peers.yamnet import EMBEDDING_SIZE, WINDOW_SAMPLES, Yamnet  # noqa: E402
from crykit_train.recipe import (  # noqa: E402
    ComposeRecipe,
    DataRecipe,
    DetectorRecipe,
    DistilRecipe,
    TeacherRecipe,
    TrainRecipe,
)
from crykit_train.targets import SoftTargets, load_targets, save_targets  # noqa: E402

pytestmark = pytest.mark.torch
RATE_HZ = 16_000
TINY = StudentConfig(
    stem_channels=8,
    blocks=((16, 2, 1, True), (16, 2, 2, False), (24, 2, 1, False)),
    embedding_size=16,
    temporal_dilations=(1, 2),
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cries, tones, a noise floor, and four uploads that nobody has verified."""
    folder = tmp_path_factory.mktemp("uploads")
    rng = np.random.default_rng(3)
    t = np.arange(3 * RATE_HZ) / RATE_HZ
    rows = ["path,event,group,split,source,licence,tonal_frac,rms_dbfs"]

    def add(name: str, event: str, split: str, samples: np.ndarray, licence: str = "CC0") -> None:
        soundfile.write(folder / name, np.clip(samples, -1, 1), RATE_HZ)
        rows.append(f"{name},{event},{name},{split},made,{licence},0.9,-20")

    for split, n in (("train", 6), ("val", 2)):
        for k in range(n):
            add(f"{split}-cry{k}.flac", "cry", split, synthetic_cry(3.0, seed=k + 10 * n))
            tone = 0.3 * np.sin(2 * np.pi * 200 * (k + 1) * t)
            add(f"{split}-tone{k}.flac", "music", split, tone, "CC BY-NC 3.0" if k else "CC0")
        add(f"{split}-floor.flac", "noise", split, 0.05 * rng.standard_normal(len(t)))
    for k in range(2):
        add(f"maybe-cry{k}.flac", "unverified", "train", synthetic_cry(3.0, seed=90 + k))
        add(f"maybe-tone{k}.flac", "unverified", "train", 0.3 * np.sin(2 * np.pi * 250 * k * t + 1))
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def clips(manifest: Path) -> list[Clip]:
    return read_manifest(manifest)


def detectors(*paths: Path | str, **kwargs) -> DistilRecipe:
    teachers = tuple(TeacherRecipe("detector", str(path)) for path in paths)
    return DistilRecipe(teachers=teachers, **kwargs)


def even(clips: list[Clip], value: float) -> SoftTargets:
    """The same word on every clip."""
    return SoftTargets({c.path: np.full(75, value, np.float32) for c in clips}, [])


# --- what teachers say -------------------------------------------------------------------------


def test_teachers_are_averaged_by_weight(
    clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(teacher: TeacherRecipe, train: list[Clip], *_: object) -> tuple[dict, dict]:
        value = 1.0 if teacher.path == "sure" else 0.2
        return {c.path: np.full(75, value, np.float32) for c in train}, {}

    monkeypatch.setattr(targets, "_ask", say)
    teachers = (TeacherRecipe("detector", "sure", 3.0), TeacherRecipe("detector", "not", 1.0))
    found = targets.soft_targets(clips, DistilRecipe(teachers=teachers))
    assert set(found.tracks) == {c.path for c in clips if c.split == "train"}
    assert found.score(clips[0]) == pytest.approx((3 * 1.0 + 0.2) / 4)


def test_a_probe_never_repeats_a_label_that_it_was_fitted_on(clips: list[Clip]) -> None:
    """Features that only name the clip let a fit recite its labels; out of fold it can't."""
    rng = np.random.default_rng(0)
    noise: dict[bytes, np.ndarray] = {}

    def features(samples: np.ndarray) -> np.ndarray:
        # The low-passed copy of a clip is another array, and so has noise of its own.
        key = samples[:4000].tobytes()
        return noise.setdefault(key, rng.standard_normal((3, 64)).astype(np.float32))

    train = [c for c in clips if c.split == "train"]
    val = [c for c in clips if c.split == "val"]
    tracks, facts = targets._probe_tracks(features, 7680, 15600, train, val, None)
    cries = np.mean([tracks[c.path].mean() for c in train if c.event == "cry"])
    others = np.mean([tracks[c.path].mean() for c in train if c.event in ("music", "noise")])
    assert abs(cries - others) < 0.35  # in sample they would be 1 and 0
    assert facts["strength"] in targets.STRENGTHS


def test_a_probe_hears_what_its_features_tell(clips: list[Clip]) -> None:
    def features(samples: np.ndarray) -> np.ndarray:
        spectrum = np.abs(np.fft.rfft(samples[:16384]))
        spread = np.log(spectrum + 1e-3).std()
        flatness = np.exp(np.log(spectrum + 1e-6).mean()) / spectrum.mean()
        return np.tile(np.array([spread, flatness, samples.std()], np.float32), (3, 1))

    train = [c for c in clips if c.split == "train"]
    val = [c for c in clips if c.split == "val"]
    tracks, facts = targets._probe_tracks(features, 7680, 15600, train, val, None)
    assert facts["val_auc"] == 1.0
    sure = {c.path.stem: tracks[c.path].mean() for c in train if c.event == "unverified"}
    assert min(sure["maybe-cry0"], sure["maybe-cry1"]) > sure["maybe-tone1"]


def test_windows_are_spread_on_the_frame_grid() -> None:
    """Middles of 0.975 s windows every 0.48 s are at frames 12.2 and 24.2 of 40 ms."""
    track = targets._spread(np.array([0.0, 1.0]), 7680, 15600, 40)
    assert track[:11] == pytest.approx(0) and track[25:] == pytest.approx(1)
    assert track[18] == pytest.approx((18.5 - 15600 / 2 / 640) / 12)


def test_folds_keep_groups_whole(clips: list[Clip]) -> None:
    doubled = [*clips, *clips]
    folds = targets._folds(doubled)
    assert (folds[: len(clips)] == folds[len(clips) :]).all()
    assert len(set(folds)) == targets.N_FOLDS


def test_a_detector_teacher_hears_with_an_even_prior(
    clips: list[Clip], bundle_path: Path, tmp_path: Path, manifest: Path
) -> None:
    found = targets.soft_targets(clips, detectors(bundle_path))
    by_event = {"cry": [], "music": []}
    for clip in clips:
        if clip.split == "train" and clip.event in by_event:
            by_event[clip.event].append(found.score(clip))
    assert min(by_event["cry"]) > max(by_event["music"])
    assert found.report[0]["name"] == "cry-student"
    save_targets(tmp_path / "t.safetensors", found, manifest.parent)
    again = load_targets(tmp_path / "t.safetensors", manifest.parent)
    assert all((again.tracks[p] == track).all() for p, track in found.tracks.items())
    assert again.report == found.report
    # A manifest may name files outside its folder by their whole path.
    save_targets(tmp_path / "t.safetensors", found, tmp_path / "elsewhere")
    assert set(load_targets(tmp_path / "t.safetensors", tmp_path / "elsewhere").tracks) == set(
        found.tracks
    )


def test_teachers_that_cannot_be_asked(clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no path; give --teacher yamnet"):
        targets.soft_targets(clips, DistilRecipe(teachers=(TeacherRecipe("yamnet"),)))
    with pytest.raises(InputError, match="finished"):
        targets.soft_targets(clips, detectors(tmp_path))
    no_cries = [c for c in clips if c.event != "cry"]
    with pytest.raises(InputError, match="labelled cries"):
        targets._probe_tracks(lambda x: x, 1, 1, no_cries, [], None)
    with pytest.raises(InputError, match="cannot be read"):
        load_targets(tmp_path / "none.safetensors", tmp_path)


# --- on which frames it lands ------------------------------------------------------------------


def test_unverified_clips_are_sorted_by_the_teachers(clips: list[Clip]) -> None:
    data, distil = DataRecipe(exclude_events=()), DistilRecipe()
    train = [c for c in clips if c.split == "train"]
    for value, n_cries, n_others in ((0.9, 10, 7), (0.5, 6, 7), (0.01, 6, 11)):
        bank = ClipBank.load(train, data, distil, even(train, value))
        assert (len(bank.cries()), len(bank.others())) == (n_cries, n_others)
    assert len(ClipBank.load(train, data).cries()) == 6  # without teachers no one can tell


def test_labels_and_teachers_are_mixed(clips: list[Clip]) -> None:
    data, distil = DataRecipe(exclude_events=()), DistilRecipe(label_share=0.6, sharpness=1.0)
    train = [c for c in clips if c.split == "train"]
    bank = ClipBank.load(train, data, distil, even(train, 0.5))
    kept = {clip.event: track for clip, track in zip(bank.clips, bank.tracks, strict=True)}
    assert kept["cry"] == pytest.approx(0.6 + 0.4 * 0.5)
    assert kept["music"] == pytest.approx(0)  # half sure is left unsaid
    bank = ClipBank.load(train, data, distil, even(train, 0.9))
    kept = {clip.event: track for clip, track in zip(bank.clips, bank.tracks, strict=True)}
    assert kept["music"] == pytest.approx(0.4 * 0.9)
    assert kept["unverified"] == pytest.approx(0.9)


def test_sharpening_multiplies_the_log_odds() -> None:
    track = np.array([0.0, 0.2, 0.5, 0.9, 1.0], np.float32)
    assert targets.sharpened(track, 1.0) == pytest.approx(track)
    sharp = targets.sharpened(track, 4.0)
    assert sharp[[0, 2, 4]] == pytest.approx([0, 0.5, 1])
    assert np.log(sharp[3] / (1 - sharp[3])) == pytest.approx(4 * np.log(9), rel=1e-3)


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_a_track_follows_its_clip_through_a_change_of_speed(
    clips: list[Clip], speed: float
) -> None:
    """A teacher that hears a cry in the second half alone marks the second half alone."""
    train = [c for c in clips if c.split == "train"]
    half = {c.path: np.repeat([0.0, 1.0], [38, 37]).astype(np.float32) for c in train}
    distil = DistilRecipe(label_share=0.0, sharpness=1.0)
    bank = ClipBank.load(train, DataRecipe(), distil, SoftTargets(half, []))
    compose = ComposeRecipe(
        sequence_s=8.0, cry_share=1.0, negatives_mean=0.0, reverb_share=0.0, whole_clip_share=0.0,
        speed_share=1.0, cry_speed=(speed, speed),
    )  # fmt: skip
    composer = Composer(bank, compose, DataRecipe(), seed=1)
    i = bank.cries()[0]
    mix, target = np.zeros(8 * RATE_HZ, np.float32), np.zeros(200, np.float32)
    weight, placed = np.ones(200, np.float32), []
    at = RATE_HZ  # frame 25
    composer._place(
        np.random.default_rng(0), mix, i, at, 0.001, 20.0, (speed, speed), target, weight, placed
    )
    onset = 25 + (38 - bank.span[i][0] / 640) / speed
    assert abs(int(np.flatnonzero(target)[0]) - onset) <= 1.5
    assert target[np.flatnonzero(target)[0] + 2] == 1.0


def test_a_licence_filter_leaves_no_other_clip(clips: list[Clip]) -> None:
    train = [c for c in clips if c.split == "train"]
    bank = ClipBank.load(train, DataRecipe(licences="commercial"))
    assert {c.licence for c in bank.clips} == {"CC0"}
    assert len(bank.clips) < len(ClipBank.load(train, DataRecipe()).clips)


# --- what the student learns from it -----------------------------------------------------------


def test_imitation_is_one_minus_the_cosine() -> None:
    rng = np.random.default_rng(5)
    mean, std = rng.random(6).astype(np.float32), 1 + rng.random(6).astype(np.float32)
    imitation = Imitation(4, mean, std)
    embedding = torch.from_numpy(rng.standard_normal((2, 60, 4)).astype(np.float32))
    first, heard = np.array([[0, 7], [30, 36]]), rng.random((2, 2, 6)).astype(np.float32)
    loss = imitation(embedding, torch.from_numpy(first), torch.from_numpy(heard))
    matrix, bias = imitation.map.weight.detach().numpy(), imitation.map.bias.detach().numpy()
    cosines = []
    for b in range(2):
        for w in range(2):
            mine = matrix @ embedding[b, first[b, w] : first[b, w] + 24].numpy().mean(0) + bias
            theirs = (heard[b, w] - mean) / std
            cosines.append(mine @ theirs / np.linalg.norm(mine) / np.linalg.norm(theirs))
    assert float(loss.detach()) == pytest.approx(1 - np.mean(cosines), abs=1e-5)


class FakeYamnet:
    """Deterministic embeddings: band energies of the window."""

    def __init__(self, path: str) -> None:
        self.path = path

    def window(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert len(samples) == WINDOW_SAMPLES
        power = np.abs(np.fft.rfft(samples, 2 * EMBEDDING_SIZE))[:EMBEDDING_SIZE]
        return np.zeros(521, np.float32), np.log1p(power).astype(np.float32)

    def embed(self, samples: np.ndarray) -> np.ndarray:
        return np.stack([self.window(np.resize(samples, WINDOW_SAMPLES))[1]] * 6)


def tiny(distil: DistilRecipe, n_rounds: int = 2) -> DetectorRecipe:
    return DetectorRecipe(
        name="tiny",
        data=DataRecipe(exclude_events=()),
        model=TINY,
        compose=ComposeRecipe(sequence_s=4.0),
        distil=distil,
        train=TrainRecipe(
            rounds=n_rounds, sequences_per_round=16, batch=8, warm_up_steps=2, threads=1
        ),
    )


def test_distils_and_resumes_to_the_same_curve(
    manifest: Path, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The composing process is forked, so it sees this too.
    monkeypatch.setattr(rounds, "Yamnet", FakeYamnet)
    monkeypatch.setattr("crykit_train.peers.yamnet.Yamnet", FakeYamnet)
    distil = DistilRecipe(
        teachers=(TeacherRecipe("yamnet", "y"), TeacherRecipe("detector", str(bundle_path))),
        embedding_weight=0.5,
        unverified_cry=0.7,
    )
    train_detector(tiny(distil), manifest, tmp_path / "whole")
    facts = load_run(tmp_path / "whole")[1]["training"]["distilled_from"]
    assert [t["kind"] for t in facts["teachers"]] == ["yamnet", "detector"]
    assert facts["unverified_as_cry"] >= 1

    from crykit_train import detector

    saved = detector._Run._save

    def save_then_die(run: detector._Run) -> None:
        saved(run)
        if run.round == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(detector._Run, "_save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train_detector(tiny(distil), manifest, tmp_path / "cut")
    monkeypatch.setattr(detector._Run, "_save", saved)
    train_detector(tiny(distil), manifest, tmp_path / "cut", resume=True)
    one, two = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "history.jsonl").open()]
        for name in ("whole", "cut")
    )
    assert one == pytest.approx(two, rel=1e-4)


def test_starts_from_a_bundle(manifest: Path, bundle_path: Path, tmp_path: Path) -> None:
    recipe = DetectorRecipe(
        data=DataRecipe(exclude_events=()),
        compose=ComposeRecipe(sequence_s=4.0),
        distil=detectors(bundle_path),
        train=TrainRecipe(rounds=1, sequences_per_round=16, batch=8, learning_rate=1e-6, threads=1),
    )
    train_detector(recipe, manifest, tmp_path / "on", init=bundle_path)
    training = load_run(tmp_path / "on")[1]["training"]
    assert training["started_from"]["bundle"] == "cry-student"
    with pytest.raises(InputError, match="another shape"):
        train_detector(tiny(detectors(bundle_path)), manifest, tmp_path / "off", init=bundle_path)


def test_imitation_needs_a_teacher_with_embeddings(
    manifest: Path, bundle_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="needs a teacher of kind yamnet"):
        recipe = tiny(detectors(bundle_path, embedding_weight=0.3))
        train_detector(recipe, manifest, tmp_path / "run")


def test_the_command_refuses_teachers_without_a_place(
    run_cli: Cli, manifest: Path, tmp_path: Path
) -> None:
    recipes = Path(__file__).parents[1] / "train" / "recipes"
    base = ["train", "distill", "--manifest", manifest, "--out", tmp_path / "run", "--recipe"]
    for extra, said in (
        ([recipes / "distill.toml", "--teacher", "wavlm=x"], b"expected KIND=PATH"),
        ([recipes / "detector-small.toml"], b"names no teacher"),
        ([recipes / "distill-small.toml"], b"give --teacher yamnet=PATH"),
        ([recipes / "distill-small.toml", "--teacher", "yamnet=none.tflite"], b"no file"),
        (
            [recipes / "distill-small.toml", "--teacher", "yamnet=a", "--teacher", "yamnet=b"],
            b"no teacher left",
        ),
    ):
        done = run_cli(*base, *extra)
        assert done.returncode in (2, 3) and said in done.stderr, done.stderr


def test_a_leaky_start_or_teacher_stamps_the_student(
    manifest: Path, bundle_path: Path, tmp_path: Path
) -> None:
    leaky, heir, taught = tmp_path / "leaky", tmp_path / "heir", tmp_path / "taught"
    assert train_detector(tiny(DistilRecipe(), 1), manifest, leaky, leaky=True)["leaky"]
    assert train_detector(tiny(DistilRecipe(), 1), manifest, heir, init=leaky)["leaky"]
    assert train_detector(tiny(detectors(leaky), 1), manifest, taught)["leaky"]
    for run in (heir, taught):
        assert load_run(run)[1]["description"].endswith("(LEAKY SPLIT)")
    assert mix_detectors(leaky, heir, 0.5, tmp_path / "mixed")["leaky"]


# --- before and after, averaged ----------------------------------------------------------------


def test_mixing_is_a_straight_line_between_the_weights(
    manifest: Path, bundle_path: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train_detector(tiny(DistilRecipe(), 1), manifest, one)
    train_detector(tiny(DistilRecipe(), 1), manifest, two, init=one)
    facts = mix_detectors(one, two, 0.25, tmp_path / "mixed")
    weights = [load_run(run)[0].state_dict() for run in (one, two, tmp_path / "mixed")]
    for key, mixed in weights[2].items():
        if mixed.is_floating_point():
            wanted = 0.75 * weights[0][key].double() + 0.25 * weights[1][key].double()
            torch.testing.assert_close(mixed.double(), wanted, rtol=1e-5, atol=1e-7)
    assert facts["training"]["mixed_with"]["share_of_it"] == 0.75
    with pytest.raises(InputError, match="another shape"):
        mix_detectors(one, bundle_path, 0.5, tmp_path / "no")
    with pytest.raises(UsageError, match="less than 1"):
        mix_detectors(one, two, 1.0, tmp_path / "no")
    with pytest.raises(UsageError, match="not empty"):
        mix_detectors(one, two, 0.5, tmp_path / "mixed")


# --- YAMNet itself -----------------------------------------------------------------------------


@pytest.mark.data
def test_yamnet_hears_a_cry(data_root: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs the peers extra")
    graph = data_root.parent / "models" / "yamnet.tflite"
    if not graph.is_file():
        pytest.skip("yamnet.tflite is not at hand")
    from crykit.dataset import read_clip
    from crykit_train.peers.yamnet import CRY_CLASS

    yamnet = Yamnet(graph)
    cries = [c for c in read_manifest(data_root / "manifest.csv") if c.event == "cry"][:3]
    for clip in cries:
        samples = read_clip(clip)
        scores, embeddings = yamnet.run(samples)
        assert scores.shape == (len(embeddings), 521) and embeddings.shape[1] == EMBEDDING_SIZE
        assert len(scores) == max(1, -(-(len(samples) - WINDOW_SAMPLES) // 7680) + 1)
        assert scores[:, CRY_CLASS].max() > 0.2
        # The scores are a sigmoid of a linear map of the embedding: it is the one before them.
        assert embeddings.min() >= 0
    assert yamnet.embed(np.zeros(100, np.float32)).shape == (1, EMBEDDING_SIZE)


def test_yamnet_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs the peers extra")
    with pytest.raises(InputError, match="no file"):
        Yamnet(tmp_path / "none.tflite")
    (tmp_path / "bad.tflite").write_bytes(b"nonsense" * 10)
    with pytest.raises(InputError, match=r"no TensorFlow Lite graph"):
        Yamnet(tmp_path / "bad.tflite")
    monkeypatch.setattr("crykit_train.peers.yamnet.find_spec", lambda name: None)
    with pytest.raises(MissingPart, match=r"crykit\[peers\]"):
        Yamnet(tmp_path / "bad.tflite")


# --- reasons, as far as they may be claimed ----------------------------------------------------


def reason_clips(folder: Path, told: bool, n_babies: int = 12) -> list[Clip]:
    """Cries of babies with two reasons; if ``told``, the reason can be heard (in the pitch)."""
    rng = np.random.default_rng(8)
    clips = []
    for baby in range(n_babies):
        for k in range(2):
            reason = ("hungry", "tired")[baby % 2]
            noise = rng.standard_normal(2 * RATE_HZ) * 0.02
            hz = (350 if reason == "hungry" else 2500) if told else 350
            tone = 0.2 * np.sin(2 * np.pi * hz * np.arange(2 * RATE_HZ) / RATE_HZ)
            path = folder / f"{told}-{baby}-{k}.flac"
            soundfile.write(path, tone + noise, RATE_HZ)
            clips.append(
                Clip(path, "cry", f"baby{baby}", "train", "made", "CC0", "cry", reason, {})
            )
    return clips


def test_reasons_are_measured_between_babies(tmp_path: Path) -> None:
    from crykit.nn.student import CryStudent
    from crykit_train.reasons import reason_evidence

    torch.manual_seed(0)
    model = CryStudent(TINY)
    told = reason_evidence(model, reason_clips(tmp_path, told=True))
    assert told is not None and told["value"] > 0.9 and told["groups"] == 12
    guessed = reason_evidence(model, reason_clips(tmp_path, told=False))
    assert guessed is not None and guessed["ci95"][0] < 0.6  # under the bar: not to be claimed
    assert reason_evidence(model, reason_clips(tmp_path, told=True, n_babies=6)) is None
    assert reason_evidence(model, []) is None
