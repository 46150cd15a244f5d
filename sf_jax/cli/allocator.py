"""How a training process allocates memory on a CPU.

A step frees what it allocated, hundreds of megabytes, and the C library returns it to the system,
which clears every page anew in the next step. That took half of a step's time. Here freed memory is
kept, in huge pages. The settings are read when a process starts, so the process replaces itself.
"""

import os
import platform
import sys

TUNABLES = "GLIBC_TUNABLES"
SETTINGS = ":".join(
    [
        "glibc.malloc.hugetlb=1",  # ask for transparent huge pages
        f"glibc.malloc.mmap_threshold={1 << 32}",  # no mapping of its own for each array
        f"glibc.malloc.trim_threshold={1 << 40}",  # return nothing
        f"glibc.malloc.top_pad={1 << 28}",
    ]
)


def keep_freed_memory() -> None:
    """Replaces this process by the same command with these settings, with the GNU C library.

    Does nothing where the variable is set already. To be called before anything else.
    """
    if platform.libc_ver()[0] != "glibc" or TUNABLES in os.environ:
        return
    os.environ[TUNABLES] = SETTINGS
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
