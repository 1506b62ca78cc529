"""Tries one damaged bundle after another, in a process that may die of it.

Requests and answers are JSON lines: `{"folder", "runtime", "precision"}` and
`{"outcome", "message"}`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

from crykit.bundle import Bundle, BundleDigestError
from crykit.errors import CrykitError
from crykit.verification import check_golden

MEMORY_LIMIT_BYTES = 8 * 1024**3
"""Of addresses. A damaged size may ask for terabytes: that must fail here, not swap."""


def attempt(folder: str, runtime: str, precision: str) -> tuple[str, str]:
    """(outcome, message), as `crykit verify` would come to it."""
    try:
        bundle = Bundle.open(folder)
    except BundleDigestError as error:
        return "digest", str(error)
    except CrykitError as error:
        return "manifest", str(error)
    except BaseException as error:
        return "escaped", f"Bundle.open: {type(error).__name__}: {error}"
    try:
        check = check_golden(bundle, runtime, precision)
    except BaseException as error:
        return "escaped", f"check_golden: {type(error).__name__}: {error}"
    if check.detail is not None:
        return "runtime", check.detail
    return ("agrees" if check.ok else "disagrees"), f"max abs {check.max_abs}"


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        outcome, message = attempt(**request)
        print(json.dumps({"outcome": outcome, "message": message}), file=answers, flush=True)


if __name__ == "__main__":
    main()
