"""Blocks of users worked off by several threads, answered in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_order(task: Callable[[int, int], T], starts: range, size: int, end: int, threads: int) -> Iterator[T]:
    """`task(start, stop)` of every block of `size` users (the last ends at `end`), in the order of `starts`."""
    if threads <= 1:
        for start in starts:
            yield task(start, min(start + size, end))
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="rank") as pool:
        ahead: deque[Future[T]] = deque()
        try:
            for start in starts:
                ahead.append(pool.submit(task, start, min(start + size, end)))
                # One more than there are threads, so that none waits for whoever takes the results.
                if len(ahead) > threads + 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
