"""The state machines that ship with txraft, for `twisted.plugin.getPlugins`. Must stay cheap to import."""

from txraft.machines.kv_plugin import KeyValuePlugin

kv = KeyValuePlugin()
