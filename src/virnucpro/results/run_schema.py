"""run.json against run.schema.json, by the few words of JSON Schema that this file uses.

Files that people edited, merged or got from elsewhere are told from ours in one sentence, before
anything reads a field of them.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
_SHOWN = 40


def checked_document(text: bytes) -> dict[str, Any]:
    """Return the content of a run.json. Raises ValueError if it is not as run.schema.json has it.

    Fields that are unknown here are passed over: later versions add some.
    """
    try:
        document: dict[str, Any] = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if fault := _fault(document, schema(), "it"):
        raise ValueError(fault)
    for name in ("started", "finished"):
        if document[name] is not None:
            datetime.fromisoformat(document[name])
    ended = document["status"] in ("complete", "partial")
    if ended and None in (document["counts"], document["finished"]):
        raise ValueError(f"a run that is {document['status']} must have counts and an end")
    if ended and document["settings"].get("threshold") is None:
        raise ValueError(f"a run that is {document['status']} must have a threshold")
    return document


def fault_of_bundle(about: Mapping[str, Any]) -> str:
    """Return what a bundle tells of itself that run.json cannot hold; nothing if it can."""
    return _fault(about, schema()["properties"]["bundle"], "bundle")


@cache
def schema() -> Mapping[str, Any]:
    """Return run.schema.json."""
    found: dict[str, Any] = json.loads(files(__package__).joinpath("run.schema.json").read_bytes())
    return found


def _fault(value: Any, rule: Mapping[str, Any], where: str) -> str:  # noqa: ANN401
    """Return what is wrong with a value; nothing if it keeps the rule."""
    if "$ref" in rule:
        rule = schema()["$defs"][rule["$ref"].rpartition("/")[2]]
    if "oneOf" in rule:
        faults = [_fault(value, each, where) for each in rule["oneOf"]]
        return "" if "" in faults else faults[0]
    kinds = rule.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_TYPES[kind](value) for kind in kinds):
        return f"{where} must be {' or '.join(kinds)}, got {_shown(value)}"
    if "const" in rule and value != rule["const"]:
        return f"{where} must be {rule['const']!r}, got {_shown(value)}"
    if "enum" in rule and value not in rule["enum"]:
        return f"{where} must be one of {', '.join(rule['enum'])}, got {_shown(value)}"
    if isinstance(value, str) and not re.search(rule.get("pattern", ""), value):
        return f"{where} must match {rule['pattern']}, got {_shown(value)}"
    if isinstance(value, int | float) and not (
        rule.get("minimum", value) <= value <= rule.get("maximum", value)
    ):
        return f"{where} is out of range: {_shown(value)}"
    return _fault_within(value, rule, "" if where == "it" else f"{where}.")


def _fault_within(value: Any, rule: Mapping[str, Any], before: str) -> str:  # noqa: ANN401
    parts: list[tuple[Any, Mapping[str, Any], str]] = []
    if isinstance(value, dict):
        known = rule.get("properties", {})
        if missing := [name for name in rule.get("required", ()) if name not in value]:
            return f"{before}{missing[0]} is missing"
        others = rule.get("additionalProperties")
        for name, each in value.items():
            found = known.get(name, others)
            if isinstance(found, Mapping):
                parts.append((each, found, f"{before}{name}"))
    elif isinstance(value, list) and "items" in rule:
        name = before.removesuffix(".")
        parts = [(each, rule["items"], f"{name}[{i}]") for i, each in enumerate(value)]
    return next((fault for part in parts if (fault := _fault(*part))), "")


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
