"""Finds state machines: Twisted plugins by their name, or any `package.module:attribute`."""

from __future__ import annotations

import sys

from twisted.plugin import getPlugins
from twisted.python.reflect import namedAny

from txraft.errors import ConfigError
from txraft.interfaces import IStateMachinePlugin


def installed_state_machines() -> list[IStateMachinePlugin]:
    """Every state-machine plugin that Twisted finds, by name."""
    return sorted(getPlugins(IStateMachinePlugin), key=lambda plugin: (plugin.name, _origin(plugin)))


def find_state_machine(wanted: str) -> IStateMachinePlugin:
    """
    The plugin that `state_machine=` means.

    @param wanted: a plugin's name, or `package.module:attribute`, which needs no plugin file and no plugin cache.
    @raise ConfigError: there is none, or more than one, and which there are; or the module cannot be imported.
    """
    if ":" in wanted:
        return _import_state_machine(wanted)
    installed = installed_state_machines()
    matching = [plugin for plugin in installed if plugin.name == wanted]
    if len(matching) > 1:
        origins = " and ".join(_origin(plugin) for plugin in matching)
        raise ConfigError(f"state_machine: {len(matching)} plugins are called {wanted}: {origins}")
    if not matching:
        names = ", ".join(sorted({plugin.name for plugin in installed})) or "none"
        raise ConfigError(f"state_machine: there is no {wanted}; installed: {names}")
    return matching[0]


def _import_state_machine(wanted: str) -> IStateMachinePlugin:
    module, _, attribute = wanted.partition(":")
    try:
        plugin = namedAny(f"{module}.{attribute}")
    except Exception as error:
        # Whatever the module raises as it is imported, it is this line of raft.conf that cannot be carried out.
        raise ConfigError(f"state_machine: cannot import {wanted}: {type(error).__name__}: {error}") from error
    if not IStateMachinePlugin.providedBy(plugin):
        raise ConfigError(f"state_machine: {wanted} is no IStateMachinePlugin")
    return plugin


def _origin(plugin: IStateMachinePlugin) -> str:
    """The file that registers `plugin`; its class if no plugin file does."""
    for name, module in sorted(sys.modules.items()):
        if name.startswith("twisted.plugins.") and any(value is plugin for value in vars(module).values()):
            return str(module.__file__)
    return f"{type(plugin).__module__}.{type(plugin).__qualname__}"
