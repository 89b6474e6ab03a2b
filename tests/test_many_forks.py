"""Forking beside a busy writer thread, again and again: locks that it holds at that moment must not matter."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from typing import Any

import pytest
from processes import children
from snapshot_cases import meta
from storage_cases import run
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.trial.unittest import TestCase

from txraft.forking import Forker
from txraft.images import SnapshotWay
from txraft.interfaces import Snapshot
from txraft.machines.kv import KeyValueMachine
from txraft.machines.kv_encoding import pack_set
from txraft.node.restoring import prepare
from txraft.node.state import State
from txraft.node.taking import SnapshotTaker, TakingSettings
from txraft.sessions import Opening
from txraft.storage.files import FileSystem
from txraft.storage.snapshots import SnapshotStore
from txraft.storage.store import LogStore
from txraft.storage.writer import WriterThread

FORKS = 1000
reactor: Any = installed_reactor


class Busy:
    """A log that is written without a pause, and two more threads that log, allocate and open files."""

    def __init__(self, directory: str) -> None:
        self.is_over = False
        self.writes = 0
        self.snapshots = SnapshotStore(FileSystem(), directory + "/snapshots", 2, True, WriterThread(reactor))
        self.log = LogStore(
            data_dir=directory,
            log_file=directory + "/log",
            core_map_file=directory + "/state",
            server_id="s1",
            cluster_id="c",
            segment_bytes=1 << 16,
            fsync=True,
            files=FileSystem(),
            writer=WriterThread(reactor),
            new_incarnation=lambda: 1,
            monotonic=time.monotonic,
            snapshots=self.snapshots,
        )
        self.log.open()
        self.threads = [threading.Thread(target=self._make_noise) for _ in range(2)]
        for thread in self.threads:
            thread.start()
        self.written: Deferred[None] = Deferred()
        self._write()

    def _write(self) -> None:
        if self.is_over:
            self.written.callback(None)
            return
        self.writes += 1
        done = self.log.write(None, [run(self.writes, [os.urandom(500)])])
        done.addCallbacks(lambda _: self._write(), self.written.errback)

    def _make_noise(self) -> None:
        log = Logger()
        while not self.is_over:
            log.debug("noise {digest}", digest=hashlib.sha256(bytes(100_000)).hexdigest())
            with tempfile.TemporaryFile() as file:
                file.write(bytearray(50_000))
            time.sleep(0.002)

    async def stop(self) -> None:
        self.is_over = True
        await self.written
        for thread in self.threads:
            thread.join()
        await self.log.close()


@pytest.mark.process
class ManyForks(TestCase):
    timeout = 1200

    async def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.busy = Busy(directory.name)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.busy.stop()))
        self.machine = KeyValueMachine()
        self.state = State(self.machine)
        self.children = children()
        self.machine.apply(1, [pack_set(b"key %d" % number, b"x" * 50) for number in range(2000)], 0)

    def taker(self, silence_s: float) -> SnapshotTaker:
        return SnapshotTaker(
            self.state,
            self.busy.snapshots,
            lambda: meta(self.machine.applied_index),
            reactor,
            Forker(reactor, silence_s),
            TakingSettings(),
        )

    async def content(self, snapshot: Snapshot) -> KeyValueMachine:
        reader = await self.busy.snapshots.open(snapshot)
        chunks = []
        while (chunk := await reader.next_chunk()) is not None:
            chunks.append(chunk)
        await reader.close()
        machine = KeyValueMachine()
        machine.restore(chunks)
        return machine

    async def test_a_thousand_children_write_their_snapshots_and_none_hangs(self) -> None:
        taker = self.taker(silence_s=60)
        writes, began = self.busy.writes, self.machine.applied_index
        for _ in range(FORKS):
            self.machine.apply(self.machine.applied_index + 1, [pack_set(b"last", b"")], 0)
            done = taker.take()
            self.assertEqual(taker.status().way, "fork")
            snapshot = await done
            self.assertEqual(taker.status().failure, "")
            await deferLater(reactor, 0)
        self.assertEqual(taker.status().taken, FORKS)
        self.assertEqual(snapshot.meta.last_index, began + FORKS)
        self.assertEqual((await self.content(snapshot)).snapshot(), self.machine.snapshot())
        self.assertGreater(self.busy.writes - writes, FORKS)
        self.assertEqual(children(), self.children)

    async def test_the_sessions_in_a_snapshot_are_those_of_the_moment_of_the_fork(self) -> None:
        """S05, S08."""
        sessions = self.state.sessions
        for index in range(1, 5001):
            sessions.open(index, Opening(index, 10_000, 10))
        expected = b"".join(sessions.image())
        done = self.taker(silence_s=60).take()
        sessions.open(5001, Opening(5001, 10_000, 10))
        restored = State(KeyValueMachine())
        become = await prepare(self.busy.snapshots, restored, await done)
        become()
        self.assertEqual(b"".join(restored.sessions.image()), expected)
        self.assertEqual(restored.machine.snapshot(), self.machine.snapshot())

    async def test_a_child_that_hangs_is_killed_and_the_snapshot_is_taken_all_the_same(self) -> None:
        parent, image = os.getpid(), self.machine.image

        def hanging() -> Any:
            if os.getpid() != parent:
                threading.Event().wait()
            return image()

        self.patch(self.machine, "image", hanging)
        taker = self.taker(silence_s=1)
        done = taker.take()
        await deferLater(reactor, 0.3)
        self.machine.apply(self.machine.applied_index + 1, [pack_set(b"meanwhile", b"")], 0)
        snapshot = await done
        self.assertEqual(snapshot.meta.last_index, self.machine.applied_index)
        self.assertEqual((await self.content(snapshot)).snapshot(), self.machine.snapshot())
        self.assertEqual(children(), self.children)
        self.assertIs(self.machine.snapshot_way, SnapshotWay.FORK)
