"""Schemas outside the schema: the drafts' own metaschemas, and what a registry holds. Nothing is ever fetched here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from constrain.errors import SchemaError
from constrain.schema.document import Retrieve, dump, load


def bundled(uri: str) -> Any:
    """A metaschema by its URI, or None."""
    if "json-schema.org/" not in uri:
        return None
    from jsonschema_specifications import REGISTRY  # not before a reference leads out of the schema

    for name in (uri, uri + "#"):
        if name in REGISTRY:
            return load(dump(REGISTRY.contents(name)))
    return None


def given(remotes: Mapping[str, str]) -> Retrieve:
    """Retrieve from the texts of schemas by URI, then from the bundled ones."""

    def retrieve(uri: str) -> Any:
        return load(remotes[uri]) if uri in remotes else bundled(uri)

    return retrieve


def collecting(registry: Any, found: dict[str, str]) -> Retrieve:
    """Retrieve from a `referencing.Registry` or a mapping of schemas by URI, and note the texts of what was used."""
    look = (
        _from_mapping(registry)
        if isinstance(registry, Mapping) and not hasattr(registry, "contents")
        else _from_registry(registry)
    )

    def retrieve(uri: str) -> Any:
        raw = bundled(uri) if (contents := look(uri)) is None else None
        if contents is None:
            return raw
        found[uri] = contents if isinstance(contents, str) else dump(contents)
        return load(found[uri])

    return retrieve


def _from_mapping(schemas: Mapping[str, Any]) -> Callable[[str], Any]:
    return lambda uri: schemas.get(uri, schemas.get(uri + "#"))


def _from_registry(registry: Any) -> Callable[[str], Any]:
    import referencing.exceptions

    if not hasattr(registry, "get_or_retrieve"):
        raise SchemaError("", f"registry= is a referencing.Registry or a mapping of URIs to schemas, not {registry!r}")

    def look(uri: str) -> Any:
        try:
            return registry.get_or_retrieve(uri).value.contents
        except (referencing.exceptions.Unretrievable, referencing.exceptions.NoSuchResource):
            return None

    return look
