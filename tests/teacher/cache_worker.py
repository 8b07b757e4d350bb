"""Puts answers into a cache and says so after each; arguments: file, first, last.

Each line that is written names an answer that must outlive this process.
"""

import os
import sys
from pathlib import Path

from fedcot.teacher.cache import AnswerCache
from fedcot.teacher.teacher import Written


def key_of(index: int) -> str:
    return f"{index:064x}"


def text_of(index: int, who: str = "") -> str:
    return f"{who}{index} " * 200


if __name__ == "__main__":
    file, first, last = sys.argv[1:]
    with AnswerCache(Path(file)) as cache:
        for index in range(int(first), int(last)):
            kept = cache.put(key_of(index), Written(text_of(index), index, 1))
            os.write(1, f"{index} {kept.text.split()[0]}\n".encode())
