"""A grammar as states of the engine: composition here, JSON values in `json_states`, each built on first entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from constrain import grammar as ir
from constrain.core import DONE, END, core
from constrain.dfa import Dfa
from constrain.dfa_states import dfa_states
from constrain.errors import GrammarError, UnsatisfiableError
from constrain.json_states import JsonStates
from constrain.regex import compile_regex
from constrain.scan import scan_table
from constrain.tables import Tables, Unbuilt
from constrain.vocabulary import Vocabulary
from constrain_kernels import layout

MIB = 1 << 20
_ALWAYS = (ir.Literal, ir.Marker, ir.Choice, ir.Token, ir.Text)  # grammars that allow some text whatever they say


@dataclass(frozen=True)
class Limits:
    """Bounds on what one compiled grammar may use; deterministic, never a matter of seconds.

    >>> Limits(table_bytes=8 << 20).table_bytes
    8388608

    table_bytes: all tables together. Over it, configurations and rows are dropped and learnt anew; a grammar whose
    states alone do not fit raises BudgetError.
    """

    table_bytes: int = 256 * MIB


class Scope(NamedTuple):
    """The rules around a grammar: their states, and which of them derive any text."""

    states: dict[str, int]
    alive: Mapping[str, bool]


class Automaton:
    """A grammar's tables, and the builders that extend them."""

    def __init__(self, grammar: ir.Grammar, vocabulary: Vocabulary, address: int, limits: Limits) -> None:
        self.vocabulary = vocabulary
        self.tables = Tables(address, limits.table_bytes, core().snapshot)
        self._builders: dict[int, Unbuilt] = {}
        self._json: dict[int, tuple[ir.JsonSchema, JsonStates]] = {}  # by id of the grammar, which is kept alive
        self._known: dict[tuple[int, int], tuple[ir.Grammar, Scope, int]] = {}  # the same, with the rules around it
        self._possible: dict[int, tuple[ir.Grammar, bool]] = {}  # the same, where there are no rules around it
        composed = 0 if isinstance(grammar, ir.JsonSchema) else layout.COMPOSED
        self.tables.header[layout.H_FLAGS] = composed | (0 if uses_registers(grammar) else layout.NO_REGISTERS)
        self.start = self._start(grammar)

    def _start(self, grammar: ir.Grammar) -> int:
        if not isinstance(grammar, ir.JsonSchema) and not self.possible(grammar, {}):
            raise UnsatisfiableError("", "the grammar allows no text")
        body = self.state(grammar, Scope({}, {}))
        if isinstance(grammar, ir.JsonSchema) and grammar.whitespace == "flexible":
            # SentencePiece begins a text with a blank
            blank = self.tables.length(layout.H_STATES)
            return self.tables.states([(0, (), (body, END)), (0, [(0x20, blank, 0)], (body, END))]) + 1
        return self.tables.state(calls=[(body, END)])

    def build(self, state: int) -> None:
        """Give an unbuilt state its transitions (the code BUILD)."""
        builder = self._builders.get(state)
        if builder is not None:
            make, args = builder
            make(self, *args, state)
            del self._builders[state]  # only now: a BudgetError leaves it to be tried again
            return
        for _, states in self._json.values():
            if state in states.pending:
                states.define(state)
                return
        # otherwise another thread was first

    def possible(self, grammar: ir.Grammar, alive: Mapping[str, bool]) -> bool:
        """Whether a grammar allows any text; alive: which of the rules around it do."""
        if isinstance(grammar, _ALWAYS):
            return True
        if alive:
            return self._is_possible(grammar, alive)
        if id(grammar) not in self._possible:
            self._possible[id(grammar)] = grammar, self._is_possible(grammar, alive)
        return self._possible[id(grammar)][1]

    def _is_possible(self, grammar: ir.Grammar, alive: Mapping[str, bool]) -> bool:
        if isinstance(grammar, ir.Regex):
            return regex_dfa(grammar.pattern).n_states > 0
        if isinstance(grammar, ir.Accepted):
            return grammar.dfa.n_states > 0
        if isinstance(grammar, ir.JsonSchema):
            return self._json_states(grammar).values.live((grammar.root,))
        if isinstance(grammar, ir.Union):
            return any(self.possible(part, alive) for part in grammar.parts)
        if isinstance(grammar, ir.Switch):
            return grammar.checked or any(self.possible(part, alive) for part in grammar.children)
        if isinstance(grammar, ir.Scan):
            return grammar.ends or any(self.possible(part, alive) for part in grammar.children)
        if isinstance(grammar, ir.Repeat):
            return grammar.least == 0 or self.possible(grammar.part, alive)
        if isinstance(grammar, ir.Rule):
            return alive[grammar.name]
        if isinstance(grammar, ir.Deferred):
            return self.possible(grammar.made, alive)
        if isinstance(grammar, ir.Rules):
            return self._alive_rules(grammar, alive)[grammar.start]
        return all(self.possible(child, alive) for child in grammar.children)

    def _alive_rules(self, grammar: ir.Rules, outer: Mapping[str, bool]) -> dict[str, bool]:
        """Which rules derive a finite text: a least fixed point."""
        alive = {**outer, **dict.fromkeys(grammar.by_name, False)}
        changed = True
        while changed:
            changed = False
            for name, body in grammar.rules:
                if not alive[name] and self.possible(body, alive):
                    alive[name] = changed = True
        return alive

    def state(self, grammar: ir.Grammar, scope: Scope) -> int:
        """The state from which a grammar is read; it returns class 0 at its end. The same for the same grammar."""
        key = (id(grammar), id(scope))
        if key not in self._known:
            self._known[key] = grammar, scope, self._new_state(grammar, scope)
        return self._known[key][2]

    def _new_state(self, grammar: ir.Grammar, scope: Scope) -> int:
        t = self.tables
        if isinstance(grammar, ir.JsonSchema):
            return self._json_states(grammar).root(grammar.root)
        if isinstance(grammar, ir.Regex):
            return dfa_states(t, regex_dfa(grammar.pattern))
        if isinstance(grammar, ir.Accepted):
            return dfa_states(t, grammar.dfa)
        if isinstance(grammar, ir.Literal):
            return self._words([grammar.data])
        if isinstance(grammar, ir.Choice):
            return self._words([option.encode() for option in grammar.options])
        if isinstance(grammar, ir.Text):
            return dfa_states(t, text_dfa(grammar.until))
        if isinstance(grammar, ir.Token):
            return t.state([(256 + self._token_id(grammar.text), -1, 0)])
        if isinstance(grammar, ir.Marker):
            token = self._marker_id(grammar.text)
            return self._words([grammar.text.encode()]) if token is None else t.state([(256 + token, -1, 0)])
        if isinstance(grammar, ir.Switch):
            return self._switch(grammar, scope)
        if isinstance(grammar, ir.Scan):
            return self._scan(grammar, scope)
        if isinstance(grammar, ir.Composed):
            return self.state(grammar.grammar, scope)
        if isinstance(grammar, ir.Deferred):
            return self.state(grammar.made, scope)
        if isinstance(grammar, ir.Sequence):
            return self._sequence([self.state(part, scope) for part in grammar.parts])
        if isinstance(grammar, ir.Union):
            parts = [part for part in grammar.parts if self.possible(part, scope.alive)]
            return t.state(calls=[(self.state(part, scope), DONE) for part in parts])
        if isinstance(grammar, ir.Repeat):
            return self._repeat(grammar, scope)
        if isinstance(grammar, ir.Rules):
            return self._enter_rules(grammar, scope)
        if isinstance(grammar, ir.Rule):
            return scope.states[grammar.name]
        raise GrammarError(f"{type(grammar).__name__} is no known kind of grammar")

    def _sequence(self, parts: list[int]) -> int:
        """A state that reads what each of some states does, one after the other; no parts: nothing."""
        if not parts:
            return DONE
        base = self.tables.length(layout.H_STATES)
        after = [DONE, *range(base, base + len(parts) - 1)]
        self.tables.states([(0, (), call) for call in zip(reversed(parts), after, strict=True)])
        return base + len(parts) - 1

    def wanted(self, state: int, begins: bool, missing: Callable[[int], bool]) -> Iterator[bytes]:
        """See `JsonStates.wanted`."""
        for _, states in self._json.values():
            yield from states.wanted(state, begins, missing)

    def _json_states(self, grammar: ir.JsonSchema) -> JsonStates:
        """The builder of a schema's states; one for each schema, however often it stands in the grammar."""
        if id(grammar) not in self._json:
            self._json[id(grammar)] = grammar, JsonStates(self.tables, grammar)
        return self._json[id(grammar)][1]

    def _words(self, words: list[bytes]) -> int:
        """States for any of some words; the empty word returns at once."""
        if words == [b""]:
            return DONE
        return self.tables.add_words(sorted(set(words)))

    def _token_id(self, text: str) -> int:
        token = self.vocabulary.special.get(text)
        if token is None:
            raise GrammarError(f"the vocabulary has no special token {text!r}")
        return token

    def _marker_id(self, text: str) -> int | None:
        """The special token of a marker; None where the vocabulary has none: then it is text."""
        token = self.vocabulary.special.get(text)
        if token is None:
            return None
        return token if self.vocabulary.token_bytes(token) is None else None

    def _switch(self, grammar: ir.Switch, scope: Scope) -> int:
        """A trie whose words end in the states of their grammars; both are built when they are entered."""
        cases = [case for case in grammar.cases if grammar.checked or self.possible(case[1], scope.alive)]
        if not grammar.checked:  # what can be refused is refused now
            for _, body in cases:
                self.state(body, scope)
        root = self.tables.reserved()
        self._builders[root] = Automaton._build_switch, (cases, scope)
        return root

    def _build_switch(self, cases: list[tuple[bytes, ir.Grammar]], scope: Scope, root: int) -> None:
        children: list[dict[int, int]] = [{}]
        ends = [0]
        for word, body in cases:
            node = 0
            for byte in word:
                below = children[node].get(byte)
                if below is None:
                    below = children[node][byte] = len(children)
                    children.append({})
                    ends.append(0)
                node = below
            ends[node] = self.tables.reserved()
            self._builders[ends[node]] = Automaton._build_rule, (body, scope)
        inner = [node for node, below in enumerate(children) if below]
        first = self.tables.length(layout.H_STATES)
        number = {node: first + i for i, node in enumerate(inner)}
        rows = [
            (
                0,
                [(byte, number.get(below) or ends[below], 0) for byte, below in sorted(children[node].items())],
                (ends[node], DONE) if ends[node] else (),
            )
            for node in inner
        ]
        self.tables.copy_state(self.tables.states(rows), at=root)

    def _scan(self, grammar: ir.Scan, scope: Scope) -> int:
        """Text whose markers return a class each; those that are special tokens stand where the text may pause."""
        t = self.tables
        tokens: list[tuple[int, int, int]] = []
        markers: list[bytes] = []
        following: list[int] = []
        without = list(grammar.without)
        for marker, body in grammar.cases:
            token, possible = self._marker_id(marker), self.possible(body, scope.alive)
            if token is None and possible:
                markers.append(marker.encode())
                following.append(self.state(body, scope))
                continue
            without.append(marker)
            if token is not None and possible:
                tokens.append((256 + token, self.state(body, scope), 0))
        never = tuple(sorted({text.encode() for text in without}.difference(markers)))
        table = scan_table(tuple(markers), never, grammar.not_first)
        pauses = bool(tokens) or grammar.ends
        eps = np.where(table.whole & pauses, 0, -1)
        block = t.block(table.next.shape, t.put(table.classes), t.put_pairs(table.pairs), eps)
        after = t.state(tokens, eps=0 if grammar.ends else -1) if pauses else 0
        return t.state(calls=[(block, -t.put([1 + len(following), after, *following]))])

    def _repeat(self, grammar: ir.Repeat, scope: Scope) -> int:
        t = self.tables
        if not self.possible(grammar.part, scope.alive):
            return DONE
        part = self.state(grammar.part, scope)
        if grammar.most is None:
            after = t.reserved()  # defined at once: it calls itself
            t.state(calls=[(part, after)], eps=0, at=after)
        else:
            after = DONE
            for _ in range(grammar.most - grammar.least):
                after = t.state(calls=[(part, after)], eps=0)
        for _ in range(grammar.least):
            after = t.state(calls=[(part, after)])
        return after

    def _enter_rules(self, grammar: ir.Rules, outer: Scope) -> int:
        refuse_left_recursion(grammar)
        scope = Scope(dict(outer.states), self._alive_rules(grammar, outer.alive))
        for name, body in grammar.rules:
            if scope.alive[name]:
                scope.states[name] = self.tables.reserved()
                self._builders[scope.states[name]] = Automaton._build_rule, (body, scope)
        return scope.states[grammar.start]

    def _build_rule(self, body: ir.Grammar, scope: Scope, state: int) -> None:
        self.tables.state(calls=[(self.state(body, scope), DONE)], at=state)


@lru_cache(maxsize=256)
def regex_dfa(pattern: str) -> Dfa:
    return compile_regex(pattern, dialect="python", spelling="text", search=False)


def text_dfa(until: tuple[str, ...]) -> Dfa:
    """Any UTF-8 text up to the first marker (any text at all if there is none)."""
    from constrain.dfa import complement_within, intersect, universe

    everything = universe("text")
    if not until:
        return everything
    import re

    markers = "|".join(re.escape(marker) for marker in until)
    ends = compile_regex(f"(?s:.*)(?:{markers})", dialect="python", spelling="text", search=False)
    inside = compile_regex(f"(?s:.*)(?:{markers})(?s:.+)", dialect="python", spelling="text", search=False)
    return intersect(ends, complement_within(everything, inside))


def uses_registers(grammar: ir.Grammar) -> bool:
    """Whether items are walked one by one: for JSON's registers, and since that passes over whole subtrees of text."""
    if isinstance(grammar, ir.Deferred):
        return grammar.registers
    return isinstance(grammar, (ir.JsonSchema, ir.Text, ir.Scan)) or any(map(uses_registers, grammar.children))


def nullable(grammar: ir.Grammar, rules: dict[str, ir.Grammar], path: frozenset[str] = frozenset()) -> bool:
    """Whether a grammar allows the empty text."""
    if isinstance(grammar, ir.Literal):
        return not grammar.data
    if isinstance(grammar, ir.Choice):
        return "" in grammar.options
    if isinstance(grammar, ir.Regex):
        return regex_dfa(grammar.pattern).matches(b"")
    if isinstance(grammar, ir.Accepted):
        return grammar.dfa.matches(b"")
    if isinstance(grammar, ir.Repeat):
        return grammar.least == 0 or nullable(grammar.part, rules, path)
    if isinstance(grammar, ir.Sequence):
        return all(nullable(part, rules, path) for part in grammar.parts)
    if isinstance(grammar, ir.Union):
        return any(nullable(part, rules, path) for part in grammar.parts)
    if isinstance(grammar, ir.Scan):
        return grammar.ends
    if isinstance(grammar, ir.Composed):
        return nullable(grammar.grammar, rules, path)
    if isinstance(grammar, ir.Deferred):
        return nullable(grammar.made, rules, path)
    if isinstance(grammar, ir.Rule):
        return grammar.name not in path and nullable(rules[grammar.name], rules, path | {grammar.name})
    return isinstance(grammar, ir.Text) and not grammar.until


def left_corners(grammar: ir.Grammar, rules: dict[str, ir.Grammar]) -> set[str]:
    """The rules that a grammar may enter before reading anything."""
    if isinstance(grammar, ir.Rule):
        return {grammar.name}
    if isinstance(grammar, ir.Sequence):
        found: set[str] = set()
        for part in grammar.parts:
            found |= left_corners(part, rules)
            if not nullable(part, rules):
                break
        return found
    if isinstance(grammar, (ir.Switch, ir.Scan)):
        return set()  # something is read before what follows
    return {name for child in grammar.children for name in left_corners(child, rules)}


def refuse_left_recursion(grammar: ir.Rules) -> None:
    """A rule that begins with itself would be entered without end."""
    rules = grammar.by_name
    corners = {name: left_corners(body, rules) for name, body in rules.items()}
    for name in rules:
        seen: set[str] = set()
        stack = list(corners[name])
        while stack:
            here = stack.pop()
            if here == name:
                raise GrammarError(f"the rule {name!r} is left-recursive; write it with a repetition")
            if here not in seen:
                seen.add(here)
                stack += corners.get(here, ())
