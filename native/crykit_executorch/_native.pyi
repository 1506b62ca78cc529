"""ExecuTorch's C++ runtime with its CPU kernels and XNNPACK; see `Program`."""

import os
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

EXECUTORCH_VERSION: str
"""Of the libraries inside, for example ``1.5.1``."""

class ProgramError(RuntimeError):
    """The file is no program that can run here, or running it failed."""

class TensorSpec:
    """What an input takes or an output gives."""

    @property
    def shape(self) -> tuple[int, ...]:
        """In full, or the largest where `dynamic`."""

    @property
    def dtype(self) -> str:
        """Numpy's name, for example ``float32``."""

    @property
    def dynamic(self) -> bool:
        """Whether smaller shapes are taken too."""

class State:
    """What a program carries from one step to the next.

    Never changed: `Program.step` gives a new one, so a kept state can be resumed from.
    """

    @property
    def nbytes(self) -> int:
        """Of all its tensors."""

    def arrays(self) -> list[NDArray[Any]]:
        """Copies of its tensors, in the program's order."""

class Program:
    """One method of a .pte file, loaded and ready to run.

    Several threads may share one; their calls wait for each other, without the interpreter's lock.

    Args:
        source: a path, or the content of a file.
        threads: 1 runs on the caller's thread. More come from the only pool of the process, so all
            programs that live at a time must ask for 1 or for the same number.
        states: how many of the last inputs come back as the last outputs; `step` carries them.
        method: of the program.

    Raises:
        OSError: the file cannot be opened.
        ProgramError: it is no program, was damaged, or needs what is not built in.
        ValueError: a number of threads that cannot be had.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes,
        *,
        threads: int = 1,
        states: int = 0,
        method: str = "forward",
    ) -> None: ...
    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """All of them, states last. A program does not keep names."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """All of them, states last."""

    @property
    def threads(self) -> int:
        """As it was asked for."""

    def initial_state(self) -> State:
        """Zeros."""

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once with every input, states included; the outputs belong to the caller.

        Raises:
            TypeError: an input is no array or of another dtype; nothing is converted silently.
            ValueError: too few or too many inputs, or one of another shape.
            ProgramError: a kernel failed.
        """

    def step(
        self, inputs: Sequence[NDArray[Any]], state: State
    ) -> tuple[list[NDArray[Any]], State]:
        """Run once with the inputs before the states; gives the outputs before them, and the next.

        Raises:
            TypeError, ValueError, ProgramError: as for `run`; also a state of another program.
        """
