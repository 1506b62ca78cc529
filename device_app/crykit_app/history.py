"""The last minutes as columns: what the probability trace and the log-mel strip both draw."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crykit.listener import FrameBlock

FRAMES_PER_COLUMN = 8
"""0.32 s a column with the shipped model: two steps, about three redraws a second."""

MAX_COLUMNS = 512

Float32 = npt.NDArray[np.float32]


class History:
    """Columns of `FRAMES_PER_COLUMN` frames: highest probability, mean log-mel.

    Only whole columns are shown, so a column never changes once it is drawn.
    """

    def __init__(self, frame_s: float, n_mels: int) -> None:
        self.column_s = FRAMES_PER_COLUMN * frame_s
        self.n_mels = n_mels
        self.columns = 0
        self._peak: Float32 = np.zeros(MAX_COLUMNS, np.float32)
        self._mel: Float32 = np.zeros((MAX_COLUMNS, n_mels), np.float32)
        self._frames: list[tuple[float, Float32]] = []

    def add(self, block: FrameBlock) -> None:
        """Take the next step's frames."""
        n_frames = len(block.cry_probability)
        if n_frames == 0:
            return
        edges = np.linspace(0, len(block.log_mel), n_frames + 1).astype(int)
        for index in range(n_frames):
            rows = block.log_mel[edges[index] : max(edges[index + 1], edges[index] + 1)]
            mel = rows.mean(axis=0) if len(rows) else np.zeros(self.n_mels, np.float32)
            self._frames.append((float(block.cry_probability[index]), mel))
            if len(self._frames) == FRAMES_PER_COLUMN:
                self._finish_column()

    def probability(self, columns: int) -> Float32:
        """The newest `columns` peaks, oldest first; fewer if there are fewer."""
        return self._peak[self._newest(columns)]

    def log_mel(self, columns: int) -> Float32:
        """The newest log-mel columns (columns, n_mels), oldest first."""
        return self._mel[self._newest(columns)]

    def _newest(self, columns: int) -> npt.NDArray[np.intp]:
        shown = max(0, min(columns, self.columns, MAX_COLUMNS))
        return np.arange(self.columns - shown, self.columns) % MAX_COLUMNS

    def _finish_column(self) -> None:
        at = self.columns % MAX_COLUMNS
        self._peak[at] = max(probability for probability, _ in self._frames)
        self._mel[at] = np.mean([mel for _, mel in self._frames], axis=0)
        self._frames.clear()
        self.columns += 1
