"""Examples of what a formula asks for: values, and the members that bring a container to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from constrain.counted import Counted
from constrain.dfa import Dfa, from_classes, universe
from constrain.schema.conjunctions import Alternative
from constrain.schema.document import ARRAY, NULL, NUMBER, OBJECT, STRING
from constrain.schema.expand import KINDS, NO, YES
from constrain.schema.formula import FALSE, TRUE
from constrain.schema.stages import Stage, Way
from constrain.schema.values import lengths
from constrain.schema.verdicts import Verdicts

SIMPLEST = {NULL: b"null", NO: b"false", YES: b"true", STRING: b'""', NUMBER: b"0", ARRAY: b"[]", OBJECT: b"{}"}
CANDIDATES = 200  # keys of a kind that are tried
MAX_QUEUE = 2_000  # stages that wait to be looked at
Path = list[tuple[Any, Way]]


def value(verdicts: Verdicts, formula: int) -> bytes | None:
    """A short JSON text of a value that makes a formula over ("V", node) facts true."""
    for kind in KINDS:
        here = verdicts.of_kind((formula,), kind)[0]
        if here == TRUE:
            return SIMPLEST[kind]
        if here != FALSE:
            found = _of_kind(verdicts, kind, here)
            if found is not None:
                return found
    return None


def _of_kind(verdicts: Verdicts, kind: int, formula: int) -> bytes | None:
    if kind in (STRING, NUMBER):
        nodes = verdicts.owners(formula)
        if nodes is not None and kind == STRING and all(n.pattern is None and n.format is None for n in nodes):
            least, most = lengths(Alternative(STRING, None, nodes))
            return b'"' + b"a" * least + b'"' if most is None or least <= most else None
        if kind == NUMBER:
            return next(words(verdicts.scalars(NUMBER, (formula,))), None)
        strings = verdicts.strings(formula)
        if isinstance(strings, Counted):
            found = islice(words(strings.dfa), CANDIDATES)
            text = next((word for word in found if len(word.decode()) <= strings.most), None)
        else:
            text = next(words(strings), None)
        return None if text is None else b'"' + text + b'"'
    for way in verdicts.formulas.alternatives(formula, CANDIDATES):
        stage = verdicts.array((way,)) if kind == ARRAY else verdicts.object((way,))
        members = path(verdicts, stage, False) if verdicts.completes(stage) else None
        if members is not None:
            texts = [member(verdicts, stage, step, used) for used, step in enumerate(members)]
            whole = b",".join([text for text in texts if text is not None])
            return (b"[" + whole + b"]") if kind == ARRAY else (b"{" + whole + b"}")
    return None


def nearer(verdicts: Verdicts, stage: Stage, begins: bool, missing: Callable[[int], bool]) -> Iterator[bytes]:
    """Texts of a member that brings a container sooner to its end.

    begins: whether a key may begin here; missing: whether the registers lack a required key.
    """
    if stage.family is not None:
        if not begins:
            return
        for index in filter(missing, verdicts.awaited(stage)):
            for way in verdicts.ways(stage, index):
                text = member(verdicts, stage, (index, way))
                if text is not None:
                    yield text
    steps = path(verdicts, stage, holding=True)
    if not steps:
        return
    if stage.family is None:
        yield member(verdicts, stage, steps[0]) or b""
        return
    ending = value(verdicts, steps[0][1].value)
    for key in islice(keys(stage, steps[0][0]), 1 if isinstance(steps[0][0], int) else None):
        yield b'"' + key + b'":' + (ending or b"")


def member(verdicts: Verdicts, stage: Stage, step: tuple[Any, Way], used: int = 0) -> bytes | None:
    """The text of one more item, or of a key and its value."""
    which, way = step
    text = value(verdicts, way.value)
    if text is None or stage.family is None:
        return text
    key = next(islice(keys(stage, which), used, None), None)
    return None if key is None else b'"' + key + b'":' + text


def keys(stage: Stage, which: Any) -> Iterator[bytes]:
    """A declared key, or keys of a kind, the shortest first, as JSON spells them."""
    assert stage.family is not None
    space = stage.family.keys
    if isinstance(which, int):
        while True:  # however many keys there were before it
            yield space.spelled[space.names[which]]
    code = space.kinds.index(which) + 1
    declared = set(space.spelled.values())
    if space.dfa is None:
        found = words(universe("json"))
    else:
        found = words(from_classes(space.dfa.classes, space.dfa.next, (space.dfa.accepting == code).astype(np.int32)))
    yield from islice((word for word in found if word not in declared), CANDIDATES)


def path(verdicts: Verdicts, start: Stage, holding: bool) -> Path | None:
    """The fewest members after which a container may end: (member, the way that it takes); None if none were found."""
    before: dict[Stage, tuple[Stage, Any, Way] | None] = {start: None}
    queue = [start]
    for stage in queue:
        if verdicts.ends(stage, holding):
            return _back(before, stage)
        for which in verdicts.members(stage):
            for way in verdicts.after(stage, which, holding):
                if way.stage not in before and verdicts.possible(way.value) and verdicts.completes(way.stage):
                    before[way.stage] = stage, which, way
                    queue.append(way.stage)
        if len(queue) > MAX_QUEUE:
            return None
    return None


def _back(before: dict[Stage, tuple[Stage, Any, Way] | None], stage: Stage) -> Path:
    found: Path = []
    while (step := before[stage]) is not None:
        stage = step[0]
        found.append(step[1:])
    return found[::-1]


def words(dfa: Dfa) -> Iterator[bytes]:
    """Strings that an automaton accepts, about the shortest first."""
    left = _bytes_left(dfa)
    level: list[tuple[int, bytes]] = [(0, b"")] if dfa.n_states else []
    while level:
        following: dict[tuple[int, bytes], None] = {}
        for state, text in level:
            if dfa.accepting[state]:
                yield text
            for byte in _plain_first(np.flatnonzero(dfa.next[state][dfa.classes] >= 0).tolist()):
                following[int(dfa.next[state, dfa.classes[byte]]), text + bytes([byte])] = None
        level = sorted(following, key=lambda way: left[way[0]])[:CANDIDATES]  # the nearest to an end stay


def _bytes_left(dfa: Dfa) -> list[int]:
    """The fewest bytes from each state to an accepting one."""
    far = dfa.n_states + 1
    left = np.append(np.where(dfa.accepting != 0, 0, far), far)  # the last for no state
    while dfa.n_states:
        nearer = np.minimum(left[:-1], left[dfa.next].min(axis=1) + 1)
        if (nearer == left[:-1]).all():
            break
        left[:-1] = nearer
    return [int(count) for count in left]


def _plain_first(bytes_: list[int]) -> list[int]:
    """Letters and digits before anything else."""
    return sorted(bytes_, key=lambda byte: not chr(byte).isalnum() or byte > 127)
