"""The kv machine as a plugin. Twisted imports this just to list plugins, so everything else is imported when needed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from txraft.errors import ConfigError
from txraft.interfaces import ISimulatedPlugin, IStateMachine, IStateMachinePlugin

if TYPE_CHECKING:
    from txraft.machines.kv_options import KeyValueOptions


@implementer(IStateMachinePlugin, ISimulatedPlugin)
class KeyValuePlugin:
    """See `IStateMachinePlugin` and `ISimulatedPlugin`; the options are in `kv_options`."""

    name = "kv"
    description = "keys and values, for Redis clients and for telnet"

    def build(self, options: dict[str, str]) -> IStateMachine:
        from txraft.machines.kv import KeyValueMachine

        self._parse(options)
        return KeyValueMachine()

    def service(self, node: Any, machine: IStateMachine, options: dict[str, str]) -> object:
        from txraft.machines.kv import KeyValueMachine
        from txraft.machines.kv_local import Limits, Surroundings
        from txraft.machines.kv_server import Bounds
        from txraft.machines.kv_service import KeyValueFactory, KeyValueService

        parsed = self._parse(options)
        if not isinstance(machine, KeyValueMachine):
            raise ConfigError(f"state_machine: the kv service needs the kv machine, not {type(machine).__name__}")
        parsed.check_fits(node.settings.max_command_bytes)
        limits = Limits(parsed.max_key_bytes, parsed.max_value_bytes)
        bounds = Bounds(parsed.request_bytes, parsed.max_pipeline, parsed.pipeline_bytes)
        factory = KeyValueFactory(Surroundings(node, machine, limits), bounds, parsed.max_connections)
        return KeyValueService(node, factory, parsed.endpoint, parsed.client_address)

    def command(self, rng: random.Random) -> bytes:
        from txraft.machines.kv_samples import draw_command

        return draw_command(rng)

    def query(self, rng: random.Random) -> bytes:
        from txraft.machines.kv_samples import draw_query

        return draw_query(rng)

    def check(self, machine: Any) -> None:
        from txraft.machines.kv_samples import check

        check(machine)

    def _parse(self, options: dict[str, str]) -> KeyValueOptions:
        from txraft.machines.kv_options import parse_options

        return parse_options(options)
