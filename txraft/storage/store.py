"""The log, the state file and the lock of one data directory, as the node sees them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft import codec
from txraft.core.cluster_id import may_be_one, name_of
from txraft.core.log import EntryRun
from txraft.core.messages import HardState
from txraft.core.snapshot import SnapshotMeta
from txraft.errors import DamagedLog, StorageError
from txraft.interfaces import Identity, ILogStore, Recovered, Snapshot, StorageStatus
from txraft.storage.files import IFileSystem, Syncs, directory_of, make_directory
from txraft.storage.recovery import REMEDY, find_segments, is_untouched, segment_path
from txraft.storage.snapshots import SnapshotStore
from txraft.storage.state_file import VOTE_REMEDY, StateFile
from txraft.storage.wal import WriteAheadLog
from txraft.storage.writer import IWriter

_log = Logger()


@implementer(ILogStore)
class LogStore:
    """
    See `ILogStore`. `open` blocks; after it, the disk is touched on the writer only.

    @param data_dir: holds the lock. It and the directories of the other files are made if they are missing.
    @param log_file: the segments are `<log_file>.<sequence>`.
    @param segment_bytes: length of a segment of the log, unless one record needs more.
    @param snapshots: not open; opened and closed here.
    @param fsync: False leaves out every sync, so that a crash of the machine may lose or damage anything.
    @param new_incarnation: a random number of at most 64 bits, for a new data directory.
    @param monotonic: seconds, for `status`.
    """

    def __init__(
        self,
        data_dir: str,
        log_file: str,
        core_map_file: str,
        server_id: str,
        cluster_id: str,
        segment_bytes: int,
        fsync: bool,
        files: IFileSystem,
        writer: IWriter,
        new_incarnation: Callable[[], int],
        monotonic: Callable[[], float],
        snapshots: SnapshotStore,
    ) -> None:
        self.snapshots = snapshots
        self._data_dir = data_dir
        self._log_file = log_file
        self._segment_bytes = segment_bytes
        self._files = files
        self._writer = writer
        self._monotonic = monotonic
        self._syncs = Syncs(files, fsync)
        self._state_file = StateFile(files, self._syncs, core_map_file)
        self._new_identity = lambda: Identity(cluster_id, server_id, new_incarnation())
        self._configured = Identity(cluster_id, server_id, 0)
        self._identity = self._configured
        self._hard_state = HardState()
        self._lock: object | None = None
        self._wal: WriteAheadLog | None = None
        self._failure: StorageError | None = None
        self._write_started: float | None = None

    # -- opening

    def open(self, must_exist: bool = False) -> Recovered:
        """
        See `ILogStore`.

        @param must_exist: make no new data directory.
        """
        if not self._syncs.enabled:
            _log.warn("UNSAFE: fsync=no: what {path} holds may be lost in a crash", path=self._data_dir)
        if must_exist and not self._state_file.exists():
            raise StorageError(f"{self._state_file.path}: not there: no server has ever started with this directory")
        state_dir = directory_of(self._state_file.path)
        for path in (self._data_dir, directory_of(self._log_file), state_dir, self.snapshots.path):
            make_directory(self._files, self._syncs, path)
        self._lock = self._files.lock(os.path.join(self._data_dir, "lock"))
        try:
            recovered = self._recover()
        except BaseException:
            self._let_go()
            raise
        self._identity, self._hard_state = recovered.identity, recovered.hard_state
        _log.info(
            "{path}: term {term}, snapshot at {snapshot}, log to {last_index}, {segments} segments, server {server}",
            path=self._data_dir,
            term=recovered.hard_state.term,
            last_index=recovered.runs[-1].last_index if recovered.runs else recovered.base_index,
            snapshot=recovered.snapshot.meta.last_index if recovered.snapshot else 0,
            segments=len(self._wal.segments) if self._wal else 0,
            server=recovered.identity.server_id,
        )
        return recovered

    def _recover(self) -> Recovered:
        state = self._state_file.read()
        sequences = find_segments(self._files, self._log_file)
        snapshot = self.snapshots.recover()
        if state is None:
            return self._start_new(sequences, snapshot)
        identity, hard_state = state
        self._check_identity(identity)
        self._check_snapshot(identity, snapshot)
        if not sequences:
            raise StorageError(
                f"{segment_path(self._log_file, 1)}: missing, but {self._state_file.path} shows that this server has "
                f"had a log. {REMEDY}"
            )
        wal = self._open_wal(identity)
        runs = self._recover_log(wal, snapshot)
        return Recovered(identity, hard_state, *_behind(snapshot, runs), commit_index=wal.commit_index)

    def _recover_log(self, wal: WriteAheadLog, snapshot: Snapshot | None) -> list[EntryRun]:
        if snapshot is None:
            first_index, previous_term = 1, None
        else:
            first_index, previous_term = snapshot.meta.last_index + 1, snapshot.meta.last_term
        try:
            return wal.recover(first_index, previous_term)
        except DamagedLog as error:
            if not self.snapshots.problem:
                raise
            # Perhaps what is missing is in that one.
            raise StorageError(f"{error}. There was a newer snapshot, but {self.snapshots.problem}") from error

    def _start_new(self, sequences: Sequence[int], snapshot: Snapshot | None) -> Recovered:
        """
        The log comes first, then the state file, which says that the first start was completed.

        So a crash between them leaves a log without a record: that one is made anew.
        """
        is_log = sequences and not is_untouched(self._files, self._log_file, sequences)
        if is_log or snapshot is not None or self.snapshots.problem:
            found = segment_path(self._log_file, sequences[0]) if is_log else f"a snapshot in {self.snapshots.path}"
            raise StorageError(f"{self._state_file.path}: missing, but {found} is there. {VOTE_REMEDY}")
        for sequence in sequences:
            self._files.unlink(segment_path(self._log_file, sequence))
        identity, hard_state = self._new_identity(), HardState()
        self._open_wal(identity).create()
        self._state_file.write(identity, hard_state)
        return Recovered(identity, hard_state, [])

    def _open_wal(self, identity: Identity) -> WriteAheadLog:
        # The incarnation as log id: a log and a state file that were not made together do not open together.
        self._wal = WriteAheadLog(
            self._files, self._syncs, self._log_file, self._segment_bytes, log_id=identity.incarnation
        )
        return self._wal

    def _check_identity(self, found: Identity) -> None:
        wanted = self._configured
        # Empty on either side: passive. It belongs to the cluster that has taken it in, or to none yet.
        is_other_cluster = not may_be_one(found.cluster_id, wanted.cluster_id)
        if found.server_id != wanted.server_id or is_other_cluster:
            raise StorageError(
                f"{self._state_file.path}: this data directory belongs to server {found.server_id!r} of cluster "
                f"{found.cluster_id!r}, but the configuration says server {wanted.server_id!r} of cluster "
                f"{wanted.cluster_id!r}. Correct the configuration, or give this server a data directory of its own"
            )

    def _check_snapshot(self, found: Identity, snapshot: Snapshot | None) -> None:
        # Whose epochs differ: it may have been taken before a recovery, and stays good.
        if snapshot is not None and name_of(found.cluster_id) not in ("", name_of(snapshot.meta.cluster_id)):
            raise StorageError(
                f"{self.snapshots.path}: a snapshot of cluster {snapshot.meta.cluster_id!r}, but this server belongs "
                f"to cluster {found.cluster_id!r}. Give each server a directory of its own"
            )

    # -- writing

    def write(self, hard_state: HardState | None, runs: Sequence[EntryRun], commit_index: int = 0) -> Deferred[None]:
        """See `ILogStore`."""
        assert self._write_started is None, "a write is outstanding"
        for run in runs:
            codec.encode_run(run)
        if hard_state is not None:
            self._hard_state = hard_state
        return self._run(self._identity if hard_state is not None else None, runs, commit_index)

    def compact(self, first_index: int) -> Deferred[None]:
        """See `ILogStore`."""
        kept = self.snapshots.kept()
        covered = kept[-1].meta.last_index + 1 if kept else 1
        return self._on_writer(lambda wal: wal.release(min(first_index, covered)))

    def reset(self, meta: SnapshotMeta) -> Deferred[None]:
        """See `ILogStore`."""
        return self._on_writer(lambda wal: wal.reset(meta.last_index + 1))

    def _on_writer(self, job: Callable[[WriteAheadLog], None]) -> Deferred[None]:
        return self._writer.run(self._attempt, job) if self._wal is not None else fail(self._not_open())

    def _not_open(self) -> StorageError:
        return StorageError(f"{self._data_dir}: not open")

    def join(self, cluster_id: str) -> Deferred[None]:
        """See `ILogStore`."""
        identity, hard_state = attrs.evolve(self._identity, cluster_id=cluster_id), self._hard_state
        self._identity = identity
        return self._on_writer(lambda _: self._state_file.write(identity, hard_state))

    def _run(self, identity: Identity | None, runs: Sequence[EntryRun], commit_index: int) -> Deferred[None]:
        if self._wal is None:
            return fail(self._not_open())
        self._write_started = self._monotonic()
        hard_state = self._hard_state

        def persist(wal: WriteAheadLog) -> None:
            """The state first, because entries of a term must never be there without the term."""
            if identity is not None:
                self._state_file.write(identity, hard_state)
            if runs:
                wal.append(runs, commit_index)

        done = self._writer.run(self._attempt, persist, afterwards=self._prepare)
        return done.addBoth(self._written)

    def _attempt(self, job: Callable[[WriteAheadLog], None]) -> None:
        """On the writer: do it, unless something has failed before."""
        if self._failure is not None:
            raise StorageError(f"nothing is written after a failure, which was: {self._failure}")
        assert self._wal is not None
        try:
            job(self._wal)
        except Exception as error:
            self._failure = self._as_storage_error(error)
            raise self._failure from error

    def _prepare(self) -> None:
        """On the writer, when nobody waits. A failure is reported by the next write."""
        assert self._wal is not None
        try:
            self._wal.prepare()
        except Exception as error:
            self._failure = self._as_storage_error(error)

    def _as_storage_error(self, error: Exception) -> StorageError:
        if isinstance(error, StorageError):
            return error
        return StorageError(f"{self._log_file}: {type(error).__name__}: {error}")

    def _written(self, result: Failure | None) -> Failure | None:
        self._write_started = None
        return result

    # -- the rest

    def status(self) -> StorageStatus:
        """See `ILogStore`. `log_bytes` is what records take, zeros that wait for records left out."""
        started = self._write_started
        return StorageStatus(
            path=self._data_dir,
            segments=len(self._wal.segments) if self._wal else 0,
            log_bytes=self._wal.used_bytes if self._wal else 0,
            syncs=self._syncs.count,
            unsafe=not self._syncs.enabled,
            write_seconds=None if started is None else self._monotonic() - started,
        )

    def close(self) -> Deferred[None]:
        """See `ILogStore`."""
        if self._lock is None:
            return succeed(None)
        stopped = self._writer.stop().addBoth(lambda _: self.snapshots.close())
        return stopped.addBoth(lambda _: self._let_go())

    def _let_go(self) -> None:
        wal, lock = self._wal, self._lock
        self._wal = self._lock = None
        try:
            with ExitStack() as stack:
                if lock is not None:
                    stack.callback(self._files.close, lock)
                if wal is not None:
                    stack.callback(wal.close)
        except StorageError as error:
            # All that was promised is durable, and the process's end will close what this could not.
            _log.warn("closing {path}: {error}", path=self._data_dir, error=error)


def _behind(snapshot: Snapshot | None, runs: list[EntryRun]) -> tuple[list[EntryRun], Snapshot | None, int, int]:
    """The last fields of `Recovered`, for a log that agrees with the snapshot."""
    if snapshot is None:
        return runs, None, 0, 0
    meta = snapshot.meta
    if not runs or runs[0].first_index > meta.last_index:
        return runs, snapshot, meta.last_index, meta.last_term
    # Nobody knows the term of the entry before the first one, so that one becomes what the log begins behind.
    base, *later = runs
    rest = [base.starting_at(base.first_index + 1)] if len(base.commands) > 1 else []
    return [*rest, *later], snapshot, base.first_index, base.term
