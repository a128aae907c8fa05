"""Ctrl-C while modules are imported and while the process ends, when there is nothing to clean up.

The first module that the command line imports: it imports as little as possible.
"""

import os
import signal

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended: 128 and the number of the signal."""


def exit_on_interrupt() -> bool:
    """Let Ctrl-C end the process silently from now on, in place of an exception wherever it happens to be.

    Returns:
        Whether it does: not in a program that handles Ctrl-C in a way of its own, nor in a thread.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    try:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    except ValueError:  # not the main thread
        return False
    return True


class ExitOnInterrupt:
    """A block in which Ctrl-C ends the process silently."""

    def __enter__(self) -> None:
        self._is_entered = exit_on_interrupt()

    def __exit__(self, *_: object) -> None:
        if self._is_entered:
            signal.signal(signal.SIGINT, signal.default_int_handler)
