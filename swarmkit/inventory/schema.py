"""The inventory's form as JSON Schema (draft 2020-12), for editors that check while one types."""

from __future__ import annotations

from typing import Any

from swarmkit.inventory.load import InventoryFile

DRAFT = "https://json-schema.org/draft/2020-12/schema"
# A text that holds a variable stands in for anything.
_VARIABLE = {"type": "string", "pattern": r"\$", "description": "A variable, such as ${NAME:-default}."}
_NOTES = ("title", "description", "default")


def schema() -> dict[str, Any]:
    """The schema, generated from the very models that files are checked with."""
    made = InventoryFile.model_json_schema()
    properties = made["properties"]
    properties["managers"]["minItems"] = 1
    for part in [made, *made["$defs"].values()]:
        part.pop("title", None)
        for name, each in part.get("properties", {}).items():
            each.pop("title", None)
            part["properties"][name] = _with_variables(each)
    # At the top, a key with nothing behind it is as good as absent.
    made["properties"] = {name: _or(each, {"type": "null"}) for name, each in properties.items()}
    made["properties"]["managers"] = properties["managers"]
    return {"$schema": DRAFT, **made, "title": "swarmkit inventory", "required": ["managers"]}


def _with_variables(each: dict[str, Any]) -> dict[str, Any]:
    return _or(each, _VARIABLE) if any(map(_is_narrow, each.get("anyOf", [each]))) else each


def _is_narrow(each: dict[str, Any]) -> bool:
    return each.get("type") == "integer" or bool({"pattern", "enum", "format", "anyOf"} & each.keys())


def _or(each: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    notes = {key: value for key, value in each.items() if key in _NOTES}
    form = {key: value for key, value in each.items() if key not in _NOTES}
    return {"anyOf": [*(form["anyOf"] if form.keys() == {"anyOf"} else [form]), other], **notes}
