"""The `crykit` command. Everything is imported inside `main`, so Ctrl-C is quiet from the start."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit: 0 ok, 1 a fault found, 2 usage or missing part, 3 input."""
    try:
        signal.signal(signal.SIGTERM, _terminate)
        from crykit.commands.group import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # The reader (`head`, a pager) has had enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM as an exception, so that what is half written is cleaned up."""
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    main()
