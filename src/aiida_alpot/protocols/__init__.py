"""Protocols: sets of inputs by name, default ← protocol ← overrides."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any, ClassVar, cast

import yaml
from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.engine import ProcessBuilder
from aiida.engine.processes.ports import PortNamespace

from aiida_alpot.kernel.settings import merge_recursively, unknown_key_message


def load_protocol(
    work_chain: str, name: str | None = None, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the inputs of one protocol as a nested mapping.

    :param work_chain: name of the YAML file in this package.
    :param name: protocol; the file's default if None.
    :param overrides: values that replace those of the protocol, nested like them.
    :raises ValueError: if there is no such protocol.
    """
    content = yaml.safe_load(files(__name__).joinpath(f"{work_chain}.yaml").read_text(encoding="utf-8"))
    name = content["default_protocol"] if name is None else name
    if not isinstance(name, str) or name not in content["protocols"]:
        raise ValueError(unknown_key_message(str(name), content["protocols"], "protocol"))
    inputs = merge_recursively(content["default_inputs"], content["protocols"][name].get("inputs", {}))
    return merge_recursively(inputs, overrides or {})


def list_protocols(work_chain: str) -> dict[str, str]:
    """Return the protocols of a work chain with a line on each."""
    content = yaml.safe_load(files(__name__).joinpath(f"{work_chain}.yaml").read_text(encoding="utf-8"))
    return {name: protocol["description"] for name, protocol in content["protocols"].items()}


def tolerance_overrides(tolerances: Mapping[str, float] | None) -> dict[str, Any]:
    """Return the inputs that the largest errors wanted change: thresholds of the search, and its end."""
    if tolerances is None:
        return {}
    final = {name: value for name, value in tolerances.items() if name != "force_max"}
    return {"calibrate": {"settings": {"tolerances": dict(tolerances)}}, "convergence": {"tolerances": final}}


def change_inputs(builder: ProcessBuilder, ports: Any, changes: Mapping[str, Any], where: str = "inputs") -> None:
    """Change inputs of a builder to plain values nested like them; a ``Dict`` is merged key by key.

    :param ports: the namespace of ports of the builder.
    :raises ValueError: if there is no such input, or it belongs to a stage that the builder leaves out.
    :raises TypeError: if a value is not plain.
    """
    for key, value in changes.items():
        port = _find_port(str(key), ports, where)
        name = key if where == "inputs" else f"{where}.{key}"
        if value is None:
            raise ValueError(f"{name}: an input that was given cannot be taken away, got null; give a value")
        old = builder.get(key, None)
        if isinstance(port, PortNamespace):
            if not isinstance(value, Mapping) or not old:
                raise ValueError(f"{name}: it has no inputs to change in this campaign, got {value!r}")
            change_inputs(old, port, value, name)
        elif isinstance(old, orm.Dict) and isinstance(value, Mapping):
            set_input(builder, key, _to_node(merge_recursively(old.get_dict(), value), name), name)
        else:
            set_input(builder, key, fit_value(value, port, name), name)


def _find_port(key: str, ports: Any, where: str) -> Any:
    """Return the port of an input, None for one of a namespace that takes any.

    :raises ValueError: if there is no such input; the message names the nearest.
    """
    if key not in ports and not ports.dynamic:
        raise ValueError(unknown_key_message(key, ports, where))
    return ports.get(key, None)


def fit_value(value: Any, port: Any, where: str) -> Any:
    """Return a plain value as what a port takes: as it is, or as a node; a whole number will do for a ``Float``.

    :param port: None for an input of any type; values of a namespace are fitted one by one.
    :raises TypeError: if the value is not plain.
    :raises ValueError: if a namespace has no such input.
    """
    if isinstance(port, PortNamespace):
        if not isinstance(value, Mapping):
            raise TypeError(f"{where}: expected a mapping of inputs, got {value!r:.80}")
        return {
            key: fit_value(item, _find_port(str(key), port, where), f"{where}.{key}") for key, item in value.items()
        }
    if port is None:
        return _to_node(value, where)
    if port.non_db:
        return value
    is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53
    return _to_node(float(value) if is_whole and _takes_float_only(port) else value, where)


def _takes_float_only(port: Any) -> bool:
    kinds = port.valid_type if isinstance(port.valid_type, tuple) else (port.valid_type,)
    return orm.Float in kinds and orm.Int not in kinds


class ProtocolMixin:
    """Gives a WorkChain ``get_builder_from_protocol``."""

    PROTOCOL: ClassVar[str]

    @classmethod
    def get_builder_from_protocol(
        cls,
        code: orm.AbstractCode | Mapping[str, orm.AbstractCode],
        *,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        tolerances: Mapping[str, float] | None = None,
        **nodes: Any,
    ) -> ProcessBuilder:
        """Return a builder with the inputs of a protocol.

        :param code: one for all stages, or one by stage.
        :param protocol: name, see :func:`list_protocols`.
        :param overrides: plain values nested like the inputs, e.g. ``{"evaluate": {"settings": {"budget": 50}}}``; a
            stage set to None does not run.
        :param options: scheduler options of all stages; those that ``overrides`` give to a stage go on top, key by key.
        :param tolerances: largest errors wanted, ``energy`` in eV/atom, ``force`` in eV/Å, ``stress`` in eV/Å³: for the
            thresholds of the search and for its end alike; ``force_max``, on the worst atom, for the thresholds only.
        :param nodes: further inputs of the WorkChain, e.g. ``structures``.
        :raises ValueError: if the protocol or an input does not exist.
        """
        given = {"overrides": overrides, "options": options, "tolerances": tolerances}
        for name, value in given.items():
            if value is not None and not isinstance(value, Mapping):
                raise TypeError(f"{name}: expected a mapping, got {value!r:.80}")
        _check_code(code, cast(Any, cls).STAGE_NAMES)
        wanted = load_protocol(cls.PROTOCOL, protocol, tolerance_overrides(tolerances))
        if options is not None:
            common = {stage: {"options": options} for stage in cast(Any, cls).STAGE_NAMES if stage in wanted}
            wanted = merge_recursively(wanted, common)
        inputs = merge_recursively(wanted, overrides or {})
        builder: ProcessBuilder = cls.get_builder()  # type: ignore[attr-defined]
        ports = cls.spec().inputs  # type: ignore[attr-defined]
        for key, value in inputs.items():
            if key not in ports:
                raise ValueError(unknown_key_message(str(key), ports, cls.PROTOCOL))
            if key in cast(Any, cls).STAGE_NAMES:
                set_input(builder, key, _fill_stage(key, ports[key], value, code))
            else:
                set_input(builder, key, fit_value(value, ports[key], key))
        for key, node in nodes.items():
            if key not in ports:
                raise ValueError(unknown_key_message(key, ports, cls.PROTOCOL))
            if node is not None:
                set_input(builder, key, node)
        return builder


def _check_code(code: Any, stages: Iterable[str]) -> None:
    """Refuse a code for a stage that does not exist."""
    for stage in code if isinstance(code, Mapping) else ():
        if stage not in stages:
            raise ValueError(unknown_key_message(str(stage), stages, "code"))


def set_input(builder: ProcessBuilder, key: str, value: Any, where: str = "") -> None:
    """Give an input to a builder.

    :param where: names the input in messages, *key* if empty.
    :raises ValueError: naming the input, if the builder refuses it.
    """
    try:
        setattr(builder, key, value)
    except TypeError as error:
        raise ValueError(f"{where or key}: {error} Give a node, frames as PESData.from_frames") from error
    except ValueError as error:
        raise ValueError(f"{where or key}: {str(error).removeprefix('invalid attribute value ')}") from error


def _to_node(value: Any, where: str) -> Any:
    """Return a plain value as a node."""
    try:
        if not isinstance(value, orm.Node):
            json.dumps(value)  # AiiDA would find out when the node is stored, far from here
        return orm.to_aiida_type(value)
    except (TypeError, ValueError, ValidationError) as error:
        raise TypeError(f"{where}: expected plain values, got {value!r:.80} ({error})") from error


def _fill_stage(
    stage: str,
    ports: Any,
    values: Mapping[str, Any],
    code: orm.AbstractCode | Mapping[str, orm.AbstractCode],
) -> dict[str, Any]:
    filled: dict[str, Any] = fit_value(values, ports, stage)
    if isinstance(code, Mapping):
        if stage not in code:
            raise ValueError(f"code: there is none for the stage {stage!r}")
        filled["code"] = code[stage]
    else:
        filled["code"] = code
    return filled
