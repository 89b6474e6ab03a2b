"""
`core_map_file`: term, vote and identity, replaced as a whole.

    8 bytes  magic
    4        version
    4        length of the payload
    4        CRC32C of all of the above and the payload
    ...      the payload, as `codec.encode_state` makes it

A crash at any moment leaves the old content or the new: the new one is written and synced under another name, takes
the old one's name in one step, and the directory is synced before anybody relies on it.
"""

from __future__ import annotations

import struct

import google_crc32c

from txraft import codec
from txraft.core.messages import HardState
from txraft.errors import ProtocolError, StorageError
from txraft.interfaces import Identity
from txraft.storage.files import IFileSystem, Syncs, other_format, unlink_if_there

_MAGIC = b"txraftST"
_VERSION = 1
_FIELDS = struct.Struct("<8sII")
_CHECKSUM = struct.Struct("<I")
_HEADER_BYTES = _FIELDS.size + _CHECKSUM.size
_MAX_BYTES = 1 << 16

VOTE_REMEDY = (
    "Without it the server may vote twice in one term. Restore this file if you have it as it was when the server "
    "stopped; otherwise move the data directory away and add the server to the cluster again: the others hold the data"
)


def _pack(payload: bytes) -> bytes:
    fields = _FIELDS.pack(_MAGIC, _VERSION, len(payload))
    return fields + _CHECKSUM.pack(google_crc32c.value(fields + payload)) + payload


class StateFile:
    """One `core_map_file`. What `write` was given is durable when it returns."""

    def __init__(self, files: IFileSystem, syncs: Syncs, path: str) -> None:
        self._files = files
        self._syncs = syncs
        self.path = path
        self._temporary_path = path + ".tmp"

    def exists(self) -> bool:
        """Whether anything was ever written. Changes nothing."""
        try:
            self._files.close(self._files.open(self.path))
        except FileNotFoundError:
            return False
        return True

    def read(self) -> tuple[Identity, HardState] | None:
        """
        What was written last; None if nothing ever was. Removes what a crash during `write` left behind.

        @raise StorageError: the file is damaged or of another version; says what can be done.
        """
        unlink_if_there(self._files, self._syncs, self._temporary_path)
        return self.look()

    def look(self) -> tuple[Identity, HardState] | None:
        """As `read`, and nothing is removed."""
        try:
            handle = self._files.open(self.path)
        except FileNotFoundError:
            return None
        try:
            data: bytes = self._files.pread(handle, 0, _MAX_BYTES)
        finally:
            self._files.close(handle)
        return self._unpack(data)

    def _unpack(self, data: bytes) -> tuple[Identity, HardState]:
        if data[:8] != _MAGIC or len(data) < _HEADER_BYTES:
            raise self._damaged(0, "this is not the state file of a txraft server")
        _, version, length = _FIELDS.unpack_from(data)
        payload = data[_HEADER_BYTES:]
        checksum = _CHECKSUM.unpack_from(data, _FIELDS.size)[0]
        if len(payload) != length:
            raise self._damaged(8, f"{len(payload)} bytes behind the header, which says {length}")
        if checksum != google_crc32c.value(data[: _FIELDS.size] + payload):
            raise self._damaged(_FIELDS.size, "the checksum does not fit the content")
        if version != _VERSION:
            raise other_format(self.path, version, _VERSION)
        try:
            return codec.decode_state(payload)
        except ProtocolError as error:
            raise self._damaged(_HEADER_BYTES, str(error)) from None

    def _damaged(self, offset: int, problem: str) -> StorageError:
        return StorageError(f"{self.path}: damaged at offset {offset}: {problem}. {VOTE_REMEDY}")

    def write(self, identity: Identity, hard_state: HardState) -> None:
        """Replace the content. After a `StorageError` the old or the new content may be there."""
        handle = self._files.create(self._temporary_path)
        try:
            self._files.pwrite(handle, 0, _pack(codec.encode_state(identity, hard_state)))
            self._syncs.file(handle)
        finally:
            self._files.close(handle)
        self._files.rename(self._temporary_path, self.path)
        self._syncs.directory_of(self.path)
