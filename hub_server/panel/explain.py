"""`explain`: what a resource or a field of it is, out of the cluster's own OpenAPI documents."""

from __future__ import annotations

import textwrap

from hub_server.domain.foreign import Document
from hub_server.domain.kubectl import Resource
from hub_server.domain.panel import LineRefused
from hub_server.panel.line import Failed, Line

__all__ = ["run"]

_MOST_STEPS = 16  # from a reference to what it refers to


def run(line: Line) -> int:
    """Run it."""
    if len(line.command.words) != 1:
        raise LineRefused("name one resource: explain pods.spec")
    word, *fields = line.command.words[0].split(".")
    resource = line.resource(word)
    schemas = line.ask(f"/openapi/v3{resource.path}").get("components", "schemas")
    schema = _schema_of(schemas, resource)
    if resource.group:
        line.print(f"GROUP:      {resource.group}\n")
    line.print(f"KIND:       {resource.kind}\nVERSION:    {resource.version}\n\n")
    for name in fields:
        properties = _resolved(schemas, schema).get("properties")
        if name not in properties:
            raise Failed(f'error: field "{name}" does not exist')
        schema = properties.get(name)
    if fields:
        line.print(f"FIELD: {fields[-1]} <{_type_of(schema)}>\n\n\n")
    schema = _resolved(schemas, schema)
    line.print("DESCRIPTION:\n" + _wrapped(schema.text("description") or "<empty>", 4) + "    \n")
    properties = schema.get("properties")
    if properties:
        line.print("FIELDS:\n")
    needed = schema.texts("required")
    for name in sorted(properties):
        one = properties.get(name)
        line.print(f"  {name}\t<{_type_of(one)}>{' -required-' if name in needed else ''}\n")
        described = one.text("description") or _resolved(schemas, one).text("description")
        line.print(_wrapped(described or "<no description>", 4) + "\n")
    line.print("\n")
    return 0


def _schema_of(schemas: Document, resource: Resource) -> Document:
    wanted = (resource.group, resource.version, resource.kind)
    for name in schemas:
        one = schemas.get(name)
        for kind in one.items("x-kubernetes-group-version-kind"):
            if (kind.text("group") or "", kind.text("version"), kind.text("kind")) == wanted:
                return one
    raise Failed(f"error: no description of {resource.kind} was found")


def _reference(schema: Document) -> str | None:
    found = schema.text("$ref")
    return found or next((one.text("$ref") for one in schema.items("allOf")), None)


def _resolved(schemas: Document, schema: Document) -> Document:
    for _ in range(_MOST_STEPS):
        if "items" in schema:
            schema = schema.get("items")
        reference = _reference(schema)
        if reference is None:
            break
        schema = schemas.get(reference.rpartition("/")[2])
    return schema


def _type_of(schema: Document) -> str:
    prefix = ""
    for _ in range(_MOST_STEPS):
        if "items" in schema:
            prefix, schema = prefix + "[]", schema.get("items")
        elif "additionalProperties" in schema and isinstance(schema.raw("additionalProperties"), dict):
            prefix, schema = prefix + "map[string]", schema.get("additionalProperties")
        else:
            break
    reference = _reference(schema)
    if reference is not None:
        return prefix + reference.rpartition(".")[2]
    return prefix + (schema.text("type") or "Object").replace("object", "Object")


def _wrapped(text: str, indent: int) -> str:
    pad = " " * indent
    lines = [line for part in text.split("\n") for line in (textwrap.wrap(part, 76) or [""])]
    return "".join(f"{pad}{line}\n" for line in lines)
