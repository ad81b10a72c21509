"""A child of this process: starts at once, where a new Python imports torch for seconds."""

import os
from collections.abc import Callable


def ended(function: Callable[[], object]) -> int:
    """The exit code of a forked child that calls the function; negative where a signal ends it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
