"""Importers, each on a miniature tree of the shape in which its data set is published."""

from __future__ import annotations

import csv
import json
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from crykit.dataset import read_manifest
from crykit.errors import FaultFound, InputError, UsageError
from crykit_train.data import download
from crykit_train.data.events import event_of, event_of_all
from crykit_train.data.importing import import_source
from crykit_train.data.measure import measure, periodicity, silent_fraction, tonal_fraction
from crykit_train.data.sources import SOURCES, source_of
from crykit_train.data.sources.base import ImportOptions

RATE_HZ = 16_000
Rows = list[dict[str, str]]


def sound(path: Path, seed: int, rate_hz: int = 8000, seconds: float = 0.3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(rate_hz * seconds))
    soundfile.write(path, samples, rate_hz)


def run(name: str, root: Path, out: Path, **settings: Any) -> tuple[Rows, dict[str, Any]]:
    """The rows of the manifest that comes out, which the trainer must accept, and the report."""
    ours = {"seed", "published_splits", "convert", "jobs"}
    options = ImportOptions(root, **{k: v for k, v in settings.items() if k not in ours})
    arguments = {k: v for k, v in settings.items() if k in ours}
    report = import_source(source_of(name), options, out, **arguments)
    assert len(read_manifest(out / "manifest.csv")) == report["clips"]
    with (out / "manifest.csv").open(newline="") as handle:
        return list(csv.DictReader(handle)), report


def uuid(k: int) -> str:
    return f"{k:08x}-0000-4000-8000-{k:012x}"


@pytest.fixture
def donateacry(tmp_path: Path) -> Path:
    """Ten app installations in the cleaned set, one of them relabelled; two raw uploads."""
    top = tmp_path / "donateacry-corpus-master"
    cleaned = top / "donateacry_corpus_cleaned_and_updated_data"
    for k in range(10):
        folder, code = ("hungry", "hu") if k < 7 else ("tired", "ti")
        for take in range(2):
            name = f"{uuid(k)}-14307261{k}{take}216-1.7-m-04-{code}.wav"
            sound(cleaned / folder / name, 10 * k + take)
    sound(cleaned / "discomfort" / f"{uuid(0).upper()}-1430726196-1.0-f-26-ch.wav", 500)
    raw = top / "donateacry-android-upload-bucket"
    sound(raw / f"{uuid(0)}-143072610216-1.7-m-04-dk.wav", 501)
    sound(raw / f"{uuid(1)}-14307261{1}{0}216-1.7-m-04-hu.wav", 502)  # its cleaned form is there
    (raw / f"{uuid(44)}-14307261999-1.7-m-04-hu.3gp").write_bytes(b"amr")
    sound(top / "somebody.wav", 503)
    return top


def test_donateacry(donateacry: Path, tmp_path: Path) -> None:
    rows, report = run("donateacry", donateacry.parent, tmp_path / "out")
    assert report["clips"] == 22 and report["left_out"] == {
        "name does not follow the corpus's convention": 1,
        "not readable as audio (.3gp; try --convert)": 1,
    }
    first = next(row for row in rows if row["reason"] == "discomfort")
    assert first["event"] == "cry" and first["group"] == f"da:{uuid(0)}"  # case is folded
    assert (first["gender"], first["age_group"]) == ("female", "2-6 months")
    assert first["orig_rate"] == "8000" and first["orig_format"] == "WAV/PCM_16"
    raw = [row for row in rows if row["source"] == "donateacry_raw"]
    assert [(r["event"], r["orig_label"]) for r in raw] == [("unverified", "raw_tag:unknown")]
    assert {row["split"] for row in rows if row["group"] == f"da:{uuid(0)}"} == {first["split"]}


def test_the_split_does_not_hang_on_the_order_or_the_run(donateacry: Path, tmp_path: Path) -> None:
    one, _ = run("donateacry", donateacry, tmp_path / "one")
    two, _ = run("donateacry", donateacry, tmp_path / "two", jobs=2)
    assert [r["split"] for r in one] == [r["split"] for r in two]
    other, _ = run("donateacry", donateacry, tmp_path / "other", seed=2)
    assert {r["group"]: r["split"] for r in one} != {r["group"]: r["split"] for r in other}


LICENSE_50 = """## Licensing/attribution details for individual clips:

101 - Dog:
- [1-100-A.ogg]: clip derived from rose (bark).wav (http://www.freesound.org/people/n/sounds/100/) \
by nfrae [CC0]
- [1-200-A.ogg]:  clip derived from b.wav (http://www.freesound.org/people/p/sounds/200/) \
by pion [CC-Sampling+]
"""


def test_esc50(tmp_path: Path) -> None:
    top = tmp_path / "ESC-50-master"
    (top / "meta").mkdir(parents=True)
    (top / "LICENSE").write_text(LICENSE_50)
    table = ["filename,fold,target,category,esc10,src_file,take"]
    for k, (src, take, category, ten) in enumerate(
        [
            (100, "A", "dog", True),
            (200, "A", "dog", True),
            (300, "A", "crying_baby", True),
            (300, "B", "crying_baby", True),
            (400, "A", "mouse_click", False),
            (500, "A", "siren", False),
        ]
    ):
        name = f"1-{src}-{take}-{k}.wav"
        table.append(f"{name},1,{k},{category},{ten},{src},{take}")
        if src != 500:
            sound(top / "audio" / name, k, 44100)
    (top / "meta" / "esc50.csv").write_text("\n".join(table) + "\n")
    rows, report = run("esc50", tmp_path, tmp_path / "out")
    assert report["left_out"] == {"audio missing": 1}
    events = {row["orig_label"]: row["event"] for row in rows}
    assert events == {"dog": "animal", "crying_baby": "cry", "mouse_click": "household"}
    cries = [row for row in rows if row["event"] == "cry"]
    assert {row["group"] for row in cries} == {"fs:300"} and len({r["split"] for r in cries}) == 1
    terms = {row["group"]: row["licence"] for row in rows}
    assert terms["fs:400"] == "CC BY-NC 3.0" and terms["fs:100"] == "CC BY 3.0 (ESC-10 part)"
    assert terms["fs:200"] == "CC BY 3.0 (ESC-10 part), CC Sampling+ (clip)"
    authors = {row["group"]: row["attribution"] for row in rows}
    assert authors["fs:100"] == "http://www.freesound.org/people/n/sounds/100/ by nfrae"
    with pytest.raises(InputError, match=r"meta/esc50\.csv"):
        run("esc50", tmp_path / "out", tmp_path / "none")


def fsd50k(top: Path) -> None:
    (top / "FSD50K.ground_truth").mkdir(parents=True)
    (top / "FSD50K.metadata").mkdir()
    dev = ["fname,labels,mids,split"]
    info = {}
    for k in range(12):
        name, uploader = str(1000 + k), f"user{k // 2}"
        label = '"Bark,Dog,Animal"' if k % 3 else '"Crying_and_sobbing,Human_voice"'
        dev.append(f"{name},{label},/m/x,{'val' if k in (3, 8, 9) else 'train'}")
        sound(top / "FSD50K.dev_audio" / f"{name}.wav", k, 44100)
        info[name] = {
            "title": "t",
            "license": f"http://creativecommons.org/licenses/{'by-nc' if k % 2 else 'by'}/3.0/",
            "uploader": uploader,
        }
    (top / "FSD50K.ground_truth" / "dev.csv").write_text("\n".join(dev) + "\n")
    (top / "FSD50K.metadata" / "dev_clips_info_FSD50K.json").write_text(json.dumps(info))
    (top / "FSD50K.ground_truth" / "eval.csv").write_text("fname,labels,mids\n2000,Siren,/m/y\n")
    sound(top / "FSD50K.eval_audio" / "2000.wav", 77, 44100)
    info = {"2000": {"license": "http://creativecommons.org/publicdomain/zero/1.0/"}}
    info["2000"]["uploader"] = "another"
    (top / "FSD50K.metadata" / "eval_clips_info_FSD50K.json").write_text(json.dumps(info))


def test_fsd50k_with_its_own_split_made_clean(tmp_path: Path) -> None:
    fsd50k(tmp_path / "fsd")
    rows, report = run("fsd50k", tmp_path / "fsd", tmp_path / "out", published_splits=True)
    by_name = {Path(row["path"]).stem: row for row in rows}
    assert by_name["2000"]["split"] == "test" and by_name["2000"]["licence"] == "CC0 1.0"
    assert by_name["1001"]["licence"] == "CC BY-NC 3.0"
    assert by_name["1001"]["event"] == "animal" and by_name["1000"]["event"] == "unverified"
    # user1 has clips 1002 (train) and 1003 (val): the whole of it trains.
    assert by_name["1003"]["split"] == "train" and report["groups_moved"] == 1
    assert by_name["1008"]["split"] == by_name["1009"]["split"] == "val"
    (tmp_path / "fsd" / "FSD50K.metadata" / "dev_clips_info_FSD50K.json").unlink()
    with pytest.raises(InputError, match="who uploaded"):
        run("fsd50k", tmp_path / "fsd", tmp_path / "again")


ONTOLOGY = [
    {"id": "/t/dd00002", "name": "Baby cry, infant cry", "child_ids": []},
    {"id": "/m/dogs", "name": "Domestic animals, pets", "child_ids": ["/m/odd"]},
    {"id": "/m/odd", "name": "Zorble", "child_ids": []},
    {"id": "/m/04rlf", "name": "Music", "child_ids": []},
]


def test_audioset(tmp_path: Path) -> None:
    root, audio = tmp_path / "lists", tmp_path / "wav"
    root.mkdir()
    (root / "ontology.json").write_text(json.dumps(ONTOLOGY))
    head = "# Segments csv created Sun Mar  5 2017\n# num_ytids=3\n# YTID, start_seconds, ...\n"
    (root / "balanced_train_segments.csv").write_text(
        head + '--1yQg8WvXY, 30.000, 40.000, "/m/04rlf,/t/dd00002"\n'
        'Yabcdefghij, 0.000, 10.000, "/m/odd"\n'
        'gone_videoX, 0.000, 10.000, "/m/odd"\n'
    )
    (root / "eval_segments.csv").write_text(head + 'zzzzzzzzzzz, 5.000, 15.000, "/m/04rlf"\n')
    for k, name in enumerate(["--1yQg8WvXY_30.000", "YYabcdefghij", "zzzzzzzzzzz"]):
        sound(audio / f"{name}.wav", k)
    rows, report = run("audioset", root, tmp_path / "out", audio=audio, published_splits=True)
    assert report["left_out"] == {"audio missing": 1}
    by_group = {row["group"]: row for row in rows}
    cry = by_group["yt:--1yQg8WvXY"]
    assert cry["event"] == "cry" and cry["labels"] == "Music;Baby cry, infant cry"
    assert cry["attribution"] == "https://youtu.be/--1yQg8WvXY?t=30"
    assert by_group["yt:Yabcdefghij"]["event"] == "animal"  # from the class above
    assert by_group["yt:zzzzzzzzzzz"]["split"] == "test"


def test_vggsound(tmp_path: Path) -> None:
    (tmp_path / "vggsound.csv").write_text(
        '---g-f_I2yQ,1,"people marching",test\nabcdefghijk,12,"baby crying",train\n'
        'abcdefghijk,99,"baby crying",test\n'
    )
    for k, name in enumerate(["---g-f_I2yQ_000001", "abcdefghijk_000012", "abcdefghijk_000099"]):
        sound(tmp_path / "audio" / f"{name}.wav", k)
    rows, report = run("vggsound", tmp_path, tmp_path / "out", published_splits=True)
    assert [row["event"] for row in rows] == ["human", "cry", "cry"]
    # One video on both sides of the published split: it trains.
    assert {row["split"] for row in rows[1:]} <= {"train", "val"} and report["groups_moved"] == 1
    (tmp_path / "vggsound.csv").write_text("id,label\n")
    with pytest.raises(InputError, match="line 1"):
        run("vggsound", tmp_path, tmp_path / "again")


def test_chillanto(tmp_path: Path) -> None:
    for k, name in enumerate(
        ["asphyxia/001_01", "normal/001_01", "normal/002_01", "normal/002_02"]
    ):
        sound(tmp_path / "set" / f"{name}.wav", k)
    sound(tmp_path / "set" / "pain" / "x.wav", 9)
    rows, report = run("chillanto", tmp_path / "set", tmp_path / "out")
    groups = [row["group"] for row in rows]
    assert groups == [
        "bc:asphyxia:001",
        "bc:normal:001",
        "bc:normal:002",
        "bc:normal:002",
        "bc:pain:all",
    ]
    assert rows[-1]["reason"] == "pain" and report["notes"][0].startswith("pain: names tell no")
    with pytest.raises(UsageError, match="parentheses"):
        run("chillanto", tmp_path / "set", tmp_path / "again", group_pattern="x")


def test_cryceleb(tmp_path: Path) -> None:
    table = ["baby_id,period,duration,split,chronological_index,file_name,file_id"]
    for k, (baby, period, split) in enumerate(
        [("spk1", "B", "train"), ("spk1", "D", "train"), ("spk2", "B", "dev")]
        + [("anonymous1", "B", "test"), ("anonymous2", "D", "test")]
    ):
        name = f"audio/{split}/{baby}/{period}/{baby}_{period}_001.wav"
        table.append(f"{baby},{period},0.3,{split},1,{name},{k}")
        sound(tmp_path / name, k)
    (tmp_path / "metadata.csv").write_text("\n".join(table) + "\n")
    rows, _ = run("cryceleb", tmp_path, tmp_path / "out", published_splits=True)
    assert [row["group"] for row in rows] == ["cc:spk1"] * 2 + ["cc:spk2"] + ["cc:anonymous"] * 2
    assert [row["split"] for row in rows] == ["train", "train", "val", "test", "test"]
    assert {row["licence"] for row in rows} == {"CC BY-NC-ND 4.0"}


def test_folder(tmp_path: Path) -> None:
    for k, name in enumerate(["cry/anna/1", "cry/anna/2", "cry/ben/1", "vacuum/kitchen/1"]):
        sound(tmp_path / "mine" / f"{name}.wav", k)
    rows, _ = run("folder", tmp_path / "mine", tmp_path / "out", licence="CC0")
    assert [row["group"] for row in rows] == ["anna", "anna", "ben", "kitchen"]
    assert [row["event"] for row in rows] == ["other", "other", "other", "household"]
    rows, _ = run("folder", tmp_path / "mine", tmp_path / "two", events={"cry": "cry"})
    assert [row["event"] for row in rows] == ["cry", "cry", "cry", "household"]


def test_a_folder_that_tells_no_groups_is_refused(tmp_path: Path) -> None:
    for k in range(4):
        sound(tmp_path / "mine" / "cry" / f"baby{k // 2}_{k}.wav", k)
    with pytest.raises(InputError, match="nothing tells who was recorded"):
        run("folder", tmp_path / "mine", tmp_path / "out")
    rows, _ = run("folder", tmp_path / "mine", tmp_path / "out", group_pattern=r"(baby\d)_")
    assert [row["group"] for row in rows] == ["baby0", "baby0", "baby1", "baby1"]
    with pytest.raises(UsageError, match="is there already"):
        run("folder", tmp_path / "mine", tmp_path / "out", group_pattern=r"(baby\d)_")


def test_copies_are_dropped_and_doubtful_ones_too(tmp_path: Path) -> None:
    for k, name in enumerate(["a/g1/1", "a/g2/1", "b/g3/1", "b/g3/2"]):
        sound(tmp_path / "mine" / f"{name}.wav", 0 if k < 2 else 1)
    sound(tmp_path / "mine" / "c" / "g4" / "1.wav", 1)  # as b's, under another label
    rows, report = run("folder", tmp_path / "mine", tmp_path / "out")
    assert [row["group"] for row in rows] == ["g1"]
    assert report["left_out"] == {
        "same bytes as another clip": 1,
        "same bytes under two labels": 3,
    }


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    (tmp_path / "mine" / "cry" / "g").mkdir(parents=True)
    (tmp_path / "mine" / "cry" / "g" / "a.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"not readable as audio \(\.wav"):
        run("folder", tmp_path / "mine", tmp_path / "out")
    with pytest.raises(UsageError, match="expected one of donateacry, esc50"):
        source_of("urbansound")
    with pytest.raises(InputError, match="no such folder"):
        run("folder", tmp_path / "absent", tmp_path / "out")


@pytest.mark.parametrize("name", [n for n, s in SOURCES.items() if n not in ("folder",)])
def test_an_empty_folder_is_told_from_a_data_set(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected|no recording named"):
        run(name, tmp_path / "empty", tmp_path / "out")


# --- measured columns ------------------------------------------------------------------------


def test_measured_levels_have_closed_forms(tmp_path: Path) -> None:
    seconds = np.arange(2 * RATE_HZ) / RATE_HZ
    tone = 0.5 * np.sin(2 * np.pi * 400 * seconds)
    tone[RATE_HZ:] = 0
    soundfile.write(tmp_path / "a.wav", tone, RATE_HZ, subtype="FLOAT")
    row = measure(tmp_path / "a.wav")
    assert row["rms_dbfs"] == pytest.approx(20 * np.log10(0.5 / 2), abs=0.01)
    assert row["peak_dbfs"] == pytest.approx(20 * np.log10(0.5), abs=0.01)
    assert row["silent_frac"] == 0.5 and row["duration_s"] == 2.0
    assert row["tonal_frac"] == pytest.approx(0.5, abs=0.03)


def test_voices_are_told_from_noise_and_rumble() -> None:
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal(RATE_HZ)).astype(np.float32)
    assert tonal_fraction(noise) < 0.05
    seconds = np.arange(RATE_HZ) / RATE_HZ
    rumble = (0.1 * np.sin(2 * np.pi * 50 * seconds)).astype(np.float32)
    assert tonal_fraction(rumble) == 0.0
    assert tonal_fraction(1e-4 * rumble) == 0.0 and tonal_fraction(noise[:100]) == 0.0
    assert silent_fraction(np.zeros(100, np.float32)) == 1.0


def test_periodicity_against_the_plain_sum() -> None:
    rng = np.random.default_rng(1)
    frames = rng.standard_normal((3, 640)) + np.sin(2 * np.pi * np.arange(640) / 50)
    window = np.hanning(640)
    best = []
    for frame in (frames - frames.mean(axis=1, keepdims=True)) * window:
        ratios = []
        for lag in range(20, 89):
            r = (frame[: 640 - lag] * frame[lag:]).sum() / (frame * frame).sum()
            w = (window[: 640 - lag] * window[lag:]).sum() / (window * window).sum()
            ratios.append(r / (w + 1e-3))
        best.append(max(ratios))
    assert np.allclose(periodicity(frames), best, atol=1e-6)


@pytest.mark.data
def test_measures_agree_with_those_of_the_recordings(data_root: Path) -> None:
    clips = [c for c in read_manifest(data_root / "manifest.csv") if c.source == "donateacry"][:40]
    ours = [measure(clip.path) for clip in clips]
    for clip, row in zip(clips, ours, strict=True):
        assert row["sha256"] == clip.attributes["sha256"]
        for column, within in (("rms_dbfs", 0.02), ("peak_dbfs", 0.02), ("silent_frac", 0.002)):
            assert row[column] == pytest.approx(clip.number(column, 0), abs=within)
    tonal = np.array(
        [[r["tonal_frac"], c.number("tonal_frac", 0)] for r, c in zip(ours, clips, strict=True)]
    )
    assert np.corrcoef(tonal.T)[0, 1] > 0.98 and np.abs(np.diff(tonal)).mean() < 0.05


# --- events ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("Baby cry, infant cry", "cry"),
        ("crying_baby", "cry"),
        ("Crying, sobbing", "unverified"),
        ("Baby laughter", "laugh"),
        ("Child speech, kid speaking", "children"),
        ("Male_speech_and_man_speaking", "speech"),
        ("Bark", "animal"),
        ("Crow", "animal"),
        ("Crowd", "human"),
        ("Acoustic_guitar", "music"),
        ("Fire alarm", "alarm"),
        ("Environmental noise", "noise"),
        ("vacuum_cleaner", "household"),
        ("Silence", "silence"),
        ("Zorble", "other"),
    ],
)
def test_events(name: str, event: str) -> None:
    assert event_of(name) == event


def test_a_possible_cry_spoils_a_negative() -> None:
    assert event_of_all(["Speech", "Crying, sobbing"]) == "unverified"
    assert event_of_all(["Music", "Baby cry, infant cry"]) == "cry"
    assert event_of_all([]) == "other"


@pytest.mark.data
def test_events_of_esc50_agree_with_the_recordings(data_root: Path) -> None:
    from crykit_train.data.sources.esc50 import EVENTS

    clips = [c for c in read_manifest(data_root / "manifest.csv") if c.source == "esc50"]
    wrong = {
        (c.label, c.event): EVENTS.get(c.label) or event_of(c.label)
        for c in clips
        if (EVENTS.get(c.label) or event_of(c.label)) != c.event
    }
    assert not wrong


# --- download --------------------------------------------------------------------------------


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/short.zip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
            return
        super().do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A local web server over tmp_path/served."""
    (tmp_path / "served").mkdir()
    handler = partial(_Handler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def test_download_and_import(server: str, donateacry: Path, tmp_path: Path, run_cli: Any) -> None:
    archive = tmp_path / "served" / "master.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in donateacry.rglob("*.wav"):
            file.write(path, path.relative_to(donateacry.parent))
    target = tmp_path / "fetched"
    words = ["data", "import", "donateacry", target, "-o", tmp_path / "out", "--download"]
    done = run_cli(*words, "--url", f"{server}/master.zip")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["clips"] == 22 and sum(report["splits"].values()) == 22
    assert not (target / "donateacry.zip").exists()  # unpacked and done with
    wrong = run_cli(*words, "--url", f"{server}/master.zip", "--sha256", "00")
    assert wrong.returncode == 1 and b"SHA-256" in wrong.stderr


def test_what_cannot_be_fetched_is_said_and_not_kept(server: str, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    with pytest.raises(InputError, match="4 of 1000 bytes|IncompleteRead"):
        download.fetch(f"{server}/short.zip", target)
    with pytest.raises(InputError, match="cannot be fetched"):
        download.fetch(f"{server}/absent.zip", target)
    with pytest.raises(InputError, match="check the network"):
        download.fetch("http://127.0.0.1:9/none.zip", target)
    (tmp_path / "served" / "b.zip").write_bytes(b"bytes")
    with pytest.raises(FaultFound, match="expected abc"):
        download.fetch(f"{server}/b.zip", target, sha256="ABC")
    assert not target.exists() and not list(tmp_path.glob("*.part"))
    assert download.fetch(f"{server}/b.zip", target).read_bytes() == b"bytes"
    with pytest.raises(InputError, match="no whole zip"):
        download.unpack(target, tmp_path / "x")


def test_sources_that_are_not_ours_to_fetch(tmp_path: Path, run_cli: Any) -> None:
    done = run_cli("data", "import", "cryceleb", tmp_path, "-o", tmp_path / "out", "--download")
    assert done.returncode == 2 and b"accept its conditions" in done.stderr
