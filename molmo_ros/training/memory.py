"""Freed memory stays with the process while it trains."""

from __future__ import annotations

import ctypes
import sys

#: Names of mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory(largest_bytes: int = 1 << 30) -> None:
    """Tell glibc to give blocks up to `largest_bytes` out again instead of returning them to the kernel.

    A training step frees and asks for the same hundred megabytes again; getting them from the kernel each time
    costs page faults, on virtual machines up to half of the time. Does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, largest_bytes)
        mallopt(_M_TRIM_THRESHOLD, ctypes.c_int(2**31 - 1))
        mallopt(_M_TOP_PAD, 64 << 20)
