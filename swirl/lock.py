"""One writer at a time: a run folder's lock file, which says who holds it."""

import fcntl
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from swirl import durable
from swirl.errors import InputError


def take(folder: Path) -> BinaryIO:
    """Creates the folder where it is not there, and takes its lock until `release`, or until the process ends.

    Raises:
        InputError: Another process holds the lock, the folder cannot be written to, or the disk is full.
    """
    try:
        with durable.explain_full_disk(folder):
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
                durable.fsync(folder.absolute().parent)
            lock = (folder / "lock").open("a+b")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; use another --out") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().decode(errors="replace") or "another process"
        lock.close()
        raise InputError(f"{folder} is in use by {owner}; wait for it, or use another --out") from None
    try:
        with durable.explain_full_disk(folder):
            lock.truncate(0)
            since = datetime.now(UTC).isoformat(timespec="seconds")
            lock.write(f"process {os.getpid()} (host {socket.gethostname()}, since {since})".encode())
            lock.flush()
    except BaseException:
        release(lock)
        raise
    return lock


def release(lock: BinaryIO) -> None:
    """Gives the lock back."""
    # Unlocked by hand: a forked child (a data loader's worker) that outlives us would else keep the lock.
    fcntl.flock(lock, fcntl.LOCK_UN)
    lock.close()
