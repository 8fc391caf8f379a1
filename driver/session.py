"""A session: a model that is run as with onnxruntime, its caches kept in the machine from run to run.

``flexc.Session(model)`` has the methods of ``onnxruntime.InferenceSession`` that a loop needs, so that a generation
loop written for one works with the other. Programs are compiled on demand, one for each shape of the inputs.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flexc.api import Program, compile_model, options_of
from flexc.argument_types import typed
from flexc.compiler import Model, Options, compile_graph, machine_of
from flexc.emulation import Arrays
from flexc.expert_words import routing_of
from flexc.generation import Roles, greedy, tokens_of
from flexc.inputs import check_tokens
from flexc.isa.errors import FlexcError, UsageError, did_you_mean
from flexc.isa.machine import Machine
from flexc.prune_options import PruneOptions
from flexc.residence import Residence, first
from flexc.signature import NodeArg, read_signature
from flexc.step_costs import Step

PROGRAMS = 16
"""Programs kept, one a shape; the one not used for the longest goes first."""

CAPACITY = 256
"""Positions of growing caches unless said otherwise; room for more is made when they are needed."""


class Session:
    """A model on the emulated machine, run as ``onnxruntime.InferenceSession`` runs it.

    Caches that grow (``past_key_values.*``, joined with what a step adds and handed back as ``present.*``) stay in the
    machine's DRAM. What :meth:`run` returns for them are read-only views of that memory; handed back as the past of the
    next run they are recognised, and nothing is copied. Caches and states may also be left out of a feed: the run then
    goes on from the last one.

    Args:
        model: path of an ONNX file, or a model in memory.
        target: a preset, a machine file, or a machine.
        cache: positions that growing caches have room for, 256 or as many as the model can take; doubled, and all
            compiled again, when that is not enough.
        options: further arguments of :func:`flexc.compile` (``prune``, ``nm``, ``calib``, ``states``, ...).

    Attributes:
        steps: what every run has cost.

    Raises:
        FlexcError: a model that cannot be read.
    """

    @typed("flexc.Session", compile_model, PruneOptions)
    def __init__(
        self, model: Model, target: str | Path | Machine = "edge", *, cache: int | None = None, **options: Any
    ) -> None:
        if cache is not None and cache < 2:
            raise UsageError(f"cache={cache}: at least two positions are needed")
        self._model, self._options = model, options_of(**{"keep_reference": False, **options, "target": target})
        self._signature = read_signature(model)
        self._capacity, self._chosen = cache or CAPACITY, cache is not None
        self._programs: OrderedDict[object, Program] = OrderedDict()
        self._residence = Residence()
        self.steps: list[Step] = []

    @classmethod
    def of(cls, model: Model, options: Options) -> Session:
        """Return a session that compiles with these options; their ``cache`` is the capacity."""
        session = cls(model, options.target, cache=options.cache)
        session._options = options
        return session

    def get_inputs(self) -> list[NodeArg]:
        """Return name, shape and type of every input, as the model declares them."""
        return list(self._signature.inputs)

    def get_outputs(self) -> list[NodeArg]:
        """Return name, shape and type of every output, as the model declares them."""
        return list(self._signature.outputs)

    def get_providers(self) -> list[str]:
        """Return where the model runs."""
        return ["FlexCiMExecutionProvider"]

    @property
    def target(self) -> str:
        """Name of the machine."""
        return machine_of(self._options.target).name

    @property
    def capacity(self) -> int | None:
        """Positions that growing caches have room for at present; None for a model that has none."""
        return self._capacity if self._signature.caches else None

    @typed("Session.run")
    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, npt.ArrayLike], run_options: object = None
    ) -> list[npt.NDArray[Any]]:
        """Run the model once, and return the outputs asked for (None: all), in that order.

        Args:
            output_names: names of outputs.
            input_feed: an array for every input; caches and states may be left out, to go on from the last run.
            run_options: not used; there so that calls made for onnxruntime work.

        Raises:
            FlexcError: a name that is not there, an input that is missing or does not fit, or a model that cannot be
                compiled for these shapes.
        """
        del run_options
        names = [each.name for each in self._signature.outputs]
        for name in output_names or ():
            if name not in names:
                raise FlexcError(f"the model has no output '{name}'", remedy=did_you_mean(name, names))
        feeds = self._signature.checked(input_feed)
        outputs = self._grow(feeds) if self._signature.caches else self._plain(feeds)
        return [outputs[name] for name in output_names or names]

    @typed("Session.generate")
    def generate(
        self,
        tokens: npt.ArrayLike,
        max_new_tokens: int,
        *,
        pick: Callable[[npt.NDArray[Any]], int] = greedy,
        stop: Sequence[int] = (),
    ) -> Iterator[int]:
        """Yield new tokens one by one, each as soon as it is known; caches stay in the machine throughout.

        Args:
            tokens: the prompt.
            max_new_tokens: tokens made at most.
            pick: chooses a token from the logits of the last position, float [vocabulary].
            stop: tokens after which no more are made.

        Raises:
            UsageError: the model keeps nothing from run to run, or has inputs that only its author can fill.
            FlexcError: as for :meth:`run`.
        """
        roles = Roles(self._signature)
        prompt, made, past = tokens_of(tokens), 0, 0
        token = -1
        for piece in roles.pieces(prompt):
            logits = self._step(roles, piece, past, "prefill")
            past += len(piece)
        while made < max_new_tokens:
            token, made = pick(logits), made + 1
            yield token
            if token in stop or made == max_new_tokens:
                return
            logits = self._step(roles, np.array([token]), past, "decode")
            past += 1

    def _step(self, roles: Roles, tokens: npt.NDArray[np.int64], past: int, kind: str) -> npt.NDArray[Any]:
        """Run some tokens on so many before them; return the logits of the last one."""
        feeds = roles.feeds(tokens, past)
        if not past:
            feeds |= roles.empty()
        (logits,) = self.run([roles.logits], feeds)
        self.steps[-1] = self.steps[-1].as_kind(kind, past)
        return roles.last(logits)

    def _plain(self, feeds: Arrays) -> Arrays:
        """Run a model whose inputs keep their size; states among them stay in the machine where they agree with it."""
        program = self._program(feeds)
        states = {state.input for state in program.image.states}
        check_tokens(program.image, feeds)
        for name in (each.name for each in program.image.inputs):
            if name not in feeds and name not in states:
                remedy = (
                    f"only states may be left out: {', '.join(states) or 'there are none'}; --state IN=OUT adds one"
                )
                raise FlexcError(f"input '{name}' is missing", remedy=remedy)
        given = {name: array for name, array in feeds.items() if name in states}
        rest = {name: array for name, array in feeds.items() if name not in states}
        outputs = self._residence.run(program, rest, given)
        self._note(program, self._signature.step(feeds), 0, outputs)
        return outputs

    def _grow(self, feeds: Arrays) -> Arrays:
        """Run a step of a model with growing caches."""
        signature, step = self._signature, self._signature.step(feeds)
        past = signature.past(feeds)
        past = self._residence.valid if past is None else past
        self._make_room(past, step, feeds)
        program = self._fitting(feeds, past + step)
        check_tokens(program.image, feeds)
        layout = json.loads(program.image.meta["cache"])
        given = {name: array for name, array in feeds.items() if name in signature.caches}
        rest = {name: array for name, array in feeds.items() if name not in signature.caches}
        rest |= signature.padded(feeds, past + step, self._capacity)
        rest[layout["length"]] = np.array([past], np.int64)
        outputs = self._residence.grow(program, rest, given, signature.axes, past, past + step)
        self._note(program, step, past, outputs)
        for name, axis in layout["outputs"].items():
            outputs[name] = first(outputs[name], axis, past + step)
        return outputs

    def _fitting(self, feeds: Arrays, needed: int) -> Program:
        """Return a program with growing caches; where nobody chose their capacity, of one that the model can take."""
        try:
            return self._program(feeds, cache=self._capacity)
        except FlexcError:
            if self._chosen or self._programs or self._capacity // 2 <= needed:
                raise
        self._capacity //= 2
        return self._fitting(feeds, needed)

    def _make_room(self, past: int, step: int, feeds: Arrays) -> None:
        """Double the capacity until it holds a step and what is before it; programs and memory are made anew."""
        if past + step <= self._capacity and step < self._capacity:
            return
        for name, held in self._residence.held.items():
            feeds.setdefault(name, held)
        while past + step > self._capacity or step >= self._capacity:
            self._capacity *= 2
        self._programs.clear()
        self._residence = Residence()

    def _program(self, feeds: Arrays, cache: int | None = None) -> Program:
        """Return the program for the shapes of a feed, compiled when first asked for."""
        dims, shapes = self._signature.dims(feeds)
        key = (tuple(sorted(dims.items())), tuple(sorted(shapes.items())), cache)
        if key not in self._programs:
            given = self._options
            every: dict[str, Sequence[int]] = {**(given.shapes or {}), **shapes}
            options = replace(given, cache=cache, dims={**(given.dims or {}), **dims}, shapes=every)
            self._programs[key] = Program(compile_graph(self._model, options).program)
            while len(self._programs) > PROGRAMS:
                self._residence.forget(self._programs.popitem(last=False)[1])
        self._programs.move_to_end(key)
        return self._programs[key]

    def _note(self, program: Program, tokens: int, past: int, outputs: Arrays) -> None:
        cost, counted = program.cost, outputs.get(routing_of(program.image).get("output", ""))
        kind = "decode" if past and tokens == 1 else "prefill"
        dropped = 0 if counted is None else int(counted.sum())
        self.steps.append(Step(kind, tokens, past, cost.cycles, cost.time_s, cost.energy.total_pj, dropped))
