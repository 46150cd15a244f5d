"""Processes that end with the one that started them, however it ends."""

import ctypes
import os
import signal
import sys

DEATH_SIGNAL = 1  # prctl's number for the signal at the parent's death


def die_with(parent: int) -> None:
    """Ends this process when its parent does, even in the middle of an inner loop.

    On Linux, the kernel kills it; elsewhere only a parent that is gone already ends it. Linux
    sends the signal when the thread that started this process ends, so that has to be one that
    lives as long as the process is needed, such as the main thread.

    Args:
      parent: the number of the process that started this one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # gone already
        sys.exit()
