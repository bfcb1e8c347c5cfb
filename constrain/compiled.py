"""A grammar compiled for a vocabulary: shared by threads and requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from constrain.automaton import Automaton, Limits
from constrain.errors import BudgetError, GrammarError
from constrain.grammar import Composed, Grammar, check
from constrain.slices import engine_vocabulary
from constrain.tables import Memory, MemoryDeniedError, scratch
from constrain.vocabulary import Vocabulary
from constrain_kernels import engine, layout

if TYPE_CHECKING:
    from constrain.matcher import Matcher


_LIMITS = Limits()


NOTHING, DONE, FORGOT = range(3)


class CompiledGrammar:
    """A grammar and a vocabulary, with everything learnt about them so far.

    Its tables fill as texts are read; over their bound a new **epoch** begins: configurations and mask rows are dropped
    and learnt anew, matchers carry their state over.
    """

    def __init__(self, grammar: Grammar, vocabulary: Vocabulary, limits: Limits) -> None:
        self.grammar = grammar
        self.vocabulary = vocabulary
        self.limits = limits
        self._engine_vocabulary = engine_vocabulary(vocabulary)
        self._automaton = Automaton(grammar, vocabulary, self._engine_vocabulary.address, limits)
        self._tables = self._automaton.tables
        self._header = self._tables.address
        self.lock = self._tables.lock
        self.refusal: BudgetError | None = None  # why memory was last denied

    def matcher(self) -> Matcher:
        """A new request's state, at the beginning.

        >>> compiled.matcher().is_accepting  # doctest: +SKIP
        False
        """
        from constrain.matcher import Matcher

        return Matcher(self)

    def parse(self, token_ids: Iterable[int]) -> Any:
        """What the grammar makes of generated tokens, special ones included: of `constrain.tools`, its `Answer`.

        >>> compiled.parse(output[0, prompt_length:].tolist()).tool_calls  # doctest: +SKIP

        Without a stop token at the end the text counts as cut off. GrammarError for a grammar that only constrains.
        """
        if not isinstance(self.grammar, Composed):
            raise GrammarError(f"{type(self.grammar).__name__} only constrains; constrain.tools(...) also parses")
        ids = [int(token) for token in token_ids]
        stops = self.vocabulary.stop_ids
        finished = bool(ids) and ids[-1] in stops
        while ids and ids[-1] in stops:  # and the padding behind
            ids.pop()
        return self.grammar.parse(self.vocabulary.decode(ids), finished=finished)

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        return self._tables.nbytes

    @property
    def epoch(self) -> int:
        """How often everything learnt was dropped."""
        return self._tables.epoch

    @property
    def memory(self) -> Memory:
        """The stack nodes and configurations of this epoch."""
        return self._tables.memory

    # --- what matchers ask for, under the lock ---------------------------------------------------------------------

    def start_config(self) -> int:
        return self.enter([(self._automaton.start, 0)])

    def enter(self, items: list[tuple[int, int]]) -> int:
        """The configuration of some items (state, stack node), in order."""
        config = 0
        for state, node in items:
            self._tables.make_room()
            config = int(engine.join(self._header, config, int(engine.single(self._header, state, node))))
        return config

    def enter_node(self, returns: int, parent: int, following: int) -> int:
        """The stack node of an edge and the edges that follow it."""
        while True:
            self._tables.make_room()
            node = int(engine.merge(self._header, following, int(engine.push(self._header, returns, parent))))
            if engine.roomy(self._header):  # else the merge may have been cut short
                return node

    def handle(self, code: int) -> int:
        """Do what a kernel asked for, build a state or make room: DONE, FORGOT (everything learnt, to make room), or
        NOTHING, if the tables have room already."""
        try:
            if code == layout.BUILD:
                self._automaton.build(self._tables.wanted_state)
                return DONE
            if code == layout.LINK:
                scratch.link()
                return DONE
            if code == layout.GROW:
                return DONE if self._tables.grow() else NOTHING
        except MemoryDeniedError as error:
            self.refusal = error
            if self._tables.fresh:
                raise  # there is nothing to forget
            self._tables.forget()
            return FORGOT
        raise BudgetError("the grammar is too ambiguous: too many ways to read the text at once")

    # --- what completions need to know -----------------------------------------------------------------------------

    @property
    def built(self) -> int:
        """A number that changes whenever a state is built."""
        return self._tables.length(layout.H_TRANS) + self._tables.length(layout.H_POOL)

    @property
    def nodes(self) -> int:
        """How many stack nodes there are."""
        return self._tables.length(layout.H_NODES)

    @property
    def plain_tokens(self) -> npt.NDArray[np.uint32]:
        """uint32 [words]: the tokens of whole characters other than quote, backslash and control characters."""
        plain: npt.NDArray[np.uint32] = self._engine_vocabulary.plain
        return plain

    @property
    def pool_address(self) -> int:
        return int(self._tables.header[layout.H_POOL])

    @property
    def header_address(self) -> int:
        """The address of the tables' header, as the kernels take it."""
        return self._header

    def program(self, table: int) -> npt.NDArray[Any]:
        """The states, transitions, pool or events, whose rows never change once they are built."""
        return self._tables.arrays[table]

    @property
    def event_kinds(self) -> npt.NDArray[Any]:
        """The kinds of all events so far, which grow as states are built."""
        size = self._tables.length(layout.H_EVENTS) * layout.E_WIDTH
        return self._tables.arrays[layout.H_EVENTS][: size : layout.E_WIDTH]

    def may_begin_key(self, state: int) -> bool:
        """Whether a state may read the quote that opens a key."""
        _, at, count = engine.find(self._header, state, 0x22)
        trans = self._tables.arrays[layout.H_TRANS]
        return bool(count) and int(trans[at]) >= layout.CALL

    def required_keys(self, cls: int) -> list[tuple[int, bytes]]:
        """The required keys of an object's class: (index, spelled), in schema order."""
        return self._tables.required_keys(cls)

    def declared_keys(self, cls: int) -> list[tuple[int, bytes, bool]]:
        """The declared keys of an object's class: (index, spelled, whether it is required), in schema order."""
        return self._tables.declared_keys(cls)

    def wanted(self, state: int, begins: bool, missing: Callable[[int], bool]) -> Iterator[bytes]:
        """Members, as texts, by which a container whose verdicts are open comes sooner to its end."""
        return self._automaton.wanted(state, begins, missing)

    def __reduce__(self) -> Any:
        return compile, (self.grammar, self.vocabulary, self.limits)

    def __repr__(self) -> str:
        return f"<CompiledGrammar: {type(self.grammar).__name__}, {self.nbytes >> 10} KiB of tables>"


def compile(grammar: Grammar, vocabulary: Vocabulary, limits: Limits | None = None) -> CompiledGrammar:
    """Make a grammar usable with a vocabulary.

    >>> compiled = constrain.compile(constrain.json_object(), vocabulary)  # doctest: +SKIP

    Raises BudgetError for what is too large, UnsatisfiableError for what allows no text.
    """
    check(grammar)
    return CompiledGrammar(grammar, vocabulary, limits or _LIMITS)
