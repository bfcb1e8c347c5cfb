"""A JSON Schema's values as states of the engine, each built when it is first entered."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from constrain.core import DONE, Core, array_states, core, of_types
from constrain.counted import Counted
from constrain.dfa import Dfa, from_classes
from constrain.dfa_states import QUOTE, counted_block, counted_states, dfa_states, quoted_states
from constrain.distinct import DistinctArray
from constrain.errors import BudgetError, UnsatisfiableError
from constrain.grammar import JsonSchema
from constrain.schema import witness
from constrain.schema.conjunctions import Alternative, Conjunction
from constrain.schema.document import (
    ARRAY,
    BOOLEAN,
    FRACTION,
    INTEGER,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    Node,
    is_bare,
)
from constrain.schema.domains import Domain
from constrain.schema.expand import KINDS, NO, OWN, YES, only
from constrain.schema.formula import TRUE
from constrain.schema.joint import LEAST, joint_keys
from constrain.schema.json_values import spell_scalar
from constrain.schema.keys import KeySpace
from constrain.schema.stages import Run, Stage, Way
from constrain.schema.unique import domains, refuse, watch
from constrain.schema.values import ArrayShape, Values, lengths
from constrain.schema.verdicts import Verdicts
from constrain.tables import Tables, Unbuilt
from constrain_kernels import layout

MAX_ITEMS = 64
MANY_FACTS = 12
PREPARED = 4  # members' values that are built when compiling
MANY_MEMBERS = 30  # members of an object times facts that hang on them, from which on their values are built later


class JsonStates:
    """Builds the value states of one schema: `state(conjunction)` names one, `define` builds it."""

    def __init__(self, tables: Tables, grammar: JsonSchema) -> None:
        self.tables = tables
        self.core: Core = core()
        self.free = self.core.flexible if grammar.whitespace == "flexible" else self.core.compact
        self.order = layout.ORDERED if grammar.property_order == "schema" else layout.ANY_ORDER
        self.values = Values(grammar.integers == "any", grammar.property_order == "schema")
        self.known: dict[Conjunction, int] = {(): self.free.any}
        self._of_types = of_types(self.free, grammar.integers == "plain")
        self.pending: dict[int, Unbuilt] = {}
        self._runs: dict[Run, int] = {}
        self._stages: dict[tuple[Stage, bool], int] = {}
        self._shutting = False  # whether what is built closes as an item among items that differ
        self._insides: dict[Dfa | Counted, int] = {}
        self._built: list[tuple[int, int, Stage]] = []  # (first state, one past the last, stage) of objects
        self._dfas: dict[Dfa, int] = {}
        self._keys: dict[Dfa, int] = {}
        self._owned: dict[tuple[Node, int], Node] = {}
        self._counted: dict[Counted, int] = {}
        self._lengths: dict[tuple[int, int | None], int] = {}

    @property
    def verdicts(self) -> Verdicts:
        return self.values.verdicts

    def root(self, node: Node) -> int:
        """The value state of the whole schema; UnsatisfiableError if nothing is valid."""
        try:
            size = node.size + (self.values.survey(node) if node.entangled else 0)
            if node.watched:
                watch(self.verdicts, node.watched)
            if not self.values.live((node,)):
                raise UnsatisfiableError("", "no JSON value is valid under this schema")
            start = self.state((node,))
            if start in self.pending and self._decides_much(node):
                self._prepare(start)  # now, and not when the first mask is waited for
            while self.pending and size > self.tables.limit // 4:  # so large that it may not fit: see now
                self.define(next(iter(self.pending)))
        except RecursionError:
            raise BudgetError("the schema is nested too deeply") from None
        except BudgetError as error:
            raise error.located(node.pointer) from None
        return start

    def _prepare(self, start: int) -> None:
        """Define the start, and the values of the first members that much hangs on."""
        self.define(start)
        members = [state for state, made in self.pending.items() if made[0] is JsonStates._define_member]
        for state in members[:PREPARED]:
            known = len(self.pending)
            self.define(state)
            later = [*self.pending.items()][known - 1 :]
            runs = [run for run, made in later if made[0] is JsonStates._define_run]
            for run in runs:
                self.define(run)

    def _decides_much(self, node: Node) -> bool:
        """Whether the first state of an object hangs on so many facts that it takes long to build."""
        if not self.values.is_judged((node,)):
            return False
        verdicts = self.verdicts.of_kind(self.verdicts.run((node,)), OBJECT)
        return len(self.verdicts.facts(verdicts)) > MANY_FACTS

    def state(self, conjunction: Conjunction) -> int:
        """The value state of a conjunction that some value fits; its transitions come later."""
        found = self.known.get(conjunction)
        if found is None:
            if len(conjunction) == 1 and is_bare(conjunction[0]):
                found = self._of_types.get(conjunction[0].types)
            if found is None:
                found = self.tables.reserved()
                self.pending[found] = JsonStates._define_value, (conjunction,)
            self.known[conjunction] = found
        return found

    def define(self, state: int) -> None:
        """Give a pending state its transitions."""
        make, args = self.pending[state]
        try:
            make(self, *args, state)
        except BudgetError as error:
            raise error.located(self._pointer(args[0])) from None
        del self.pending[state]

    def _pointer(self, made_of: Conjunction | Run | Stage) -> str:
        """The JSON pointer of a schema that a pending state is made of."""
        if isinstance(made_of, Stage):
            return self.verdicts.pointer(made_of.verdicts)
        nodes = [node for node in made_of if isinstance(node, Node)]
        if nodes:
            return next((node.pointer for node in nodes if node.place), "")
        return self.verdicts.pointer(tuple([formula for formula in made_of if isinstance(formula, int)]))

    def _define_value(self, conjunction: Conjunction, state: int) -> None:
        if self.values.is_judged(conjunction):
            self._define_run(self.verdicts.run(conjunction), state)
            return
        parts: list[int] = []
        literals: set[bytes] = set()
        alternatives = self.values.alternatives(conjunction)
        joint = joint_keys(self.values, alternatives) if len(alternatives) >= LEAST else ()
        if joint:
            parts += self._joint(conjunction, joint)
        for alternative in alternatives:
            if alternative.enum is None:
                parts += self._typed(alternative._replace(types=alternative.types & ~OBJECT) if joint else alternative)
                continue
            for value in alternative.enum:
                if isinstance(value, (dict, list)):
                    parts += self._constant(value)
                else:
                    literals.update(spell_scalar(value))
        if literals:
            parts.append(self.tables.add_words(sorted(literals)))
        self._unite(parts, state)

    def _unite(self, parts: list[int], state: int) -> None:
        """Let a reserved state be any of some states."""
        if len(parts) == 1 and parts[0] not in self.pending:
            self.tables.copy_state(parts[0], at=state)
        else:
            self.tables.state(calls=[(part, DONE) for part in dict.fromkeys(parts)], at=state)

    def _typed(self, alternative: Alternative) -> list[int]:
        """One value state for each type of an alternative that some value has."""
        c, types = self.core, alternative.types
        parts: list[int] = []
        if types & NULL:
            parts.append(c.null)
        if types & BOOLEAN:
            parts.append(c.boolean)
        if types & NUMBER:
            parts += self._number(alternative)
        if types & STRING:
            parts += self._string(alternative)
        return parts + self._containers(alternative)

    def _containers(self, alternative: Alternative) -> list[int]:
        parts = self._array(alternative) if alternative.types & ARRAY else []
        return parts + self._object(alternative) if alternative.types & OBJECT else parts

    def _number(self, alternative: Alternative) -> list[int]:
        dfa = self.values.number(alternative)
        if dfa is None:
            return [self.core.number if alternative.types & FRACTION else self.core.integer]
        return [self.dfa(dfa)] if dfa.n_states else []

    def _string(self, alternative: Alternative) -> list[int]:
        strings = self.values.string(alternative)
        if isinstance(strings, Counted):
            return [self._count(strings)] if strings.possible else []
        if strings is not None:
            return [self.quoted(strings)] if strings.n_states else []
        least, most = lengths(alternative)
        if most is not None and least > most:
            return []
        if least == 0 and most is None:
            return [self.core.string]
        if (least, most) not in self._lengths:
            self._lengths[least, most] = self.core.bounded_string(self.tables, least, most)
        return [self._lengths[least, most]]

    def _count(self, strings: Counted) -> int:
        if strings not in self._counted:
            self._counted[strings] = counted_states(self.tables, strings)
        return self._counted[strings]

    def _array(self, alternative: Alternative) -> list[int]:
        shape = self.values.array(alternative)
        if shape.most is not None and shape.least > shape.most:
            return []
        if shape.distinct and shape.most != 0:
            return [self._distinct(alternative, shape)]
        bounded = shape.prefix or shape.rest != () or shape.least or shape.most is not None
        if not bounded and not self._shutting:
            return [self.free.array]
        prefix = [self.state(child) for child in shape.prefix]
        rest = 0 if shape.rest is None else self.state(shape.rest)
        return [
            array_states(self.tables, self.free.space, prefix, rest, shape.least, shape.most, counted=self._shutting)
        ]

    # --- arrays whose items differ -----------------------------------------------------------------------------------

    def _distinct(self, alternative: Alternative, shape: ArrayShape) -> int:
        """The value state of an array whose items must differ."""
        places, rest = domains(self.values, alternative, shape)
        shutting, self._shutting = self._shutting, True  # its objects and arrays close with a comparison
        array = DistinctArray(
            self.tables,
            self.free.space,
            places,
            rest,
            (shape.least, shape.most),
            self._inside,
            self._inner,
        )
        start = array.start()
        self._shutting = shutting
        return start

    def _inside(self, strings: Dfa | Counted | None) -> int:
        """The inside of strings that must differ, spelled like keys."""
        if strings is None:
            return self.core.key
        if strings not in self._insides:
            if isinstance(strings, Counted):
                found = counted_block(self.tables, strings, layout.EV_EXTRA, layout.IN_KEY)
            else:
                found = quoted_states(self.tables, strings, layout.EV_EXTRA, layout.IN_KEY, forced=True)
            self._insides[strings] = found
        return self._insides[strings]

    def _inner(self, domain: Domain) -> list[int]:
        """The value states of the objects and arrays of a domain; each closes with a comparison."""
        parts: list[int] = []
        for inner in domain.inner:
            first = self.tables.length(layout.H_EVENTS)
            if inner.alternative is not None:
                parts += self._containers(inner.alternative)
            else:
                parts += self._judged(inner.kind, (inner.formula,))
            self._shut(first)
        return parts

    def _shut(self, first: int) -> None:
        """Make events since `first` that close a container compare it as well."""
        events = self.tables.arrays[layout.H_EVENTS]
        for event in range(first, self.tables.length(layout.H_EVENTS)):
            row = event * layout.E_WIDTH
            if events[row] in (layout.EV_POP, layout.EV_DROP):
                events[row + 1] = events[row] == layout.EV_DROP
                events[row] = layout.EV_SHUT

    def _object(self, alternative: Alternative) -> list[int]:
        shape = self.values.object(alternative)
        if not shape.possible:
            return []
        most = 0 if shape.most is None else shape.most
        if most == 0 and shape.most is not None:  # only {} is left: 0 means no maximum to the registers
            return [self.tables.add_object(self.core.object_spec(self.free.space, order=self.order), b"")]
        live = [kind for kind, extra in enumerate(shape.extras) if extra is not None]
        extras = [(self.state(extra), 0) for extra in shape.extras if extra is not None]
        free = not shape.keys and not shape.forbidden and not shape.least and shape.most is None
        if free and shape.extra_dfa is None and extras == [(self.free.any, 0)] and not self._shutting:
            return [self.free.object]
        banned = shape.forbidden if extras else []
        spec = self.core.object_spec(
            self.free.space,
            order=self.order,
            extras=extras,
            key_state=self._key_state(shape.extra_dfa, live),
            keys=[(len(key[0]), self.state(key[1]), 0, i) for i, key in enumerate(shape.keys)],
            banned=[*map(len, banned)],
            required=[i for i, key in enumerate(shape.keys) if key[2]],
            counts=(shape.least, most),
        )
        return [self.tables.add_object(spec, b"".join([*[key[0] for key in shape.keys], *banned]))]

    def _key_state(self, dfa: Dfa | None, live: Sequence[int]) -> int:
        """The inside of extra keys of the kinds that may stand; 0: of all keys."""
        if dfa is None or not live:
            return 0
        codes = np.zeros(int(dfa.accepting.max(initial=0)) + 1, np.int32)
        codes[np.array(live) + 1] = np.arange(1, len(live) + 1)
        kept = from_classes(dfa.classes, dfa.next, codes[dfa.accepting])
        if kept not in self._keys:
            self._keys[kept] = quoted_states(self.tables, kept, layout.EV_EXTRA, layout.IN_KEY, forced=True)
        return self._keys[kept]

    def _joint(self, conjunction: Conjunction, names: tuple[str, ...]) -> list[int]:
        """The value state of all objects of a union, read as one with some keys (see `schema.joint`)."""
        verdicts = self.verdicts.of_kind(self.verdicts.run(conjunction), OBJECT)
        return [self._object_stage(self.verdicts.object(verdicts, names), 0)]

    def _constant(self, value: Any) -> list[int]:
        """The states of an enumerated object or array."""
        node = only(value)
        return self._typed(self.values.alternatives((node,))[0]) if self.values.live((node,)) else []

    # --- values under several verdicts -------------------------------------------------------------------------------

    def run(self, run: Run) -> int:
        """The value state of a run, which returns the number of the verdict that holds."""
        if len(run) == 1:
            nodes = self._conjunction(run[0])
            if nodes is not None:
                return self.state(nodes)
        if run not in self._runs:
            found = self._runs[run] = self.tables.reserved()
            self.pending[found] = JsonStates._define_run, (run,)
        return self._runs[run]

    def _conjunction(self, formula: int) -> Conjunction | None:
        """The nodes that a formula asks a value to satisfy, if it asks no more."""
        f = self.verdicts.formulas
        facts = f.conjuncts(formula)
        return tuple([f.what(fact)[1] for fact in facts]) if all(map(f.is_fact, facts)) else None

    def _define_run(self, run: Run, state: int) -> None:
        parts: list[int] = []
        for kind in KINDS:
            verdicts = self.verdicts.of_kind(run, kind)
            if any(verdicts):
                parts += self._judged(kind, verdicts)
        self._unite(parts, state)

    def _judged(self, kind: int, verdicts: Run, names: tuple[str, ...] = ()) -> list[int]:
        """The value states of one kind; names: the keys of an object whose order is set already."""
        if kind in (NULL, NO, YES):
            word = {NULL: b"null", NO: b"false", YES: b"true"}[kind]
            return [self.core.literal(self.tables, word, cls) for cls, v in enumerate(verdicts) if v == TRUE]
        alternative = self._alternative(kind, verdicts, names)
        if alternative is not None:
            return self._typed(alternative)
        if kind in (STRING, NUMBER):
            strings = self.verdicts.strings(verdicts[0]) if kind == STRING and len(verdicts) == 1 else None
            if isinstance(strings, Counted):
                return [self._count(strings)] if strings.possible else []
            dfa = strings or self.verdicts.scalars(kind, verdicts)
            return [] if not dfa.n_states else [self.quoted(dfa) if kind == STRING else self.dfa(dfa)]
        if len(verdicts) == 1:
            several = self.verdicts.formulas.alternatives(verdicts[0], MAX_ITEMS)
            if len(several) > 1:  # a union is a set of items, each of which lives by itself
                names = self.verdicts.names(verdicts) if kind == OBJECT else ()
                return [part for formula in several for part in self._judged(kind, (formula,), names)]
        asked = [cls for cls, verdict in enumerate(verdicts) if verdict]
        if len(verdicts) > 1 and len(asked) == 1:  # no other can hold of this kind: as if there were no other
            after = self.tables.state(eps=asked[0])
            return [self.tables.state(calls=[(p, after)]) for p in self._judged(kind, (verdicts[asked[0]],), names)]
        if kind == ARRAY:
            refuse(self.verdicts, verdicts)
        stage = self.verdicts.array(verdicts) if kind == ARRAY else self.verdicts.object(verdicts, names)
        if not self.verdicts.completes(stage):
            return []
        return [self._first_array(stage) if kind == ARRAY else self._object_stage(stage, 0)]

    def _alternative(self, kind: int, verdicts: Run, names: tuple[str, ...]) -> Alternative | None:
        """A single verdict that only asks for some nodes' own keywords is no other than a plain value."""
        f = self.verdicts.formulas
        nodes: list[Node] = []
        if names:
            nodes.append(Node())
            nodes[0].properties = dict.fromkeys(names, Node())
        types = kind
        facts = f.conjuncts(verdicts[0])
        if len(verdicts) > 1 or not all(map(f.is_fact, facts)):
            return None
        for what in map(f.what, facts):
            node = Node()
            match what:
                case ("own", own):
                    node = self._own(own, kind)
                case ("int",):
                    types = INTEGER
                case ("has", name):
                    node.required = (name,)
                case ("count", least, most, 0):
                    node.min_properties, node.max_properties = least, most
                case ("length", least, most):
                    node.min_items, node.max_items = least, most
                case ("unique",):
                    node.unique = True
                case _:
                    return None
            nodes.append(node)
        return Alternative(types, None, tuple(nodes) or (Node(),))

    def _own(self, node: Node, kind: int) -> Node:
        """A node with nothing but its own keywords for one type."""
        found = self._owned.get((node, kind))
        if found is None:
            found = self._owned[node, kind] = Node(node.place)
            found.__dict__.update({name: value for name, value in node.__dict__.items() if name in OWN[kind]})
        return found

    def _returns(self, ways: list[Way]) -> int:
        """Where a member's value returns to: the state after it, or minus the offset of a table of such by class."""
        after = [self._after(way.stage) for way in ways]
        return after[0] if len(after) == 1 else -self.tables.put([len(after), *after])

    def _after(self, stage: Stage) -> int:
        """The state after a member, which brought a container to a stage."""
        key = (stage, self._shutting)
        if key not in self._stages:
            found = self._stages[key] = self.tables.reserved()
            self.pending[found] = JsonStates._define_stage, key
        return self._stages[key]

    def _define_stage(self, stage: Stage, shutting: bool, state: int) -> None:
        first = self.tables.length(layout.H_EVENTS)
        self._shutting = shutting
        build = self._object_stage if stage.family is not None else self._array_stage
        build(stage, state)
        self._shutting = False
        if shutting:
            self._shut(first)

    def _item(self, stage: Stage) -> tuple[int, ...]:
        """The call that reads the next item, () if there can be none."""
        ways = self.verdicts.ways(stage, None)
        return (self.run(tuple([way.value for way in ways])), self._returns(ways)) if ways else ()

    def _first_array(self, stage: Stage) -> int:
        """The value state of an array."""
        cls, call = self.verdicts.ends(stage), self._item(stage)
        push, pop = self._brackets()
        opened = self.tables.states([(self.free.space, [(0x5D, -cls, pop)] if cls else [], call)])
        self._built.append((opened, opened + 1, stage))
        return self.tables.state([(0x5B, opened, push)])

    def _brackets(self) -> tuple[int, int]:
        """The events of an array's brackets: none, unless it must remember where it begins."""
        if not self._shutting:
            return 0, 0
        cls = self.tables.put([layout.ARRAY, *[0] * (layout.C_WIDTH - 1)])
        return self.tables.event(layout.EV_PUSH, cls), self.tables.event(layout.EV_DROP)

    def _array_stage(self, stage: Stage, state: int) -> int:
        cls, call = self.verdicts.ends(stage), self._item(stage)
        ways: list[tuple[int, int, int]] = []
        if call:
            before = self.tables.states([(self.free.space, [], call)])
            self._built.append((before, before + 1, stage))
            ways.append((0x2C, before, 0))
        if cls:
            ways.append((0x5D, -cls, self._brackets()[1]))
        return self.tables.state(ways, flags=self.free.space, at=state)

    def _object_stage(self, stage: Stage, state: int) -> int:
        """The states of an object at a stage: from its brace (state 0), or after a member."""
        v = self.verdicts
        assert stage.family is not None
        space = stage.family.keys
        extras: list[tuple[int, int]] = []
        keys: list[tuple[int, int, int, int]] = []
        live: list[int] = []
        later: list[Any] = []  # members whose values are built when they are entered
        members = v.open_members(stage)
        lazy = len(members) * len(v.facts(stage.verdicts)) > MANY_MEMBERS
        for member in members:
            if lazy and v.touched(stage, member):
                if not v.admits(stage, member):
                    continue
                later.append(member)
                child = (-len(later), DONE)
            else:
                ways = v.ways(stage, member)
                if not ways:
                    continue
                child = (self.run(tuple([way.value for way in ways])), self._returns(ways))
            if isinstance(member, int):
                keys.append((len(space.spelled[space.names[member]]), *child, member))
            else:
                live.append(space.kinds.index(member))
                extras.append(child)
        keys.sort(key=lambda key: key[3])
        at = self.tables.reserved() if later and state else state
        spec = self._stage_spec(stage, at, space, keys, extras, live)
        first = self.tables.length(layout.H_STATES)
        built = self.tables.add_object(*spec)
        self._built.append((first, self.tables.length(layout.H_STATES), stage))
        if later:
            self._postpone(first if at else first + 1, [*extras, *(key[1:3] for key in keys)], stage, later)
        if at != state:
            self.tables.copy_state(at, at=state)  # only now can anybody come to the values
            return state
        return built

    def _postpone(self, first: int, values: list[tuple[int, int]], stage: Stage, later: list[Any]) -> None:
        """Make the states of some values pending; first: the state of the first of all values.

        See `constrain_kernels.building.add_returns`: two states for each value that is not as one of 64 before it.
        """
        for i, value in enumerate(values):
            if value in values[max(0, i - 64) : i]:
                continue
            if value[0] < 0:
                self.tables.unbuild(first)
                self.pending[first] = JsonStates._define_member, (stage, later[-value[0] - 1], self._shutting)
            first += 2

    def _define_member(self, stage: Stage, member: Any, shutting: bool, state: int) -> None:
        """The value of a member, and where it returns to."""
        ways = self.verdicts.ways(stage, member)
        self._shutting = shutting
        call = self.run(tuple([way.value for way in ways])), self._returns(ways)
        self._shutting = False
        self.tables.state(calls=[call], flags=self.free.space, at=state)

    def wanted(self, state: int, begins: bool, missing: Callable[[int], bool]) -> Iterator[bytes]:
        """Texts of a member that brings a container under several verdicts sooner to its end.

        begins: whether a key may begin at the state; missing: whether the registers lack a required key.
        """
        at = bisect_right(self._built, state, key=lambda built: built[0]) - 1
        if at >= 0 and state < self._built[at][1]:
            yield from witness.nearer(self.verdicts, self._built[at][2], begins, missing)

    def _stage_spec(
        self,
        stage: Stage,
        state: int,
        space: KeySpace,
        keys: list[tuple[int, int, int, int]],
        extras: list[tuple[int, int]],
        live: list[int],
    ) -> tuple[list[int], bytes]:
        allowed = [space.spelled[space.names[key[3]]] for key in keys]
        banned = [word for word in space.spelled.values() if word not in set(allowed)] if extras else []
        spec = self.core.object_spec(
            self.free.space,
            order=self.order,
            extras=extras,
            key_state=self._key_state(space.dfa, live),
            keys=keys,
            banned=[*map(len, banned)],
            total=len(space.names),
            required=self.verdicts.awaited(stage),
            closes=self.verdicts.ends(stage, holding=True) - 1,
            after=state,
            stage=True,
            start=state == 0,
        )
        return spec, b"".join([*allowed, *banned])

    def dfa(self, dfa: Dfa) -> int:
        """The states of a byte automaton that returns where it accepts."""
        if dfa not in self._dfas:
            self._dfas[dfa] = dfa_states(self.tables, dfa)
        return self._dfas[dfa]

    def quoted(self, dfa: Dfa) -> int:
        """The value state of the strings whose inside an automaton accepts."""
        if dfa not in self._dfas:
            inside = quoted_states(self.tables, dfa)
            self._dfas[dfa] = self.tables.state([(QUOTE, inside, 0)])
        return self._dfas[dfa]
