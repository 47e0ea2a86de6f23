"""Memory that was freed is given out again without asking the kernel for its pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

_FREE_AND_TAKE = """
import resource
from molmo_ros.training.memory import keep_freed_memory
{call}
size, rounds = 8 << 20, 40
bytearray(size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(rounds):
    bytearray(b"x") * size
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(call: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _FREE_AND_TAKE.format(call=call)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_freed_memory_costs_no_page_faults_again() -> None:
    assert _page_faults("keep_freed_memory()") < _page_faults("") / 4
