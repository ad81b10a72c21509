"""Processes of our own keep freed memory; a caller's never do."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    from benchmarks.allocator import keep_freed_memory
    keep_freed_memory()
images = torch.rand(40, 16, 128, 128)
for _ in range(10):
    (images + 1).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    (images + 1).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_that_is_taken_again_costs_no_page_faults():
    kept, usual = (
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, way], capture_output=True, check=True
            ).stdout
        )
        for way in ("keep", "usual")
    )
    pages = 4 * 40 * 16 * 128 * 128 // 4096
    assert kept < 2 * pages  # of ten passes
    assert usual > 5 * pages
