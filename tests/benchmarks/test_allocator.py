"""Processes of our own keep freed memory; a caller's never do."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from benchmarks.allocator import keep_freed_memory

torch.set_num_threads(1)
images = torch.rand(40, 16, 128, 128)

def faults():
    for passed in range(15):
        if passed == 5:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        (images + 1).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
keep_freed_memory()
print(usual, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_that_is_taken_again_costs_no_page_faults():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, check=True)
    usual, kept = map(int, done.stdout.split())
    pages = 4 * 40 * 16 * 128 * 128 // 4096
    assert usual > 5 * pages  # of ten passes
    assert kept < usual / 3  # a few passes at first, where other memory lies between
