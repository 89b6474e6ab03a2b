"""
`raftctl restore`: the data directory of a new cluster, with the state that a backup holds.

The new cluster has an id of its own, and one member: whoever belonged to the one that the backup is of is refused by
it, and refuses it. The backup is only read.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import secrets
import sys

from txraft.admin.progress import ProgressBar
from txraft.config import Config, cluster_id_of
from txraft.config_reading import load_config, parse_config
from txraft.core.cluster_id import first_epoch
from txraft.core.membership import Membership
from txraft.core.snapshot import SnapshotMeta
from txraft.errors import ConfigError, StorageError
from txraft.interfaces import Identity
from txraft.plugins import find_state_machine
from txraft.storage.files import FileSystem, IFileSystem
from txraft.storage.read_only import ReadOnlyFiles
from txraft.storage.restored import NewServer, Restoration
from txraft.storage.snapshot_file import SnapshotFileReader
from txraft.storage.stopped import Paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, and for whom it is."""
    parser.description = (
        "Makes the data directory of a new cluster of one server, with the state that FILE holds, which `raftctl "
        "backup` has saved. Start the server, then add others. Refused where a server has its data already."
    )
    parser.add_argument("file", metavar="FILE", help="what `raftctl backup` has saved; it is only read")
    parser.add_argument("--config", metavar="FILE", help="the raft.conf of the new server: it says all of what follows")
    parser.add_argument("--data-dir", metavar="D", help="the directory to make, instead of data_dir in raft.conf")
    parser.add_argument(
        "--server-id", metavar="SERVER", help="host[:rpc-port] of the new server, instead of raft.conf's"
    )
    parser.add_argument("--cluster-name", metavar="NAME", help="instead of cluster_name in raft.conf")


def run(options: argparse.Namespace) -> int:
    """The exit status: 0 the directory is there, 1 it is not, 2 the command or raft.conf cannot be understood."""
    try:
        config = _config(options)
        _check_founders(config)
    except ExceptionGroup as problems:
        return _fail("\n".join(str(problem) for problem in problems.exceptions), 2)
    except (ConfigError, ValueError) as error:
        return _fail(str(error), 2)
    try:
        print(restore(options.file, config, FileSystem()))
    except StorageError as error:
        return _fail("\n".join([str(error), *getattr(error, "__notes__", ())]), 1)
    return 0


def _fail(problem: str, status: int) -> int:
    print(f"raftctl: {problem}", file=sys.stderr)
    return status


def _config(options: argparse.Namespace) -> Config:
    """
    @raise ConfigError: it is not said where the data shall be.
    @raise ExceptionGroup: of `ConfigError`: raft.conf cannot be used.
    """
    if options.config is None and options.data_dir is None:
        raise ConfigError("say with --config or with --data-dir where the data shall be")
    overrides = []
    if options.data_dir is not None:
        overrides.append(f"data_dir={os.path.abspath(options.data_dir)}")
    if options.server_id is not None:
        overrides.append(f"server_id={options.server_id}")
    if options.cluster_name is not None:
        overrides.append(f"cluster_name={options.cluster_name}")
    if options.config is None:
        return parse_config("", "raft.conf", overrides)
    # As twistd does it, the state machine may be here; last, so that nothing else is found here.
    sys.path.append(os.getcwd())
    find = functools.cache(find_state_machine)
    return load_config(options.config, overrides, lambda wanted: str(find(wanted).name))


def _check_founders(config: Config) -> None:
    """@raise ConfigError: others would found a cluster without anything in it, under the same name."""
    if set(config.servers) - {config.server_id}:
        raise ConfigError(
            f"servers: the new cluster begins with {config.server_id} alone, and the others, which know nothing of the "
            "backup, must not found one: take this line out everywhere, and add them when the first one has started",
            config.places.get("servers", config.file),
        )


def restore(path: str, config: Config, files: IFileSystem) -> str:
    """
    Make the data directory that `config` names; what to say of it.

    @raise StorageError: the backup cannot be used, or the directory cannot be made; then nothing starts from it.
    """
    paths = Paths(config.data_dir, config.log_file, config.core_map_file, config.snapshot_dir)
    restoration = Restoration(files, paths, config.log_segment_bytes)
    restoration.refuse_existing()
    saved = _verified(path)
    cluster_id = first_epoch(cluster_id_of(config.cluster_name, [config.server_id]), secrets.randbits(32))
    server = new_server(saved, Identity(cluster_id, config.server_id, secrets.randbits(63) + 1))
    reader = _open(path)
    try:
        with_bar = _Progress(reader.size)
        restoration.make(reader, server, with_bar.show)
        with_bar.clear()
    finally:
        reader.close()
    return (
        f"Done: {config.data_dir} has the state at entry {saved.last_index} of cluster {saved.cluster_id}. "
        f"{config.server_id} is a new cluster of its own, {cluster_id}. Start it, then add others: `raftctl add`."
    )


def _verified(path: str) -> SnapshotMeta:
    """What the backup stands for, every byte of which was read, before anything is made."""
    reader = _open(path)
    try:
        progress = _Progress(reader.size)
        meta = reader.verify(progress.show).meta
        progress.clear()
        return meta
    finally:
        reader.close()


def _open(path: str) -> SnapshotFileReader:
    try:
        return SnapshotFileReader(ReadOnlyFiles(), path)
    except FileNotFoundError:
        raise StorageError(f"{path}: there is no such file") from None


class _Progress:
    """Shows how much of a file has been read."""

    def __init__(self, size: int) -> None:
        self._bar = ProgressBar(sys.stderr, size)
        self._done = 0
        self.clear = self._bar.clear

    def show(self, done: int, _: int) -> None:
        """So much of it."""
        self._bar.add(done - self._done)
        self._done = done


def new_server(saved: SnapshotMeta, identity: Identity) -> NewServer:
    """
    What a snapshot says that holds what `saved` holds, and is the beginning of a cluster of that server alone.

    The entry that had named the members names this one: nobody else has what came before, or will ever be told.
    """
    me = identity.server_id
    membership = Membership(identity.cluster_id, (me,), incarnations=((me, identity.incarnation),))
    meta = dataclasses.replace(saved, cluster_id=identity.cluster_id, membership=membership.encode())
    return NewServer(identity, meta)
