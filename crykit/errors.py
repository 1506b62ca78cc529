"""Errors a user can meet: one line each, with the exit code of the command that meets it.

A message says what was expected, what came and what to do about it.
"""

from __future__ import annotations


class CrykitError(Exception):
    """Base of every expected error; the command line prints it as one line and exits."""

    exit_code = 1


class FaultFound(CrykitError):
    """A check ran and found a fault: a digest that does not match, a golden clip that differs."""

    exit_code = 1


class UsageError(CrykitError):
    """The caller asked for something that cannot be: a wrong option, an unknown name."""

    exit_code = 2


class MissingPart(UsageError):
    """An optional part of the kit is not installed; the message names the extra to install."""


class InputError(CrykitError):
    """A file, a recording or a manifest is not what it should be."""

    exit_code = 3


class DeviceError(CrykitError):
    """A microphone or another device is missing, busy or refuses."""

    exit_code = 3
