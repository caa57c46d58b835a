"""A ceiling on the memory that a parser may ask for, so that a count in a damaged file cannot eat the machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARSER_MEMORY = 1 << 30
"""Bytes of address space that reading one frame may add."""


@contextmanager
def limited_memory(extra: int = PARSER_MEMORY) -> Iterator[None]:
    """Let allocations beyond `extra` more bytes than now fail with MemoryError; only Linux can say how much is now."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    ceiling = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + extra
    if soft != resource.RLIM_INFINITY:
        ceiling = min(ceiling, soft)
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
