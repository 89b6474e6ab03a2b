"""The log store that a configuration asks for: for the server itself, and for commands that look at what it left."""

from __future__ import annotations

import secrets
import time

from txraft.config import Config
from txraft.storage.files import FileSystem
from txraft.storage.snapshots import SnapshotStore
from txraft.storage.store import LogStore
from txraft.storage.writer import IWriter


def make_store(config: Config, writer: IWriter, snapshot_writer: IWriter) -> LogStore:
    """The store on this machine's disk, not open."""
    files = FileSystem()
    return LogStore(
        data_dir=config.data_dir,
        log_file=config.log_file,
        core_map_file=config.core_map_file,
        server_id=config.server_id,
        cluster_id=config.cluster_id,
        segment_bytes=config.log_segment_bytes,
        fsync=config.fsync,
        files=files,
        writer=writer,
        new_incarnation=lambda: secrets.randbits(63) + 1,
        monotonic=time.monotonic,
        snapshots=SnapshotStore(files, config.snapshot_dir, config.snapshot_keep, config.fsync, snapshot_writer),
    )
