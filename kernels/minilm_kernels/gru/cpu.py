"""gru for the CPU: product and cell of some features in one task, all tasks of a step in one launch."""

from __future__ import annotations

import numpy as np

from ..jit import jit
from ..launch import in_parts
from ..recurrence import BLOCK, COLUMNS, PADDED, Tasks, add_product, flat, move, refusal, rows_of
from ..registry import register
from ..vector_math import logistic, tanh

_ONE = np.float32(1)


def _limits(sums, weight, bias, h, **settings):
    if bias is not None and bias.dtype != np.float32:
        return "it takes a bias in float32"
    return refusal(*sums.shape[:2], weight)


def _limits_backward(g, g_h, weight, *rest, **settings):
    return refusal(*g.shape[:2], weight)


@register("gru", name="cpu", device="cpu", dtypes=("float32",), limits=_limits)
def gru(sums, weight, bias, h, *, alive):
    (T, B, _), C = sums.shape, weight.shape[1]
    tasks = Tasks(B, C, 3)
    hs, hiddens, activated = (np.empty(shape, np.float32) for shape in ((T + 1, B, C), sums.shape, sums.shape))
    hs[0] = h
    lately = tasks.two_of(C)
    lately[: B * C] = hs[0].reshape(-1)
    bias = np.zeros(3 * C, np.float32) if bias is None else flat(bias)
    alive = np.empty(0, bool) if alive is None else flat(alive)
    given = flat(sums), tasks.columns_to_gates(weight), bias, alive, lately, tasks.by_unit(h)
    _forward_all(tasks.parts, tasks.count, T, B, C, *given, flat(hs), flat(hiddens), flat(activated))
    return hs, hiddens, activated


@register("gru_backward", name="cpu", device="cpu", dtypes=("float32",), limits=_limits_backward)
def gru_backward(g, g_h, weight, hs, hiddens, activated, *, alive):
    T, B, C = g.shape
    tasks = Tasks(B, C, 3)
    dsums, dhiddens, dh = (np.empty(shape, np.float32) for shape in (hiddens.shape, hiddens.shape, (B, C)))
    alive = np.empty(0, bool) if alive is None else flat(alive)
    given = flat(g), flat(hs), flat(hiddens), flat(activated), tasks.columns_to_state(weight), alive
    room = tasks.two_of(3 * C), tasks.by_unit(g_h)
    _backward_all(tasks.parts, tasks.count, T, B, C, *given, *room, flat(dsums), flat(dhiddens), flat(dh))
    return dsums, dhiddens, dh


@jit(inline=True)
def _forward(t, B, C, sums, panels, bias, alive, lately, state, hs, hiddens, activated, start, stop):
    scratch, blocks, padded_rows = np.empty(7 * PADDED, np.float32), (B + BLOCK - 1) // BLOCK, lately.size // (2 * C)
    now, then = t % 2 * padded_rows * C, (t + 1) % 2 * padded_rows * C
    for task in range(start, stop):
        unit = task // blocks
        first, rows = rows_of(task % blocks, B)
        feature = unit * COLUMNS
        width, n = min(COLUMNS, C - feature), rows * COLUMNS
        if width < COLUMNS:
            scratch[:] = 0
        for gate in range(3):
            for r in range(rows):
                place = gate * PADDED + r * COLUMNS
                move(scratch, place, bias, gate * C + feature, width)
                move(scratch, 3 * PADDED + place, sums, ((t * B + first + r) * 3 + gate) * C + feature, width)
            panel = (unit * 3 + gate) * C * COLUMNS
            add_product(scratch, gate * PADDED, rows, lately, now + first * C, C, panels, panel, C)
        b_r, b_z = scratch[:n], scratch[PADDED : PADDED + n]
        b_n, r_gate = scratch[2 * PADDED : 2 * PADDED + n], scratch[3 * PADDED : 3 * PADDED + n]
        z, candidate = scratch[4 * PADDED : 4 * PADDED + n], scratch[5 * PADDED : 5 * PADDED + n]
        after, mine = scratch[6 * PADDED : 6 * PADDED + n], (unit * padded_rows + first) * COLUMNS
        before = state[mine : mine + n]
        for k in range(n):
            r_gate[k] = logistic(r_gate[k] + b_r[k])
        for k in range(n):
            z[k] = logistic(z[k] + b_z[k])
        for k in range(n):
            candidate[k] = tanh(candidate[k] + r_gate[k] * b_n[k])
        for k in range(n):
            after[k] = candidate[k] + z[k] * (before[k] - candidate[k])
        for r in range(rows):
            row, place = (first + r) * C + feature, r * COLUMNS
            for gate in range(3):
                target = ((t * B + first + r) * 3 + gate) * C + feature
                move(hiddens, target, scratch, gate * PADDED + place, width)
                move(activated, target, scratch, (3 + gate) * PADDED + place, width)
            if alive.size == 0 or alive[t * B + first + r]:
                move(state, mine + place, scratch, 6 * PADDED + place, COLUMNS)
            move(lately, then + row, state, mine + place, width)
            move(hs, (t + 1) * B * C + row, state, mine + place, width)


@jit(inline=True)
def _backward(
    t, T, B, C, g, hs, hiddens, activated, panels, alive, lately, passing, dsums, dhiddens, dh_out, start, stop
):  # fmt: skip
    """From the gradients at the hiddens of step t, if there was one, to those at the hiddens of the step before."""
    scratch, blocks, padded_rows = np.empty(8 * PADDED, np.float32), (B + BLOCK - 1) // BLOCK, lately.size // (6 * C)
    now, then = t % 2 * padded_rows * 3 * C, (t + 1) % 2 * padded_rows * 3 * C
    for task in range(start, stop):
        unit = task // blocks
        first, rows = rows_of(task % blocks, B)
        feature = unit * COLUMNS
        width, n = min(COLUMNS, C - feature), rows * COLUMNS
        if width < COLUMNS:
            scratch[:] = 0
        mine = (unit * padded_rows + first) * COLUMNS
        arriving, passed = scratch[:n], passing[mine : mine + n]
        arriving[:] = passed
        if t < T:
            for gate in range(3):
                panel = (unit * 3 + gate) * C * COLUMNS
                add_product(scratch, 0, rows, lately, now + first * 3 * C + gate * C, 3 * C, panels, panel, C)
        if t == 0:
            for r in range(rows):
                move(dh_out, (first + r) * C + feature, scratch, r * COLUMNS, width)
            continue
        for r in range(rows):
            row, place = ((t - 1) * B + first + r) * C + feature, r * COLUMNS
            move(scratch, 1 * PADDED + place, g, row, width)
            move(scratch, 2 * PADDED + place, hs, row, width)
            source = ((t - 1) * B + first + r) * 3 * C + feature
            move(scratch, 3 * PADDED + place, hiddens, source + 2 * C, width)
            for gate in range(3):
                move(scratch, (4 + gate) * PADDED + place, activated, source + gate * C, width)
        given, before = scratch[PADDED : PADDED + n], scratch[2 * PADDED : 2 * PADDED + n]
        b_n, r_gate = scratch[3 * PADDED : 3 * PADDED + n], scratch[4 * PADDED : 4 * PADDED + n]
        z, candidate = scratch[5 * PADDED : 5 * PADDED + n], scratch[6 * PADDED : 6 * PADDED + n]
        bent = scratch[7 * PADDED : 7 * PADDED + n]
        for k in range(n):
            arriving[k] += given[k]
        for k in range(n):
            passed[k] = arriving[k] * z[k]
        for k in range(n):
            given[k] = arriving[k] * (_ONE - z[k]) * (_ONE - candidate[k] * candidate[k])
        for k in range(n):
            bent[k] = given[k] * r_gate[k]
        for k in range(n):
            before[k] = arriving[k] * (before[k] - candidate[k]) * z[k] * (_ONE - z[k])
        for k in range(n):
            b_n[k] = given[k] * b_n[k] * r_gate[k] * (_ONE - r_gate[k])
        for r in range(rows):
            place = r * COLUMNS
            if alive.size > 0 and not alive[(t - 1) * B + first + r]:  # the cell was not there
                for k in range(place, place + COLUMNS):
                    passed[k] = arriving[k]
                    b_n[k] = before[k] = given[k] = bent[k] = 0
            target, lasting = then + (first + r) * 3 * C + feature, ((t - 1) * B + first + r) * 3 * C + feature
            move(lately, target, scratch, 3 * PADDED + place, width)
            move(lately, target + C, scratch, 2 * PADDED + place, width)
            move(lately, target + 2 * C, scratch, 7 * PADDED + place, width)
            for gate in range(3):
                move(dhiddens, lasting + gate * C, lately, target + gate * C, width)
            for gate in range(2):
                move(dsums, lasting + gate * C, lately, target + gate * C, width)
            move(dsums, lasting + 2 * C, scratch, 1 * PADDED + place, width)


@jit
def _forward_all(parts, count, T, B, C, sums, panels, bias, alive, lately, state, hs, hiddens, activated):
    for t in range(T):
        in_parts(
            _forward, parts, count, (t, B, C, sums, panels, bias, alive, lately, state, hs, hiddens, activated)
        )  # fmt: skip


@jit
def _backward_all(
    parts, count, T, B, C, g, hs, hiddens, activated, panels, alive, lately, passing, dsums, dhiddens, dh_out
):  # fmt: skip
    for t in range(T, -1, -1):
        in_parts(
            _backward, parts, count,
            (t, T, B, C, g, hs, hiddens, activated, panels, alive, lately, passing, dsums, dhiddens, dh_out)
        )  # fmt: skip
