"""Runs ExecuTorch programs (.pte) without torch: arrays in, arrays out."""

from crykit_executorch._native import (
    EXECUTORCH_VERSION,
    Program,
    ProgramError,
    State,
    TensorSpec,
)

__all__ = ["EXECUTORCH_VERSION", "Program", "ProgramError", "State", "TensorSpec"]
