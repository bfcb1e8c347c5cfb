"""JSON Schema's keywords: one function each, one table.

A function takes (document, node, value, raw subschema), checks the value and writes what it asserts into the node.

    parse({"type": "array", "items": {"$ref": "#"}}).items is not None
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from constrain.dfa import Dfa
from constrain.errors import BudgetError, GrammarError, SchemaError
from constrain.regex import compile_regex
from constrain.regex_syntax import LOOK, Tree
from constrain.regex_syntax import parse as parse_regex
from constrain.schema.document import MAX_DIGITS, TYPES, Document, Node, Retrieve, escape, shown
from constrain.schema.json_values import common
from constrain.schema.remotes import bundled
from constrain_kernels.determinise import ALT, CAT, CHARS, REPEAT

Reader = Callable[[Document, Node, Any, dict[str, Any]], None]
NODE_BYTES, CHARACTER_BYTES, VALUE_BYTES = 1 << 12, 160, 1 << 8  # of states for each: about, and at most
MAX_DEPTH = 64  # of an enumerated value
MAX_COUNT = (1 << 30) - 1
MAX_PATTERNS = 1 << 16  # characters of all patterns together
PLACES = 10  # characters of a pattern that cannot need too many states, in whatever way they are combined


class Keyword(NamedTuple):
    """A keyword that asserts something: its reader and the drafts that know it."""

    read: Reader
    first: int = 4
    last: int = 2020


def parse(raw: Any, assert_formats: bool = True, remotes: Retrieve = bundled, anchored: bool = True) -> Node:
    """The root of a schema's graph of nodes; SchemaError or BudgetError says what cannot be used, and where.

    remotes: gives the schema that a URI names, or None; by itself the metaschemas of the drafts. anchored: whether
    there may be dynamic anchors.
    """
    document = Document(raw, readers_of, remotes, assert_formats, anchored)
    pending = document.pending
    while pending:
        node, subschema = pending.pop()
        readers = READERS[node.draft] if node.vocabularies is None else readers_of(node.draft, node.vocabularies)
        for name, value in subschema.items():
            reader = readers.get(name)
            if reader is not None:
                reader(document, node, value, subschema)
    if document.joined:
        _refuse_loops(document.joined)
    if document.patterns and (document.lengths or (document.joined and len(document.patterns) > 1)):
        document.entangled = True
    document.root.entangled = document.entangled
    if document.differing:
        document.root.watched = tuple(document.nodes.values())
    document.root.size = document.size + NODE_BYTES * len(document.nodes)
    return document.root


def _refuse_loops(nodes: list[Node]) -> None:
    """Refuse a schema that holds if it holds itself: nodes that reach themselves by allOf and $ref alone."""
    done: set[Node] = set()
    for start in nodes:
        path = {start: iter(start.all_of)}
        while path:
            here = next(reversed(path))
            below = next(path[here], None)
            if below is None:
                done.add(here)
                del path[here]
            elif below in path:
                raise here.error("refers to itself without anything in between, so it says nothing")
            elif below not in done:
                path[below] = iter(below.all_of)


# The names that some draft defines; any other name asserts nothing.
FORMATS = frozenset(
    "date-time date time duration email idn-email hostname idn-hostname ipv4 ipv6 uri uri-reference iri iri-reference "
    "uuid uri-template json-pointer relative-json-pointer regex".split()
)


def _wrong(node: Node, keyword: str, value: Any, wanted: str) -> SchemaError:
    return node.error(f"{keyword!r} must be {wanted}, not {shown(value)}", escape(keyword))


def _count(node: Node, keyword: str, value: Any) -> int:
    number = value if value.__class__ is int or isinstance(value, bool) else _exact(node, keyword, value)
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise _wrong(node, keyword, value, "a whole number of at least 0")
    return number


def _least(node: Node, keyword: str, value: Any) -> int:
    count = _count(node, keyword, value)
    if count > MAX_COUNT:
        raise BudgetError(f"at #{node.pointer}/{keyword}: over the limit of {MAX_COUNT}")
    return count


def _exact(node: Node, keyword: str, value: Any) -> int | Decimal:
    if value.__class__ is int:
        return int(value)
    if not isinstance(value, Decimal):
        raise _wrong(node, keyword, value, "a number")
    _check_digits(node, keyword, value)
    return int(value) if value == value.to_integral_value() else value


def _check_digits(node: Node, keyword: str, value: Decimal) -> None:
    """Refuse what an exponent alone (1e999999999) makes too long to be written out."""
    if value and max(value.adjusted(), -int(value.as_tuple().exponent)) > MAX_DIGITS:
        raise BudgetError(f"at #{node.pointer}/{keyword}: {value} has over {MAX_DIGITS} digits")


def _list(node: Node, keyword: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(node, keyword, value, "an array")
    return value


def _schemas(document: Document, node: Node, keyword: str, value: Any) -> tuple[Node, ...]:
    listed = _list(node, keyword, value)
    if not listed:
        raise _wrong(node, keyword, value, "an array of at least one schema")
    return tuple([document.node(raw, node, f"/{keyword}", i) for i, raw in enumerate(listed)])


def type_(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.1.1."""
    types = 0
    for name in value if isinstance(value, list) else (value,):
        if not isinstance(name, str) or name not in TYPES:
            known = ", ".join(TYPES)
            raise node.error(f"{shown(name)} is no JSON type; the types are {known}", "type")
        types |= TYPES[name]
    node.types &= types


def enum(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.1.2."""
    _enumerate(document, node, "enum", tuple(_list(node, "enum", value)))


def const(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.1.3."""
    _enumerate(document, node, "const", (value,))


def _enumerate(document: Document, node: Node, keyword: str, values: tuple[Any, ...]) -> None:
    level: Sequence[Any] = values
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        document.size += VALUE_BYTES * len(level)
        for value in level:
            if value.__class__ is str:
                document.size += CHARACTER_BYTES * len(value)
            elif isinstance(value, Decimal):
                _check_digits(node, keyword, value)
            elif isinstance(value, (list, dict)):
                below += value if isinstance(value, list) else value.values()
                document.size += 0 if isinstance(value, list) else CHARACTER_BYTES * sum(map(len, value))
        level = below
        if not level:
            break
    else:
        raise BudgetError(f"at #{node.pointer}/{keyword}: a value nested deeper than {MAX_DEPTH} levels")
    known = node.enum
    node.enum = values if known is None else common(known, values)


def properties(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.3.2.1."""
    if not isinstance(value, dict):
        raise _wrong(node, "properties", value, "an object of schemas")
    make = document.node
    document.size += CHARACTER_BYTES * sum(map(len, value))
    node.properties = {name: make(child, node, "/properties", name) for name, child in value.items()}


def required(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.5.3 (a boolean, as draft 3 had it, asserts nothing)."""
    if isinstance(value, bool) and node.draft == 4:
        return
    if not all(isinstance(name, str) for name in _list(node, "required", value)):
        raise _wrong(node, "required", value, "an array of property names")
    node.required = tuple(dict.fromkeys(value))


def additional_properties(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.3.2.3."""
    node.additional = document.node(value, node, "/additionalProperties")


def items(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.3.1.2; an array is the older form of prefixItems."""
    if isinstance(value, list):
        node.prefix = tuple(document.node(child, node, "/items", i) for i, child in enumerate(value))
        if "additionalItems" in raw:
            node.items = document.node(raw["additionalItems"], node, "/additionalItems")
    else:
        node.items = document.node(value, node, "/items")


def prefix_items(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.3.1.1."""
    node.prefix = _schemas(document, node, "prefixItems", value)


def min_items(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.4.2."""
    node.min_items = _least(node, "minItems", value)


def max_items(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.4.1."""
    node.max_items = min(_count(node, "maxItems", value), MAX_COUNT)


def min_length(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.3.2; in code points."""
    node.min_length = _least(node, "minLength", value)
    document.lengths = True


def max_length(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.3.1; in code points."""
    node.max_length = min(_count(node, "maxLength", value), MAX_COUNT)
    document.lengths = True


def pattern(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.3.3. A pattern that may be too large is made into an automaton now, not when it is used."""
    if not isinstance(value, str):
        raise _wrong(node, "pattern", value, "a regular expression")
    node.pattern = value
    if value not in document.patterns:
        if sum(map(len, document.patterns), len(value)) > MAX_PATTERNS:
            raise BudgetError(f"at #{node.pointer}/pattern: over {MAX_PATTERNS} characters of patterns")
        document.patterns[value] = _examined(node, value, "pattern")
    node.dfa = document.patterns[value]
    if node.dfa is not None:
        document.size += node.dfa.next.nbytes * 2


def _examined(node: Node, pattern: str, keyword: str) -> Dfa | None:
    """The automaton of a pattern, or None if it is surely small and can be made later."""
    try:
        if _is_small(parse_regex(pattern, "ecma")):
            return None
        return compile_regex(pattern, dialect="ecma", spelling="json", search=True)
    except GrammarError as error:
        raise node.error(str(error), keyword) from None
    except BudgetError as error:
        raise BudgetError(f"at #{node.pointer}/{keyword}: {error}") from None


def _is_small(tree: Tree) -> bool:
    """Whether a pattern matches so few characters in a row that even all sets of places in it are few."""
    if tree.words or tree.breaks:
        return False
    places: list[int] = []
    for op, a, b, c in tree.nodes:
        if op == LOOK:
            return False
        if op in (CAT, ALT):
            places.append(sum([places[kid] for kid in tree.kids[a : a + b]]))
        else:
            places.append(places[a] * max(b + 1, c) if op == REPEAT else int(op == CHARS))
    return places[tree.root] <= PLACES


def minimum(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.2.4."""
    bound = _exact(node, "minimum", value)
    if node.draft == 4 and raw.get("exclusiveMinimum") is True:
        node.above_minimum = bound
    else:
        node.minimum = bound


def maximum(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.2.2."""
    bound = _exact(node, "maximum", value)
    if node.draft == 4 and raw.get("exclusiveMaximum") is True:
        node.below_maximum = bound
    else:
        node.maximum = bound


def exclusive_minimum(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.2.5; draft 4 writes a boolean beside `minimum`."""
    if not (node.draft == 4 and isinstance(value, bool)):
        node.above_minimum = _exact(node, "exclusiveMinimum", value)


def exclusive_maximum(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.2.3; draft 4 writes a boolean beside `maximum`."""
    if not (node.draft == 4 and isinstance(value, bool)):
        node.below_maximum = _exact(node, "exclusiveMaximum", value)


def all_of(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.2.1.1."""
    node.all_of += _schemas(document, node, "allOf", value)
    document.joined.append(node)


def any_of(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.2.1.2."""
    node.any_of += (_schemas(document, node, "anyOf", value),)
    document.entangled = True


def ref(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 8.2.3.1, beside other keywords; without them `Document.node` follows it."""
    target, pointer, base = document.resolve(value, node)
    node.all_of += (document.node(target, None, pointer, None, base),)
    document.joined.append(node)


def one_of(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.2.1.3."""
    node.one_of = _schemas(document, node, "oneOf", value)


def not_(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.2.1.4."""
    node.negated = document.node(value, node, "/not")


def if_(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.2.2, with `then` and `else`, which say nothing by themselves."""
    node.condition = document.node(value, node, "/if")
    if "then" in raw:
        node.then = document.node(raw["then"], node, "/then")
    if "else" in raw:
        node.otherwise = document.node(raw["else"], node, "/else")


def _names(node: Node, keyword: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _wrong(node, f"{keyword}/{key}", value, "an array of property names")
    return tuple(dict.fromkeys(value))


def _dependents(node: Node, keyword: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(node, keyword, value, "an object")
    return value


def dependencies(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation of draft-07, section 6.5.7."""
    for key, dependent in _dependents(node, "dependencies", value).items():
        if isinstance(dependent, (list, str)):
            listed = [dependent] if isinstance(dependent, str) else dependent
            node.dependents += ((key, _names(node, "dependencies", key, listed)),)
        else:
            node.dependents += ((key, document.node(dependent, node, "/dependencies", key)),)


def dependent_required(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.5.4."""
    for key, names in _dependents(node, "dependentRequired", value).items():
        node.dependents += ((key, _names(node, "dependentRequired", key, names)),)


def dependent_schemas(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.2.2.4."""
    for key, schema in _dependents(node, "dependentSchemas", value).items():
        node.dependents += ((key, document.node(schema, node, "/dependentSchemas", key)),)


def pattern_properties(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.3.2.2."""
    if not isinstance(value, dict):
        raise _wrong(node, "patternProperties", value, "an object of schemas")
    found: list[tuple[str, Node]] = []
    for name, child in value.items():
        if name not in document.patterns:
            document.patterns[name] = _examined(node, name, f"patternProperties/{escape(name)}")
        found.append((name, document.node(child, node, "/patternProperties", name)))
    node.pattern_properties = tuple(found)


def property_names(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.3.2.4."""
    node.names = document.node(value, node, "/propertyNames")


def min_properties(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.5.2."""
    node.min_properties = _least(node, "minProperties", value)


def max_properties(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.5.1."""
    node.max_properties = min(_count(node, "maxProperties", value), MAX_COUNT)


def contains(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 10.3.1.3, with minContains and maxContains (Validation, sections 6.4.4 and 6.4.5)."""
    node.contains = document.node(value, node, "/contains")
    if "minContains" in readers_of(node.draft, node.vocabularies):
        if "minContains" in raw:
            node.min_contains = _least(node, "minContains", raw["minContains"])
        if "maxContains" in raw:
            node.max_contains = _count(node, "maxContains", raw["maxContains"])
    node.contained_is_evaluated = node.draft >= 2020


def unique_items(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.4.3."""
    if not isinstance(value, bool):
        raise _wrong(node, "uniqueItems", value, "true or false")
    node.unique = value
    document.differing = document.differing or value


def unevaluated_properties(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 11.3."""
    node.unevaluated_properties = document.node(value, node, "/unevaluatedProperties")


def unevaluated_items(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 11.2."""
    node.unevaluated_items = document.node(value, node, "/unevaluatedItems")


def multiple_of(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 6.2.1."""
    number = _exact(node, "multipleOf", value)
    if number <= 0:
        raise _wrong(node, "multipleOf", value, "a number above 0")
    node.multiple_of = number


def format_(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Validation, section 7; names that no draft defines assert nothing."""
    if not isinstance(value, str):
        raise _wrong(node, "format", value, "the name of a format")
    if document.assert_formats and value in FORMATS:
        node.format = value


def _beside(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """A keyword that another one reads."""


def dynamic_ref(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core, section 8.2.3.2."""
    _dynamic(document, node, "$dynamicRef", value)


def recursive_ref(document: Document, node: Node, value: Any, raw: dict[str, Any]) -> None:
    """Core of 2019-09, section 8.2.4.2.1."""
    _dynamic(document, node, "$recursiveRef", value)


def _dynamic(document: Document, node: Node, keyword: str, value: Any) -> None:
    target, pointer, base = document.resolve_dynamic(value, node, keyword)
    node.all_of += (document.node(target, None, pointer, None, base),)
    document.joined.append(node)


KEYWORDS: dict[str, Keyword] = {
    "$ref": Keyword(ref),
    "type": Keyword(type_),
    "enum": Keyword(enum),
    "const": Keyword(const, first=6),
    "properties": Keyword(properties),
    "required": Keyword(required),
    "additionalProperties": Keyword(additional_properties),
    "items": Keyword(items),
    "additionalItems": Keyword(_beside, last=2019),
    "prefixItems": Keyword(prefix_items, first=2020),
    "minItems": Keyword(min_items),
    "maxItems": Keyword(max_items),
    "minLength": Keyword(min_length),
    "maxLength": Keyword(max_length),
    "pattern": Keyword(pattern),
    "minimum": Keyword(minimum),
    "maximum": Keyword(maximum),
    "exclusiveMinimum": Keyword(exclusive_minimum),
    "exclusiveMaximum": Keyword(exclusive_maximum),
    "allOf": Keyword(all_of),
    "anyOf": Keyword(any_of),
    "oneOf": Keyword(one_of),
    "not": Keyword(not_),
    "if": Keyword(if_, first=7),
    "then": Keyword(_beside, first=7),
    "else": Keyword(_beside, first=7),
    "dependencies": Keyword(dependencies, last=7),
    "dependentRequired": Keyword(dependent_required, first=2019),
    "dependentSchemas": Keyword(dependent_schemas, first=2019),
    "patternProperties": Keyword(pattern_properties),
    "propertyNames": Keyword(property_names, first=6),
    "minProperties": Keyword(min_properties),
    "maxProperties": Keyword(max_properties),
    "contains": Keyword(contains, first=6),
    "minContains": Keyword(_beside, first=2019),
    "maxContains": Keyword(_beside, first=2019),
    "uniqueItems": Keyword(unique_items),
    "unevaluatedProperties": Keyword(unevaluated_properties, first=2019),
    "unevaluatedItems": Keyword(unevaluated_items, first=2019),
    "$dynamicRef": Keyword(dynamic_ref, first=2020),
    "$recursiveRef": Keyword(recursive_ref, first=2019, last=2019),
    "multipleOf": Keyword(multiple_of),
    "format": Keyword(format_),
}

READERS: dict[int, dict[str, Reader]] = {
    draft: {name: keyword.read for name, keyword in KEYWORDS.items() if keyword.first <= draft <= keyword.last}
    for draft in (4, 6, 7, 2019, 2020)
}
VOCABULARIES = {
    "core": "$ref $dynamicRef $recursiveRef",
    "applicator": "properties patternProperties additionalProperties propertyNames items prefixItems additionalItems "
    "contains allOf anyOf oneOf not if then else dependentSchemas",
    "unevaluated": "unevaluatedProperties unevaluatedItems",
    "format-annotation": "format",
}
_VOCABULARY = {name: vocabulary for vocabulary, names in VOCABULARIES.items() for name in names.split()}


def readers_of(draft: int, vocabularies: frozenset[str] | None) -> Mapping[str, Reader]:
    """The readers of a draft's keywords, of those vocabularies alone that a metaschema lists."""
    return READERS[draft] if vocabularies is None else _chosen(draft, vocabularies)


@lru_cache(maxsize=16)
def _chosen(draft: int, vocabularies: frozenset[str]) -> dict[str, Reader]:
    listed = {*vocabularies, "core"}
    if "applicator" in listed and draft == 2019:
        listed.add("unevaluated")
    if listed & {"format", "format-assertion"}:
        listed.add("format-annotation")
    return {name: read for name, read in READERS[draft].items() if _VOCABULARY.get(name, "validation") in listed}
