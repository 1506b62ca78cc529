"""CNN14 as an ONNX file, random weights: for its cost, no accuracy.

`python -m crykit_bench.cnn14 OUT.onnx`, a process of its own since building it takes a gigabyte;
it prints the number of parameters.
"""

from __future__ import annotations

import sys
from pathlib import Path


def write_cnn14(path: Path) -> int:
    """One second of audio in, tags out, fixed shape. Returns the number of parameters."""
    import torch

    from crykit.nn.cnn14 import WINDOW_SAMPLES, WaveformCnn14
    from crykit.nn.frontend import TAIL_SAMPLES
    from crykit_export.graphs import ExportGraph
    from crykit_export.to_onnx import write_onnx

    torch.set_num_threads(1)
    torch.manual_seed(0)
    samples = torch.zeros(1, TAIL_SAMPLES + WINDOW_SAMPLES)
    model = WaveformCnn14().eval()
    write_onnx(ExportGraph("cnn14", model, {"samples": samples}, ("tags",)), path)
    return sum(weight.numel() for weight in model.parameters())


if __name__ == "__main__":
    print(write_cnn14(Path(sys.argv[1])))
