"""Children of this process: they start at once, where a new Python imports torch for seconds."""

import os
import warnings
from collections.abc import Callable


def fork(function: Callable[[], object]) -> int:
    """A child that calls the function and ends; nothing in it may take gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads; the child has none
        child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return child


def ended(function: Callable[[], object]) -> int:
    """The exit code of such a child; negative where a signal ends it."""
    return exit_code(fork(function))


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
