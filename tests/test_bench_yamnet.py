"""YAMNet as a peer: the same graph as the teacher's, at its own hop, by its own rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from crykit.errors import InputError
from crykit.synth import synthetic_cry
from crykit_bench import yamnet
from crykit_bench.yamnet import HOP_SAMPLES, WINDOW_SAMPLES, YamnetPeer

pytest.importorskip("ai_edge_litert")


@pytest.fixture(scope="module")
def graph(data_root: Path) -> Path:
    path = data_root.parent / "models" / "yamnet.tflite"
    if not path.is_file():
        pytest.skip("yamnet.tflite is not beside the recordings")
    return path


@pytest.mark.data
def test_it_scores_what_the_teacher_scores(graph: Path) -> None:
    from crykit_train.peers.yamnet import CRY_CLASS, Yamnet

    window = synthetic_cry(1.0, 0, level_dbfs=-20.0)[:WINDOW_SAMPLES].astype(np.float32)
    theirs = Yamnet(graph).window(window)[0][CRY_CLASS]
    assert YamnetPeer(str(graph), 1)._score(window) == pytest.approx(theirs, abs=1e-3)


@pytest.mark.data
def test_its_size_is_the_published_one(graph: Path) -> None:
    weights, macs = yamnet.size_of(graph)
    assert 3.7e6 < weights < 4.2e6, "3.7 million, and the tables of its Fourier transform"
    assert 65e6 < macs < 100e6, "69 million of the network, and its front end"


@pytest.mark.data
def test_windows_overlap_by_half_and_cover_the_end(graph: Path) -> None:
    peer = YamnetPeer(str(graph), 1)
    sound = np.arange(3 * WINDOW_SAMPLES + 1, dtype=np.float32)
    windows = peer._windows(sound)
    assert {len(w) for w in windows} == {WINDOW_SAMPLES}
    assert [w[0] for w in windows] == [i * HOP_SAMPLES for i in range(len(windows))]
    assert sound[-1] in windows[-1]
    assert len(peer._windows(sound[:100])) == 1


@pytest.mark.data
def test_quiet_windows_are_no_cry_by_its_rule(graph: Path, tmp_path: Path) -> None:
    cry = synthetic_cry(4.0, 0, level_dbfs=-20.0)
    for name, gain in (("loud", 1.0), ("faint", 1e-3)):
        soundfile.write(tmp_path / f"{name}.wav", gain * cry, 16_000)
    peer = YamnetPeer(str(graph), 1)
    peer._score = lambda window: 0.9  # type: ignore[method-assign]
    paths = [str(tmp_path / f"{name}.wav") for name in ("loud", "faint")]
    loud, faint = peer.streams(paths, "")
    assert loud["events"] and not faint["events"]
    assert loud["duration_s"] == pytest.approx(4.0)


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.tflite").write_bytes(b"no graph")
    with pytest.raises(InputError, match="is no TensorFlow Lite graph"):
        YamnetPeer(str(tmp_path / "bad.tflite"), 1)
    with pytest.raises(InputError, match="no file"):
        YamnetPeer(str(tmp_path / "absent.tflite"), 1)
