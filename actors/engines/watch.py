"""Ends vLLM's processes with the one that started them, however that dies.

vLLM's scheduler outlives a parent that is killed, and keeps its GPUs. So a thread in each of its workers
waits for the parent's end, and ends the worker; a scheduler ends when its worker has, or at once where it is
the same process.
"""

import os
import select
import threading
from contextlib import suppress

PARENT = "AMALGAM_VLLM_PARENT"
"""Environment variable: the id of the process that started vLLM."""


class Watched:
    """What vLLM mixes into its workers (`worker_extension_cls`): being imported there is all it has to do."""


def _end_with(parent: int) -> None:
    with suppress(ProcessLookupError):  # it has ended before
        ended = select.poll()
        ended.register(os.pidfd_open(parent), select.POLLIN)
        ended.poll()
    os._exit(1)


if PARENT in os.environ and os.environ[PARENT] != str(os.getpid()):
    threading.Thread(target=_end_with, args=(int(os.environ[PARENT]),), daemon=True).start()
