"""Settings as frozen dataclasses: built strictly, all faults told at once, identified by what changes the result.

A section is a frozen, keyword-only dataclass, every field with a default. Help stands beside it, in the annotation:

    learning_rate: Annotated[float, "peak learning rate"] = 1e-3
    log_every_steps: Annotated[int, "steps between progress lines", KEEPS_RESULT] = 20

KEEPS_RESULT marks a field that does not change what a step makes; it is left out of the step's identity.
Formerly("old_name") tells what a field was called before: that name is still taken, with a hint, and records that hold
it stay good.
A section may have `faults(self) -> list[str]`, each "field: problem"; they are reported with all others.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

from colabkit.core.errors import UsageError

KEEPS_RESULT = object()
C = TypeVar("C")  # a config: a frozen dataclass of sections, which are dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Formerly:
    """The name that a field had before, beside its help: `Annotated[int, "samples of a step", Formerly("batch")]`."""

    name: str


def build(cls: type[C], data: Mapping[str, Any], *, base: C | None = None, say: Callable[[str], object] = print) -> C:
    """Build `cls` from nested dicts of values or strings; fields not named keep those of `base` or the default.

    A field's former name is taken too, and `say` is told the new one.
    Raises: UsageError that lists every unknown name (with the nearest known one), wrong type and broken rule.
    """
    faults: list[str] = []
    data = _under_new_names(cls, data, "", faults, say)
    config = _build(cls, data, cls() if base is None else base, "", faults, cls)
    told = tuple(fault.partition(":")[0] + ":" for fault in faults)
    faults += [fault for fault in _rule_faults(config, "") if not fault.startswith(told)]
    if faults:
        raise UsageError(
            "Cannot use these settings",
            expected="the problems below mended",
            where="\n         ".join(faults),
            fix=f"correct {'it' if len(faults) == 1 else 'them'}; "
            "colabkit list --settings shows every name, type, default and meaning",
        )
    return config


def with_settings(config: C, settings: Iterable[str] | Mapping[str, Any], *, say: Callable[[str], object] = print) -> C:
    """Return `config` changed by "section.name=value" strings or a {"section.name": value} mapping."""
    if not isinstance(settings, Mapping):
        settings = dict(_split(item) for item in ([settings] if isinstance(settings, str) else settings))
    nested: dict[str, Any] = {}
    for dotted, value in settings.items():
        *parents, leaf = dotted.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UsageError(
                    "Cannot use these settings",
                    got=dotted,
                    expected="no setting inside another setting",
                    fix=f"remove either {parent} or {dotted}",
                )
        place[leaf] = value
    return build(type(config), nested, base=config, say=say)


def to_dict(config: Any) -> dict[str, Any]:
    """Return nested plain dicts, tuples as lists, ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def flat(config: Any, prefix: str = "", *, without: object = None) -> dict[str, Any]:
    """Return {"section.name": value}, leaving out what is marked with `without`."""
    hints = _hints(type(config))
    result: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if without in getattr(hints[field.name], "__metadata__", ()):
            continue
        if dataclasses.is_dataclass(value):
            result |= flat(value, f"{prefix}{field.name}.", without=without)
        else:
            result[prefix + field.name] = _listed(value)
    return result


def differences(config: Any, base: Any) -> list[tuple[str, Any, Any]]:
    """Return (name, value in base, value in config) for every setting that differs."""
    ours, theirs = flat(config), flat(base)
    return [(name, theirs.get(name), value) for name, value in ours.items() if theirs.get(name) != value]


def identity_settings(section: Any, prefix: str = "") -> dict[str, Any]:
    """Return the flat settings that change the result: all but those marked KEEPS_RESULT."""
    return flat(section, prefix, without=KEEPS_RESULT)


def renamed(cls: type, prefix: str = "") -> dict[str, str]:
    """Return {"section.former_name": "section.name"} of every setting that had another name before."""
    names: dict[str, str] = {}
    for field, hint in _hints(cls).items():
        if dataclasses.is_dataclass(_plain(hint)):
            names |= renamed(_plain(hint), f"{prefix}{field}.")
        names |= {f"{prefix}{former}": f"{prefix}{field}" for former in _former_names(hint)}
    return names


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def describe(cls: type, prefix: str = "") -> list[tuple[str, str, Any, str]]:
    """Return (dotted name, type, default, help) of every setting."""
    rows = []
    hints = _hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        plain, help_text = _plain(hint), _help(hint)
        if dataclasses.is_dataclass(plain):
            rows += describe(plain, f"{prefix}{field.name}.")
        else:
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            rows.append((prefix + field.name, _type_name(plain), default, help_text))
    return rows


def _split(item: str) -> tuple[str, str]:
    name, sign, value = item.partition("=")
    if not sign or not name:
        raise UsageError("Cannot read a setting", got=item, expected="NAME=VALUE", fix="--set train.steps=100")
    return name.strip(), value.strip()


def _listed(value: Any) -> Any:
    """Return tuples as lists, as JSON gives them back: what is compared with a record must look the same."""
    return [_listed(item) for item in value] if isinstance(value, (tuple, list)) else value


def _under_new_names(
    cls: type, data: Mapping[str, Any], where: str, faults: list[str], say: Callable[[str], object]
) -> dict[str, Any]:
    """Return `data` with former names replaced, each told; a setting given under both names is a fault."""
    hints, found = _hints(cls), dict(data)
    now = {former: field for field, hint in hints.items() for former in _former_names(hint)}
    for name, value in data.items():
        if name in now:
            del found[name]
            if now[name] in data:
                faults.append(f"{where}{name}: is called {where}{now[name]} now, which is given too; leave {name} out")
                continue
            say(f"  hint: {where}{name} is called {where}{now[name]} now; it is taken as that")
            found[now[name]] = value
        elif name in hints and dataclasses.is_dataclass(_plain(hints[name])) and isinstance(value, Mapping):
            found[name] = _under_new_names(_plain(hints[name]), value, f"{where}{name}.", faults, say)
    return found


def _build(cls: type, data: Mapping[str, Any], base: Any, where: str, faults: list[str], whole: type):
    """Return `base` changed by `data`; a value at fault is told in `faults` and stays as it was."""
    hints = _hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    values = {name: getattr(base, name) for name in known}
    for name, value in data.items():
        path = f"{where}{name}"
        if name not in known:
            faults.append(f"{path}: no such setting{_suggest(str(name), known, whole)}")
            continue
        plain = _plain(hints[name])
        if dataclasses.is_dataclass(plain):
            if isinstance(value, Mapping):
                values[name] = _build(plain, value, values[name], f"{path}.", faults, whole)
            else:
                faults.append(
                    f"{path}: got {value!r}, expected settings such as {path}.{dataclasses.fields(plain)[0].name}=..."
                )
            continue
        try:
            values[name] = coerce(value, plain)
        except ValueError as error:
            faults.append(f"{path}: {error}")
    return cls(**values)


def _suggest(name: str, known: list[str], whole: type) -> str:
    """Name the same setting in another section, else the nearest one here."""
    elsewhere = [row[0] for row in describe(whole) if row[0].rpartition(".")[2] == name]
    near = elsewhere or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(known)}"


def coerce(value: Any, kind: Any) -> Any:
    """Turn a value or its text form into `kind`; raises ValueError saying got and expected."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is typing.Literal:
        for choice in arguments:
            if value == (choice if type(value) is type(choice) else str(choice)):
                return choice
        near = difflib.get_close_matches(str(value), [str(choice) for choice in arguments], n=1, cutoff=0.5)
        raise ValueError(
            f"got {value!r}, expected {' or '.join(map(repr, arguments))}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    if origin in (types.UnionType, typing.Union):
        if type(None) in arguments and (value is None or value in ("none", "None", "null", "")):
            return None
        return coerce(value, next(a for a in arguments if a is not type(None)))
    if origin is tuple:
        parts = [p for p in value.strip("()[] ").split(",") if p.strip()] if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            raise ValueError(f"got {value!r}, expected a list such as a,b,c")
        kinds = [arguments[0]] * len(parts) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(parts):
            raise ValueError(f"got {value!r}, expected {len(kinds)} values")
        return tuple(coerce(p.strip(" '\"") if isinstance(p, str) else p, k) for p, k in zip(parts, kinds, strict=True))
    return _coerce_plain(value, kind)


def _coerce_plain(value: Any, kind: type) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no", "1", "0"):
            return value.lower() in ("true", "yes", "1")
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value)
        if isinstance(value, str) and re.fullmatch("[+-]?[0-9][0-9_]{0,30}", value):
            return int(value.replace("_", ""))
        if (number := _finite(value)).is_integer():  # 5.0, 1e5
            return int(number)
    elif kind is float:
        if not math.isnan(number := _finite(value)):
            return number
    elif kind is str and isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    raise ValueError(f"got {value!r}, expected {_type_name(kind)}")


def _finite(value: Any) -> float:
    """Return a number or its text form as a float, NaN for anything else."""
    try:
        number = math.nan if isinstance(value, (bool, bytes, bytearray)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _rule_faults(section: Any, prefix: str) -> Iterable[str]:
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from _rule_faults(value, f"{prefix}{field.name}.")
    if hasattr(section, "faults"):
        yield from (prefix + fault for fault in section.faults())


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _plain(hint: Any) -> Any:
    return hint.__origin__ if hasattr(hint, "__metadata__") else hint


def _help(hint: Any) -> str:
    return next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, str)), "")


def _former_names(hint: Any) -> list[str]:
    return [mark.name for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Formerly)]


def _type_name(kind: Any) -> str:
    if get_origin(kind) is typing.Literal:
        return " | ".join(map(str, get_args(kind)))
    if get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join(_type_name(choice) for choice in get_args(kind))
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    return plain.get(kind, str(kind))
