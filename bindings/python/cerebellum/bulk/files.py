"""Digests of files, and files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import uuid
from typing import Any, BinaryIO, Callable


def model_digest(path: str) -> str:
    """The digest of a model file: of its length, its header and the checksums of all its tensors. It reads some
    kilobytes, so every worker can compute it. It does not find damage within the tensors: Model.verify()
    does."""
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        size = os.fstat(file.fileno()).st_size
        header = file.read(min(length, size))
        try:
            first, end = json.loads(header)["checksums"]["data_offsets"]
        except (ValueError, LookupError, TypeError):
            raise ValueError(f"{path} is not a model file: cerebellum quantize makes one") from None
        file.seek(8 + length + first)
        checksums = file.read(end - first)
    return hashlib.sha256(b"".join([struct.pack("<Q", size), start, header, checksums])).hexdigest()


def file_digest(path: str) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            piece = file.read(1 << 20)
            if not piece:
                return digest.hexdigest()
            digest.update(piece)


def value_digest(value: Any) -> str:
    """The digest of a value that JSON can express."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


TEMPORARY = ".cerebellum-"


def write_whole(path: str, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file that other processes see whole or not at all, even if this one is killed or the power
    fails. Two processes may write the same file: one of them wins."""
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise
    sync_directory(directory)


def sync_directory(directory: str) -> None:
    """Makes the names in a directory durable, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
