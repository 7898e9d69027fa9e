"""Functions of one float32 number that LLVM can vectorise: a loop that calls them runs on eight numbers at a time.

`math.exp` in a Numba loop is a call for every element. These are straight lines of multiply-adds and selects without
a table, a branch or a call, so that the loop around them becomes packed arithmetic on any vector unit.

Accuracy, measured against float64 (an ulp is the distance between neighbouring float32 numbers, about 1.2e-7 relative):

    exp          1.3 ulp from -86.9 to the overflow at 88.72; exactly 0 below -86.9 (e^-86.9 is 1.8e-38), inf above
    log          1.3 ulp, of subnormal numbers too; of 0 -inf, of a negative number NaN
    erf          1.9 ulp
    logistic     3.1 ulp above -86.9; 0 below
    tanh         1.4 ulp
    normal_tail  11 ulp to x = 4, 45 to x = 8, 120 to x = 12 (x^2/2 is rounded, and the exponential magnifies that);
                 2e-38, its value at 12.9, above that

NaN gives NaN.
"""

from __future__ import annotations

import numpy as np

from .jit import AS_WRITTEN, jit

__all__ = ["FAR", "erf", "exp", "largest", "log", "logistic", "normal_tail", "order_key", "order_value", "tanh"]

# Without `reassoc`: the two-part subtraction and the rounding by a large summand below must happen as written.
_as_written = jit(inline=True, fastmath=AS_WRITTEN)

_ZERO, _ONE, _INF = np.float32(0), np.float32(1), np.float32(np.inf)

_LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts: the first has so few bits that n times it is exact, the second is what is missing.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_EXP_LOW, _EXP_HIGH = np.float32(-86.9), np.float32(88.722839)
# Adding 1.5 * 2^23 leaves no bits for a fraction: the sum is rounded to an integer, held in its low bits. With 126 more
# those bits are the exponent field of 2^(n-1); the polynomial is twice e^r, so that n = 128 needs no case of its own.
_ROUND = np.float32(1.5 * 2**23 + 126)
# Twice the minimax polynomial 1 + r + r^2 (c2 + ... + c6 r^4) of e^r for |r| <= ln(2)/2: relative error 3.3e-9.
_E2 = np.float32(2 * 0.4999999403953552)
_E3 = np.float32(2 * 0.16666515171527863)
_E4 = np.float32(2 * 0.04166845604777336)
_E5 = np.float32(2 * 0.008369418792426586)
_E6 = np.float32(2 * 0.0013813144760206342)
_TWO = np.float32(2)


@_as_written
def exp(x):
    """e to the power of x, as 2^n e^r with x = n ln 2 + r."""
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    square = r * r  # by pairs, not one by one: the shorter chain of dependent steps is what a loop waits for
    twice = ((_E6 * square + (_E5 * r + _E4)) * square + (_E3 * r + _E2)) * square + (_TWO * r + _TWO)
    value = twice * np.int32(np.float32(shifted).view(np.int32) << np.int32(23)).view(np.float32)
    value = _ZERO if x < _EXP_LOW else value
    return _INF if x > _EXP_HIGH else value


_SMALLEST, _SCALE, _SCALE_BITS = np.float32(2.0**-126), np.float32(2**23), np.float32(23)
_ROOT_HALF, _FRACTION, _NAN = np.int32(0x3F3504F3), np.int32(0x7FFFFF), np.float32(np.nan)
_HALF = np.float32(0.5)
# (log(1 + r) - r + r^2 / 2) / r^3 for sqrt(1/2) - 1 <= r <= sqrt(2) - 1 (Moshier's Cephes, logf).
_L0, _L1, _L2 = np.float32(3.3333331174e-1), np.float32(-2.4999993993e-1), np.float32(2.0000714765e-1)
_L3, _L4, _L5 = np.float32(-1.6668057665e-1), np.float32(1.4249322787e-1), np.float32(-1.2420140846e-1)
_L6, _L7, _L8 = np.float32(1.1676998740e-1), np.float32(-1.1514610310e-1), np.float32(7.0376836292e-2)


@_as_written
def log(x):
    """The natural logarithm, as n ln 2 + log(1 + r) for x = 2^n (1 + r)."""
    scaled = x * _SCALE if x < _SMALLEST else x
    bits = np.int32(np.float32(scaled).view(np.int32) - _ROOT_HALF)
    n = np.float32(np.int32(bits >> np.int32(23))) - (_SCALE_BITS if x < _SMALLEST else _ZERO)
    r = np.int32((bits & _FRACTION) + _ROOT_HALF).view(np.float32) - _ONE
    square = r * r
    high = ((_L8 * r + _L7) * square + (_L6 * r + _L5)) * square + (_L4 * r + _L3)
    rest = (high * square + (_L2 * r + _L1)) * r + _L0
    value = r + (r * square * rest + (n * _LN2_LOW - _HALF * square)) + n * _LN2_HIGH
    value = x if x == _INF else value
    value = -_INF if x == _ZERO else value
    return value if x >= _ZERO else _NAN


@_as_written
def logistic(x):
    """1 / (1 + e^-x)."""
    return _ONE / (_ONE + exp(-x))


# (tanh(x) / x - 1) / x^2 as a polynomial in x^2 for |x| < 0.6: relative error 1e-8.
_TANH = tuple(np.float32(c) for c in (-0.3333333, 0.13332924, -0.05387514, 0.02111621, -0.00627639))
_TANH_SMALL, _FORTY = np.float32(0.6), np.float32(40)


@_as_written
def tanh(x):
    """The hyperbolic tangent: a polynomial near zero, where 1 - 2 / (e^2x + 1) would cancel."""
    magnitude = np.float32(abs(x))
    square = x * x
    near = ((_TANH[4] * square + _TANH[3]) * square + _TANH[2]) * square + _TANH[1]
    near = x + x * square * (near * square + _TANH[0])
    far = _ONE - _TWO / (exp(_TWO * (_FORTY if magnitude > _FORTY else magnitude)) + _ONE)
    far = -far if x < _ZERO else far
    return near if magnitude < _TANH_SMALL else far


_T = np.float32(0.26)
_N1 = np.float32(0.10376125574111938)
_N2 = np.float32(0.10298021882772446)
_N3 = np.float32(0.10328537225723267)
_N4 = np.float32(0.050047095865011215)
_N5 = np.float32(0.16322015225887299)
_N6 = np.float32(-0.1542060822248459)
_N7 = np.float32(0.2543175518512726)
_N8 = np.float32(-0.15418913960456848)
_N9 = np.float32(0.030783550813794136)


# -x^2/2 in powers of two; and the x beyond which the tail would be no normal number: it stays as it is there.
_HALF_LOG2_E = np.float32(-0.7213475204444817)
FAR = np.float32(12.9)
_ROUND_ONLY = np.float32(1.5 * 2**23)
# 2^f at Chebyshev points of [-1/2, 1/2] with p(0) = 1: relative error 1e-8.
_P1, _P2, _P3 = np.float32(6.9314718e-1), np.float32(2.4022651e-1), np.float32(5.550357e-2)
_P4, _P5, _P6 = np.float32(9.618083e-3), np.float32(1.3390863e-3), np.float32(1.5453163e-4)


@_as_written
def normal_tail(x):
    """The normal distribution's tail, 1 - Phi(x) = erfc(x / sqrt 2) / 2 for x >= 0, and e^(-x^2/2), its other factor.

    The tail is e^(-x^2/2) times a function that falls like 1/x: a minimax polynomial in t = 1 / (1 + 0.26 x).
    """
    x = FAR if x > FAR else x
    square = x * x
    shifted = square * _HALF_LOG2_E + _ROUND_ONLY
    f = square * _HALF_LOG2_E - (shifted - _ROUND_ONLY)
    pair = f * f
    power = ((_P6 * pair + (_P5 * f + _P4)) * pair + (_P3 * f + _P2)) * pair + (_P1 * f + _ONE)
    exponent = np.int32(np.float32(shifted).view(np.int32) << np.int32(23))
    density = np.int32(np.float32(power).view(np.int32) + exponent).view(np.float32)
    t = _ONE / (_ONE + _T * x)
    square = t * t
    high = ((_N9 * square + (_N8 * t + _N7)) * square + (_N6 * t + _N5)) * square
    p = (high + (_N4 * t + _N3)) * square + (_N2 * t + _N1)
    return density * t * p, density


_ERF_SMALL, _ROOT_2 = np.float32(1.25), np.float32(2**0.5)
# erf(x) / x - 1 as a polynomial in x^2 for |x| < 1.25.
_F0, _F1, _F2 = np.float32(0.12837917), np.float32(-0.376126319), np.float32(0.112836860)
_F3, _F4, _F5 = np.float32(-0.0268606544), np.float32(0.0052097477), np.float32(-0.000834633014)
_F6, _F7 = np.float32(0.000104249506), np.float32(-0.00000762918944)


@_as_written
def erf(x):
    """The error function: a polynomial near zero, where 1 - erfc(x) would cancel."""
    magnitude = np.float32(abs(x))
    s = x * x
    fourth = s * s
    low = (_F3 * s + _F2) * fourth + (_F1 * s + _F0)
    near = x + x * (((_F7 * s + _F6) * fourth + (_F5 * s + _F4)) * (fourth * fourth) + low)
    far = _ONE - _TWO * normal_tail(_ROOT_2 * magnitude)[0]
    far = -far if x < _ZERO else far
    return near if magnitude < _ERF_SMALL else far


_MAGNITUDE, _LOWEST_KEY = np.int32(0x7FFFFFFF), np.int32(-(2**31))


@_as_written
def order_key(x):
    """An integer that orders float32 numbers as they are, and puts (positive) NaN above all.

    A maximum of floats doesn't vectorise where NaN must be kept; one of integers does.
    """
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ ((bits >> np.int32(31)) & _MAGNITUDE))


@_as_written
def order_value(key):
    """The number whose `order_key` is `key`."""
    return np.int32(key ^ ((key >> np.int32(31)) & _MAGNITUDE)).view(np.float32)


@_as_written
def largest(row):
    """The largest number of a row, or NaN if it has one."""
    key = _LOWEST_KEY
    for i in range(row.size):
        key = max(key, order_key(row[i]))
    return order_value(key)
