"""Keep the exporters' chatter away from a user who asked for a bundle."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silence warnings and log lines below ERROR while torch and its exporters work.

    They warn about optional libraries that are absent (torchvision, CUDA kernels of torchao) and
    about their own deprecations; whether the result is right is measured afterwards.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
