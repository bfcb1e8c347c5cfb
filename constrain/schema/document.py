"""A JSON Schema as a graph of nodes: references followed, nothing decided yet (`keywords` fills the nodes in).

Only what the root reaches is read; an unreachable definition asserts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

from constrain.errors import BudgetError, SchemaError

if TYPE_CHECKING:
    from constrain.dfa import Dfa

NULL, BOOLEAN, INTEGER, FRACTION, STRING, ARRAY, OBJECT = (1 << i for i in range(7))
NUMBER = INTEGER | FRACTION
EVERY = (1 << 7) - 1
TYPES = {
    "null": NULL,
    "boolean": BOOLEAN,
    "integer": INTEGER,
    "number": NUMBER,
    "string": STRING,
    "array": ARRAY,
    "object": OBJECT,
}
DRAFTS = {"draft-03": 4, "draft-04": 4, "draft-06": 6, "draft-07": 7, "2019-09": 2019, "2020-12": 2020}
MAX_NODES = 50_000
MAX_TEXT = 4 << 20  # characters
MAX_DIGITS = 2_000
MAX_NESTING = 400  # levels of brackets
Place = tuple[Any, str, str | int | None]
Retrieve = Callable[[str], Any]  # the schema that a URI names, or None
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Node:
    """One subschema. An absent keyword has its value from the class, which asserts nothing.

    `place`: that of the subschema above, the keyword (with its slash, or a whole pointer), the member of that or None.
    """

    types: int = EVERY
    enum: tuple[Any, ...] | None = None
    properties: Mapping[str, Node] = _NOTHING
    required: tuple[str, ...] = ()
    additional: Node | None = None  # for keys that are not in `properties`
    prefix: tuple[Node, ...] = ()
    items: Node | None = None  # after `prefix`
    min_items: int = 0
    max_items: int | None = None
    min_length: int = 0
    max_length: int | None = None
    pattern: str | None = None
    dfa: Dfa | None = None  # of the pattern, where it had to be made to see that it is not too large
    minimum: int | Decimal | None = None
    maximum: int | Decimal | None = None
    above_minimum: int | Decimal | None = None  # exclusive
    below_maximum: int | Decimal | None = None
    multiple_of: int | Decimal | None = None
    format: str | None = None
    all_of: tuple[Node, ...] = ()  # targets of $ref beside other keywords among them
    any_of: tuple[tuple[Node, ...], ...] = ()
    one_of: tuple[Node, ...] = ()
    negated: Node | None = None
    condition: Node | None = None  # if
    then: Node | None = None
    otherwise: Node | None = None
    pattern_properties: tuple[tuple[str, Node], ...] = ()
    names: Node | None = None  # of properties
    dependents: tuple[tuple[str, tuple[str, ...] | Node], ...] = ()
    min_properties: int = 0
    max_properties: int | None = None
    contains: Node | None = None
    min_contains: int = 1
    max_contains: int | None = None
    contained_is_evaluated: bool = False
    unique: bool = False
    unevaluated_properties: Node | None = None
    unevaluated_items: Node | None = None
    raw: Any = None  # what the node was made from
    entangled: bool = False  # of the root: somewhere in the schema keywords combine that can be too much together
    watched: tuple[Node, ...] = ()  # of the root: schemas in which uniqueItems may stand where it is not enforced
    size: int = 0  # of the root: about the bytes of states that the schema can need

    def __init__(self, place: Place | None = None, base: Resource | None = None) -> None:
        self.place = place  # and not the node above: where nothing refers in a circle, memory is freed at once
        self.base = base

    @property
    def draft(self) -> int:
        """The draft that the subschema is written in."""
        return 2020 if self.base is None else self.base.draft

    @property
    def vocabularies(self) -> frozenset[str] | None:
        """The vocabularies whose keywords alone count; None: all of the draft."""
        return None if self.base is None else self.base.vocabularies

    @property
    def pointer(self) -> str:
        """The JSON pointer of the subschema."""
        steps: list[str] = []
        place = self.place
        while place:
            above, keyword, key = place
            steps.append(keyword if key is None else f"{keyword}/{escape(str(key))}")
            place = above
        return "".join(reversed(steps))

    def error(self, message: str, keyword: str = "") -> SchemaError:
        return SchemaError(self.pointer + (f"/{keyword}" if keyword else ""), message)

    def __repr__(self) -> str:
        return f"<Node #{self.pointer}>"


_BARE = frozenset(("place", "base", "raw", "types"))


def is_bare(node: Node) -> bool:
    """Whether one look shows that a subschema asserts types and nothing else."""
    return len(node.__dict__) <= len(_BARE) and node.__dict__.keys() <= _BARE


Scope = tuple[tuple[str, int], ...]


class Resource(NamedTuple):
    """A schema with an identifier of its own: what `#` in it refers to.

    dynamic: of each dynamic anchor met on the way here, which schema bore it first (by `id`). vocabularies: those that
    the metaschema lists, by the last word of their URIs; None: those of the draft.
    """

    uri: str
    root: Any
    draft: int
    dynamic: Scope = ()
    vocabularies: frozenset[str] | None = None


def escape(token: str) -> str:
    """A key as a JSON pointer token (RFC 6901)."""
    return token.replace("~", "~0").replace("/", "~1")


class Document:
    """One schema while it is read: a worklist of (node, raw subschema), so that no depth can exhaust the stack."""

    def __init__(
        self,
        raw: Any,
        readers: Callable[[int, frozenset[str] | None], Container[str]],
        remotes: Retrieve,
        formats: bool = True,
        anchored: bool = True,
    ) -> None:
        self.raw = raw
        self.readers = readers  # of a draft and vocabularies: the keywords that are more than annotations
        self.assert_formats = formats
        self.remotes = remotes
        self.nodes: dict[tuple[int, Scope], Node] = {}  # by id() of the raw subschema, which `raw` keeps alive
        self.pending: list[tuple[Node, dict[str, Any]]] = []
        self.patterns: dict[str, Dfa | None] = {}
        self.lengths = False  # whether some string's length is bounded
        self.differing = False  # whether the items of some array must differ
        self.joined: list[Node] = []  # those with allOf, or $ref beside other keywords
        self.entangled = False
        self.size = 0
        self._found: dict[str, tuple[Any, Resource]] | None = None
        self._dynamic: dict[str, dict[str, Any]] = {}  # of each resource: its dynamic anchors
        self._bearers: dict[int, tuple[Any, Resource]] = {}  # what bears one, by id()
        self.top = self._dialected("", raw, None)
        if anchored and isinstance(raw, dict) and _bears_dynamic(raw):
            self.resources()
            self.top = self._enter(self.top, ())
        self.root = self.node(raw, None, "", None, self.top)

    def node(
        self, raw: Any, above: Node | None, keyword: str, key: str | int | None = None, base: Resource | None = None
    ) -> Node:
        """The node of a raw subschema; read later, once. One that only refers is the node of what it refers to."""
        place = (None if above is None else above.place, keyword, key)
        if raw.__class__ is not dict:
            return self._boolean(raw, Node(place))
        if base is None:
            assert above is not None
            assert above.base is not None
            base = above.base
        known = self.nodes.get((id(raw), base.dynamic))
        if known is not None:
            return known
        inner = base
        if raw is not base.root and ("$id" in raw or "id" in raw):
            inner = self._enter(self._own_resource(raw, base), base.dynamic)
        node = Node(place, inner)
        node.raw = raw
        if "$ref" in raw and self._only_refers(raw, inner):
            return self._target(raw, node)
        if len(self.nodes) >= MAX_NODES:
            raise BudgetError(f"the schema has more than {MAX_NODES} subschemas in use")
        self.nodes[id(raw), base.dynamic] = node
        self.pending.append((node, raw))
        return node

    @staticmethod
    def _boolean(raw: Any, node: Node) -> Node:
        if raw is False:
            node.types = 0
        elif raw is not True:
            raise SchemaError(node.pointer, f"a schema is an object, true or false, not {shown(raw)}")
        return node

    def _own_resource(self, raw: Any, base: Resource) -> Resource:
        """The resource that a subschema is, if it has an identifier, else the one around it."""
        return base if identifier(raw, base.draft) is None else self._dialected(base.uri, raw, base)

    def _dialected(self, uri: str, raw: Any, around: Resource | None) -> Resource:
        """A schema met at a URI, by its own identifier if it has one; around: the schema that it is part of."""
        draft, vocabularies = (2020, None) if around is None else (around.draft, around.vocabularies)
        named = raw.get("$schema") if isinstance(raw, dict) else None
        if isinstance(named, str):
            draft, vocabularies = self._dialect(named, draft)
        own = identifier(raw, draft)
        return Resource(uri if own is None else urljoin(uri, own), raw, draft, (), vocabularies)

    def _dialect(self, metaschema: str, otherwise: int) -> tuple[int, frozenset[str] | None]:
        """The draft and the vocabularies that a `$schema` stands for (2020-12 core, section 8.1.2)."""
        raw = None if "json-schema.org/" in metaschema else self.remotes(metaschema.rstrip("#"))
        if not isinstance(raw, dict):
            return draft_of({"$schema": metaschema}, otherwise), None
        listed = raw.get("$vocabulary")
        vocabularies = frozenset(uri.rpartition("/")[2] for uri in listed) if isinstance(listed, dict) else None
        return draft_of(raw, otherwise), vocabularies

    def _enter(self, resource: Resource, scope: Scope) -> Resource:
        """A resource reached from a dynamic scope: what bears an anchor first, bears it for all within."""
        borne = self._dynamic.get(resource.uri)
        if borne:
            known = dict(scope)
            scope = tuple(sorted({**{name: id(raw) for name, raw in borne.items()}, **known}.items()))
        return resource._replace(dynamic=scope)

    def _only_refers(self, raw: dict[str, Any], base: Resource) -> bool:
        """Whether nothing beside `$ref` counts (drafts up to 7 ignore its siblings: draft-07 core, section 8.3)."""
        asserting = self.readers(base.draft, base.vocabularies)
        return base.draft <= 7 or not any(name in asserting and name != "$ref" for name in raw)

    def _target(self, raw: dict[str, Any], node: Node) -> Node:
        """Follow references to references until something else is found."""
        passed: dict[tuple[int, Scope], None] = {}
        here: Any = raw
        place = ""
        while here.__class__ is dict and "$ref" in here and node.base and self._only_refers(here, node.base):
            key = (id(here), node.base.dynamic)
            if key in passed:
                raise node.error("refers to itself without anything in between, so it says nothing", "$ref")
            passed[key] = None
            known = self.nodes.get(key)
            if known is not None:
                break
            here, pointer, base = self.resolve(here["$ref"], node)
            node, place = Node((None, pointer, None), base), pointer
        else:
            known = self.node(here, None, place, None, node.base)
        self.nodes.update(dict.fromkeys(passed, known))
        return known

    def resolve(self, reference: Any, node: Node, keyword: str = "$ref") -> tuple[Any, str, Resource]:
        """What a reference in `node` names: (raw subschema, its pointer, what it is part of)."""
        assert node.base is not None
        if not isinstance(reference, str):
            raise node.error(f"{keyword!r} must be a URI reference, not {shown(reference)}", keyword)
        if reference.startswith("#"):
            base, fragment = node.base, reference[1:]
        else:
            try:
                uri, fragment = urldefrag(urljoin(node.base.uri, reference))
            except ValueError as error:
                raise node.error(f"{reference!r} is no URI reference: {error}", keyword) from None
            found = self._resource(uri)
            if found is None:
                raise node.error(
                    f"{reference!r} is not in this schema, and nothing is fetched; put its target under $defs, or give "
                    "it by registry=",
                    keyword,
                )
            base = found
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            anchored = self.resources().get(f"{base.uri}#{fragment}")
            if anchored is None:
                raise node.error(f"{reference!r} names no $anchor of this schema", keyword)
            return anchored[0], fragment, self._enter(anchored[1], node.base.dynamic)
        return self._follow(reference, fragment, base, node)

    def resolve_dynamic(self, reference: Any, node: Node, keyword: str) -> tuple[Any, str, Resource]:
        """What $dynamicRef or $recursiveRef names: the first on the way here that bears the anchor of the target."""
        raw, pointer, base = self.resolve(reference, node, keyword)
        assert node.base is not None
        anchor = "" if keyword == "$recursiveRef" else urldefrag(reference)[1]
        if not isinstance(raw, dict) or _dynamic_anchor(raw, anchor) is None:
            return raw, pointer, base
        first = dict(node.base.dynamic).get(anchor)
        if first is None:
            return raw, pointer, base
        raw, resource = self._bearers[first]
        return raw, f"#{anchor}", self._enter(resource, node.base.dynamic)

    def _follow(self, reference: str, fragment: str, base: Resource, node: Node) -> tuple[Any, str, Resource]:
        raw = base.root
        for token in fragment.split("/")[1:]:
            token = token.replace("~1", "/").replace("~0", "~")
            if raw.__class__ is dict and token in raw:
                raw = raw[token]
            elif isinstance(raw, list) and token.isdecimal() and len(token) < 9 and int(token) < len(raw):
                raw = raw[int(token)]
            else:
                raise node.error(f"{reference!r} leads nowhere: there is no {token!r}", "$ref")
            if raw.__class__ is dict and ("$id" in raw or "id" in raw):
                base = self._own_resource(raw, base)
        assert node.base is not None
        return raw, fragment, self._enter(base, node.base.dynamic)

    # --- what can be referred to -------------------------------------------------------------------------------------

    def _resource(self, uri: str) -> Resource | None:
        found = self.resources().get(uri) or self.resources().get(uri + "#")
        if found is None:
            raw = self.remotes(uri)
            if raw is None:
                return None
            self._add(raw, uri)
            found = self.resources()[uri]
        return found[1]

    def resources(self) -> dict[str, tuple[Any, Resource]]:
        """Every identifier and anchor in the document (built when a reference first needs it)."""
        if self._found is None:
            self._found = {}
            self._add(self.raw, urldefrag(self.top.uri)[0])
        return self._found

    def _add(self, raw: Any, uri: str) -> None:
        """Index a whole document, which may also be known by the identifier in it."""
        assert self._found is not None
        base = self._dialected(uri, raw, self.top)
        self._found[uri] = self._found[base.uri] = raw, base
        stack: list[tuple[Any, Resource]] = [(raw, base)]
        unknown: list[tuple[Any, Resource]] = []  # what stands under no keyword identifies only what nothing else does
        while stack or unknown:
            raw, base = stack.pop() if stack else unknown.pop()
            if isinstance(raw, dict):
                base = self._index(raw, base)
                for key, value in raw.items():
                    if key in _MAPS and isinstance(value, dict):
                        stack += [(child, base) for child in value.values()]
                    elif key not in ("enum", "const"):
                        known = key in self.readers(base.draft, base.vocabularies)
                        (stack if known else unknown).append((value, base))
            elif isinstance(raw, list):
                stack += [(value, base) for value in raw]

    def _index(self, raw: dict[str, Any], base: Resource) -> Resource:
        assert self._found is not None
        own = None if raw is base.root else identifier(raw, base.draft)
        if own is not None:
            base = self._dialected(base.uri, raw, base)
            self._found.setdefault(base.uri, (raw, base))
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(raw.get(keyword), str):
                self._found.setdefault(f"{base.uri}#{raw[keyword]}", (raw, base))
        for anchor in (raw.get("$dynamicAnchor"), "" if raw is base.root else None):
            if isinstance(anchor, str) and _dynamic_anchor(raw, anchor) is not None:
                self._dynamic.setdefault(base.uri, {}).setdefault(anchor, raw)
                self._bearers[id(raw)] = raw, base
        local = raw.get("id" if base.draft == 4 else "$id")
        if base.draft <= 7 and isinstance(local, str) and local.startswith("#"):
            self._found.setdefault(f"{base.uri}{local}", (raw, base))
        return base


_MAPS = frozenset(
    "properties patternProperties $defs definitions dependentSchemas dependencies dependentRequired".split()
)


def _dynamic_anchor(raw: dict[str, Any], anchor: str) -> str | None:
    """The dynamic anchor that a schema bears, if it is this one; "" stands for $recursiveAnchor."""
    if anchor == "":
        return "" if raw.get("$recursiveAnchor") is True else None
    return anchor if raw.get("$dynamicAnchor") == anchor else None


def may_bear_dynamic(text: str) -> bool:
    """Whether a document of some text may bear a dynamic anchor: a quick look before `_bears_dynamic`."""
    return "Anchor" in text or "\\u" in text


def _bears_dynamic(raw: Any) -> bool:
    """Whether a document bears a dynamic anchor anywhere, so that it matters by which way a schema is reached."""
    stack = [raw]
    while stack:
        here = stack.pop()
        if isinstance(here, dict):
            if "$dynamicAnchor" in here or "$recursiveAnchor" in here:
                return True
            stack += [value for value in here.values() if value.__class__ in (dict, list)]
        elif isinstance(here, list):
            stack += [value for value in here if value.__class__ in (dict, list)]
    return False


def identifier(raw: Any, draft: int) -> str | None:
    """The `$id` (draft 4: `id`) that makes a subschema a resource of its own."""
    if not isinstance(raw, dict):
        return None
    own = raw.get("id" if draft == 4 else "$id")
    if not isinstance(own, str) or own.startswith("#") or (draft <= 7 and "$ref" in raw):
        return None
    return own.rstrip("#")


def draft_of(raw: Any, otherwise: int = 2020) -> int:
    """The draft that `$schema` names; `otherwise` where it names none that is known."""
    named = raw.get("$schema") if isinstance(raw, dict) else None
    if isinstance(named, str):
        for part, draft in DRAFTS.items():
            if part in named:
                return draft
    return otherwise


def shown(value: Any, limit: int = 60) -> str:
    """A value as it stands in a message."""
    try:
        text = str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        text = "something nested too deeply to show"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def load(text: str) -> Any:
    """A schema from its JSON text, exactly: numbers with a fraction or an exponent become Decimals.

    >>> load('{"const": 2.0}')
    {'const': Decimal('2.0')}
    """
    if len(text) > MAX_TEXT:
        raise BudgetError(f"the schema has {len(text)} characters, over the limit of {MAX_TEXT}")
    try:
        raw = _decode(text)
    except RecursionError:
        raise BudgetError(_TOO_DEEP) from None
    except InvalidOperation:
        raise BudgetError("the schema has a number whose exponent is out of all bounds") from None
    except ValueError as error:
        raise SchemaError("", f"the schema is not JSON: {error}") from None
    if text.count("{") + text.count("[") > MAX_NESTING:
        _check_nesting(raw)
    return raw


def _check_nesting(raw: Any) -> None:
    """Refuse what is nested deeper than the limit, whatever depth this process's own recursion limit would bear."""
    level = [raw]
    for _ in range(MAX_NESTING):
        level = [below for value in level for below in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in level if isinstance(value, (dict, list))]
        if not level:
            return
    raise BudgetError(_TOO_DEEP)


def dump(schema: Any) -> str:
    """The JSON text of a schema given as Python values.

    >>> dump({"minimum": 0.5})
    '{"minimum": 0.5}'
    """
    try:
        return json.dumps(schema, ensure_ascii=False, allow_nan=False, default=_plain_number)
    except RecursionError:
        raise BudgetError(_TOO_DEEP) from None
    except (TypeError, ValueError) as error:
        raise SchemaError("", f"the schema is not JSON: {error}") from None


def _plain_number(value: Any) -> int | float:
    if isinstance(value, Decimal) and value.is_finite():
        if value == value.to_integral_value() and value.adjusted() < MAX_DIGITS:
            return int(value)
        if Decimal(repr(float(value))) == value:
            return float(value)
        raise TypeError(f"{value} cannot be a float; give the schema as text")
    raise TypeError(f"{type(value).__name__} is no JSON value")


_TOO_DEEP = f"the schema is nested too deeply: over {MAX_NESTING} levels"


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


_decode = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_constant).decode
