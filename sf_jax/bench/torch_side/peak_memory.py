"""How much memory a process used at most."""

import threading
import time
from pathlib import Path


class PeakMemory:
    """The most anonymous memory of this process, in bytes, sampled while it works."""

    def __init__(self) -> None:
        self.peak = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(0.02)

    @staticmethod
    def now() -> int:
        """Bytes in use.

        Raises:
          OSError: the system does not tell; it must be Linux.
        """
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
        raise OSError("/proc/self/status names no RssAnon; this needs Linux")
