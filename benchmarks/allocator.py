"""Memory of a command's processes: glibc gives back at once what is freed, and each page costs.

A network's passes free and take the same tensors again and again. Kept in the process, they come
without page faults: `da-compose bench speed --suite allocation`. Only processes of our own do this,
never a caller's.
"""

import ctypes
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Keep freed memory in this process; False where the C library is not glibc."""
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def give_back_freed_memory() -> None:
    """Give back what was kept until now, so that the peak of what follows is its own."""
    if trim := _of_glibc("malloc_trim"):
        trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
