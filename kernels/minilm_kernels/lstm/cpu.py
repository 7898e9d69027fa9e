"""lstm for the CPU: product and cell of some features in one task, all tasks of a step in one launch."""

from __future__ import annotations

import numpy as np

from ..jit import jit
from ..launch import in_parts
from ..recurrence import BLOCK, COLUMNS, PADDED, Tasks, add_product, flat, move, refusal, rows_of
from ..registry import register
from ..vector_math import logistic, tanh

_ONE = np.float32(1)


def _limits(sums, weight, *states, **settings):
    return refusal(*sums.shape[:2], weight)


def _limits_backward(g, g_h, g_c, weight, *rest, **settings):
    return refusal(*g.shape[:2], weight)


@register("lstm", name="cpu", device="cpu", dtypes=("float32",), limits=_limits)
def lstm(sums, weight, h, c, *, alive):
    (T, B, _), C = sums.shape, weight.shape[1]
    tasks = Tasks(B, C, 4)
    hs, cs, activated = (np.empty(shape, np.float32) for shape in ((T + 1, B, C), (T + 1, B, C), sums.shape))
    hs[0], cs[0] = h, c
    lately = tasks.two_of(C)
    lately[: B * C] = hs[0].reshape(-1)
    alive = np.empty(0, bool) if alive is None else flat(alive)
    given = flat(sums), tasks.columns_to_gates(weight), alive, lately, tasks.by_unit(c)
    _forward_all(tasks.parts, tasks.count, T, B, C, *given, flat(hs), flat(cs), flat(activated))
    return hs, cs, activated


@register("lstm_backward", name="cpu", device="cpu", dtypes=("float32",), limits=_limits_backward)
def lstm_backward(g, g_h, g_c, weight, cs, activated, *, alive):
    (T, B, C) = g.shape
    tasks = Tasks(B, C, 4)
    dgates, dh, dc = np.empty(activated.shape, np.float32), np.empty((B, C), np.float32), np.empty((B, C), np.float32)
    alive = np.empty(0, bool) if alive is None else flat(alive)
    given = flat(g), flat(cs), flat(activated), tasks.columns_to_state(weight), alive
    room = tasks.two_of(4 * C), tasks.by_unit(g_h), tasks.by_unit(g_c)
    _backward_all(tasks.parts, tasks.count, T, B, C, *given, *room, flat(dgates), flat(dh), flat(dc))
    return dgates, dh, dc


@jit(inline=True)
def _forward(t, B, C, sums, panels, alive, lately, c, hs, cs, activated, start, stop):
    scratch, blocks, padded_rows = np.empty(6 * PADDED, np.float32), (B + BLOCK - 1) // BLOCK, lately.size // (2 * C)
    now, then = t % 2 * padded_rows * C, (t + 1) % 2 * padded_rows * C
    for task in range(start, stop):
        unit = task // blocks
        first, rows = rows_of(task % blocks, B)
        feature = unit * COLUMNS
        width, n = min(COLUMNS, C - feature), rows * COLUMNS
        if width < COLUMNS:
            scratch[:] = 0
        for gate in range(4):
            for r in range(rows):
                source = ((t * B + first + r) * 4 + gate) * C + feature
                move(scratch, gate * PADDED + r * COLUMNS, sums, source, width)
            panel = (unit * 4 + gate) * C * COLUMNS
            add_product(scratch, gate * PADDED, rows, lately, now + first * C, C, panels, panel, C)
        i, f = scratch[:n], scratch[PADDED : PADDED + n]
        g, o = scratch[2 * PADDED : 2 * PADDED + n], scratch[3 * PADDED : 3 * PADDED + n]
        after, hidden = scratch[4 * PADDED : 4 * PADDED + n], scratch[5 * PADDED : 5 * PADDED + n]
        mine = (unit * padded_rows + first) * COLUMNS
        before = c[mine : mine + n]
        for k in range(n):
            i[k] = logistic(i[k])
        for k in range(n):
            f[k] = logistic(f[k])
        for k in range(n):
            g[k] = tanh(g[k])
        for k in range(n):
            o[k] = logistic(o[k])
        for k in range(n):
            after[k] = f[k] * before[k] + i[k] * g[k]
        for k in range(n):
            hidden[k] = o[k] * tanh(after[k])
        for r in range(rows):
            for gate in range(4):
                target = ((t * B + first + r) * 4 + gate) * C + feature
                move(activated, target, scratch, gate * PADDED + r * COLUMNS, width)
            row, place = (first + r) * C + feature, r * COLUMNS
            if alive.size == 0 or alive[t * B + first + r]:
                move(c, mine + place, scratch, 4 * PADDED + place, COLUMNS)
                move(lately, then + row, scratch, 5 * PADDED + place, width)
            else:
                move(lately, then + row, lately, now + row, width)
            move(cs, (t + 1) * B * C + row, c, mine + place, width)
            move(hs, (t + 1) * B * C + row, lately, then + row, width)


@jit(inline=True)
def _backward(t, T, B, C, g, cs, activated, panels, alive, lately, passing, dc, dgates, dh_out, dc_out, start, stop):
    """From the gradients at the gates of step t, if there was one, to those at the gates of the step before."""
    scratch, blocks, padded_rows = np.empty(9 * PADDED, np.float32), (B + BLOCK - 1) // BLOCK, lately.size // (8 * C)
    now, then = t % 2 * padded_rows * 4 * C, (t + 1) % 2 * padded_rows * 4 * C
    for task in range(start, stop):
        unit = task // blocks
        first, rows = rows_of(task % blocks, B)
        feature = unit * COLUMNS
        width, n = min(COLUMNS, C - feature), rows * COLUMNS
        if width < COLUMNS:
            scratch[:] = 0
        mine = (unit * padded_rows + first) * COLUMNS
        arriving, passed, later = scratch[:n], passing[mine : mine + n], dc[mine : mine + n]
        arriving[:] = passed
        if t < T:
            for gate in range(4):
                panel = (unit * 4 + gate) * C * COLUMNS
                add_product(scratch, 0, rows, lately, now + first * 4 * C + gate * C, 4 * C, panels, panel, C)
        if t == 0:
            for r in range(rows):
                row, place = (first + r) * C + feature, r * COLUMNS
                move(dh_out, row, scratch, place, width)
                move(dc_out, row, dc, mine + place, width)
            continue
        for r in range(rows):
            row, place = ((t - 1) * B + first + r) * C + feature, r * COLUMNS
            move(scratch, 1 * PADDED + place, g, row, width)
            move(scratch, 2 * PADDED + place, cs, row, width)
            move(scratch, 3 * PADDED + place, cs, row + B * C, width)
            for gate in range(4):
                source = (((t - 1) * B + first + r) * 4 + gate) * C + feature
                move(scratch, (5 + gate) * PADDED + place, activated, source, width)
        given, before = scratch[PADDED : PADDED + n], scratch[2 * PADDED : 2 * PADDED + n]
        bent, through = scratch[3 * PADDED : 3 * PADDED + n], scratch[4 * PADDED : 4 * PADDED + n]
        i, f = scratch[5 * PADDED : 5 * PADDED + n], scratch[6 * PADDED : 6 * PADDED + n]
        gg, o = scratch[7 * PADDED : 7 * PADDED + n], scratch[8 * PADDED : 8 * PADDED + n]
        for k in range(n):
            arriving[k] += given[k]
        for k in range(n):
            passed[k] = 0
        if alive.size > 0:
            for r in range(rows):
                if not alive[(t - 1) * B + first + r]:
                    for k in range(r * COLUMNS, (r + 1) * COLUMNS):
                        passed[k], arriving[k] = arriving[k], 0
        for k in range(n):
            bent[k] = tanh(bent[k])
        for k in range(n):
            through[k] = later[k] + arriving[k] * o[k] * (_ONE - bent[k] * bent[k])
        for k in range(n):
            o[k] = arriving[k] * bent[k] * o[k] * (_ONE - o[k])
        for k in range(n):
            before[k] = through[k] * before[k] * f[k] * (_ONE - f[k])
        for k in range(n):
            arriving[k] = through[k] * f[k]
        for k in range(n):
            bent[k] = through[k] * i[k] * (_ONE - gg[k] * gg[k])
        for k in range(n):
            i[k] = through[k] * gg[k] * i[k] * (_ONE - i[k])
        for r in range(rows):
            place, dead = r * COLUMNS, alive.size > 0 and not alive[(t - 1) * B + first + r]
            if dead:  # the cell was not there
                for k in range(place, place + COLUMNS):
                    i[k] = before[k] = bent[k] = o[k] = 0
            else:
                move(dc, mine + place, scratch, place, COLUMNS)
            target, lasting = then + (first + r) * 4 * C + feature, ((t - 1) * B + first + r) * 4 * C + feature
            move(lately, target, scratch, 5 * PADDED + place, width)
            move(lately, target + C, scratch, 2 * PADDED + place, width)
            move(lately, target + 2 * C, scratch, 3 * PADDED + place, width)
            move(lately, target + 3 * C, scratch, 8 * PADDED + place, width)
            for gate in range(4):
                move(dgates, lasting + gate * C, lately, target + gate * C, width)


@jit
def _forward_all(parts, count, T, B, C, sums, panels, alive, lately, c, hs, cs, activated):
    for t in range(T):
        in_parts(_forward, parts, count, (t, B, C, sums, panels, alive, lately, c, hs, cs, activated))


@jit
def _backward_all(
    parts, count, T, B, C, g, cs, activated, panels, alive, lately, passing, dc, dgates, dh_out, dc_out
):  # fmt: skip
    for t in range(T, -1, -1):
        in_parts(
            _backward, parts, count,
            (t, T, B, C, g, cs, activated, panels, alive, lately, passing, dc, dgates, dh_out, dc_out)
        )  # fmt: skip
