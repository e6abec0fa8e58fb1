"""Which latents can be among the largest, found in bfloat16: loops compiled by numba for the CPU.

A pre-activation computed from operands rounded to bfloat16 is off by at most what Cauchy and Schwarz
allow: ||x - x'|| ||w|| + ||x'|| ||w - w'||, plus the rounding of the sum. So the k-th largest true
value of a token is at least the k-th largest rounded one less that margin, and a latent whose rounded
value lies two margins below cannot be chosen. What is left is computed exactly. Knows arrays only.

Rounded values are looked at as int16: positive bfloat16 numbers order like their bits.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from training.kernels.loops import compiled

LANES = 32
"""Latents that a vector unit compares at once."""


@intrinsic
def float_bits(context, value):  # noqa: ARG001
    """The bits of a float32 as uint32."""

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


@intrinsic
def bits_float(context, value):  # noqa: ARG001
    """The float32 of some bits."""

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@compiled
def round_rows(lo, hi, rows, out, norms, errors):
    """out (uint16) = rows in bfloat16; norms[i] = ||out[i]||, errors[i] = ||rows[i] - out[i]||."""
    for i in range(lo, hi):
        norm = 0.0
        error = 0.0
        for c in range(rows.shape[1]):
            bits = float_bits(np.float32(rows[i, c]))
            bits = (
                bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            ) & np.uint32(0xFFFF0000)
            out[i, c] = np.uint16(bits >> np.uint32(16))
            rounded = bits_float(bits)
            off = rows[i, c] - rounded
            norm += rounded * rounded
            error += off * off
        norms[i] = np.sqrt(norm)
        errors[i] = np.sqrt(error)


@compiled
def _float(bits):
    """The float32 of an int16 that holds a non-negative bfloat16."""
    return bits_float(np.uint32(bits) << np.uint32(16))


@compiled
def _below(value):
    """A bfloat16 not above a value, as an int16 that orders like the numbers, also negative ones."""
    bits = np.int64(float_bits(np.float32(abs(value))) >> np.uint32(16))
    if value > 0:
        return np.int16(bits)
    return np.int16(-min(bits + 2, 32767))


@compiled
def _kth(values, n, k):
    """The k-th largest of the first n int16 `values`, or 0 if fewer than k are positive."""
    low, high = 0, 32767
    while low < high:
        middle = (low + high + 1) >> 1
        bar = np.int16(middle)
        count = 0
        for i in range(n):
            count += values[i] >= bar
        if count >= k:
            low = middle
        else:
            high = middle - 1
    return np.int16(low)


@compiled
def _maxima(h, t, groups):
    """groups[g] = the largest of h[t, g], h[t, g + width], h[t, g + 2 width], ..."""
    width, d_sae = groups.size, h.shape[1]
    for g in range(width):
        groups[g] = h[t, g]
    start = width
    while start + width <= d_sae:
        for g in range(width):
            groups[g] = max(groups[g], h[t, start + g])
        start += width
    for j in range(start, d_sae):
        groups[j - start] = max(groups[j - start], h[t, j])


@compiled
def _at_least(h, t, bar, groups, out):
    """Latents of token t at `bar` or above, into `out`; how many."""
    n = 0
    if bar <= 0:
        for j in range(h.shape[1]):
            bits = h[t, j]
            if bits >= 0 or -(bits & 32767) - 1 >= bar:
                out[n] = j
                n += 1
        return n
    for g in range(groups.size):
        if groups[g] >= bar:
            for j in range(g, h.shape[1], groups.size):
                if h[t, j] >= bar:
                    out[n] = j
                    n += 1
    return n


@compiled
def _exact(t, x, rows, bias, candidates, start, stop, out):
    """out[i] = x[t] · rows[j] + bias[j] with j = candidates[i], for i from start to stop."""
    for i in range(start, stop):
        j = candidates[i]
        total = bias[j]
        for c in range(x.shape[1]):
            total += x[t, c] * rows[j, c]
        out[i] = total


@compiled
def _kth_exact(values, n, k, left):
    """The k-th largest of the first n values, by taking the extremes away one by one."""
    for i in range(n):
        left[i] = values[i]
    sign = 1 if k <= n - k else -1
    last = values[0]
    for _ in range(k if sign > 0 else n - k + 1):
        place = 0
        for i in range(1, n):
            if sign * left[i] > sign * left[place]:
                place = i
        last = left[place]
        left[place] = -sign * np.inf
    return last


@compiled
def _keep(exact, candidates, n, k, left, values, latents):
    """Copy the k largest positive of n; how many there were. Of equal ones, those found first."""
    least = 0.0
    ties = 0
    if n > k:
        least = max(_kth_exact(exact, n, k, left), least)
        ties = k
        for i in range(n):
            ties -= exact[i] > least
    kept = 0
    for i in range(n):
        if exact[i] > least or (exact[i] == least and least > 0 and ties > 0):
            ties -= exact[i] == least
            values[kept] = exact[i]
            latents[kept] = candidates[i]
            kept += 1
    return kept


@compiled
def largest_of_tokens(lo, hi, h, k, margins, relative, x, rows, bias, n_groups, values, latents):
    """The k largest of each token: see `choosing.largest_of_tokens`."""
    d_sae = h.shape[1]
    groups = np.empty(n_groups, np.int16)
    candidates, nearly = np.empty(d_sae, np.int64), np.empty(d_sae, np.int64)
    rounded = np.empty(d_sae, np.int16)
    exact, left = np.empty(d_sae, values.dtype), np.empty(d_sae, values.dtype)
    for t in range(lo, hi):
        _maxima(h, t, groups)
        # k groups reach this bar, so k latents do
        n = _at_least(h, t, _kth(groups, n_groups, k), groups, candidates)
        for i in range(n):
            rounded[i] = h[t, candidates[i]]
        best = max(_kth(rounded, n, k), np.int16(1))
        n = _at_least(h, t, best, groups, candidates)
        _exact(t, x, rows, bias, candidates, 0, n, exact)
        if margins[t] > 0:
            # the k-th largest of all is at least that of these
            least = _kth_exact(exact, n, k, left) if n >= k else 0.0
            reach = max(least, 0.0) - margins[t]
            reach = reach / (1 + relative) if reach > 0 else reach / (1 - relative)
            m = _at_least(h, t, _below(reach), groups, nearly)
            first = n
            for i in range(m):
                if h[t, nearly[i]] < best:
                    candidates[n] = nearly[i]
                    n += 1
            _exact(t, x, rows, bias, candidates, first, n, exact)
        kept = _keep(exact, candidates, n, k, left, values[t], latents[t])
        for i in range(kept, k):
            values[t, i] = 0
            latents[t, i] = 0


@compiled
def count_above(lo, hi, h, bars, n_groups, counts):
    """counts[t] = how many of h[t] are at bars[t] or above."""
    groups = np.empty(n_groups, np.int16)
    candidates = np.empty(h.shape[1], np.int64)
    for t in range(lo, hi):
        _maxima(h, t, groups)
        counts[t] = _at_least(h, t, _below(bars[t]), groups, candidates)


@compiled
def values_above(lo, hi, h, bars, n_groups, starts, x, rows, bias, values, latents):
    """The latents that `count_above` counted, and their exact pre-activations."""
    groups = np.empty(n_groups, np.int16)
    candidates = np.empty(h.shape[1], np.int64)
    for t in range(lo, hi):
        _maxima(h, t, groups)
        n = _at_least(h, t, _below(bars[t]), groups, candidates)
        latents[starts[t] : starts[t] + n] = candidates[:n]
        _exact(t, x, rows, bias, candidates, 0, n, values[starts[t] :])
