"""Loops over tokens and over latents, compiled by numba for the CPU at their first call.

Knows arrays only. Every function takes the range `lo, hi` of rows it is to work on and releases the
interpreter lock, so that several threads can share a job; what is written never overlaps, and the
order of every sum is fixed, so a result does not depend on the number of threads.
"""

import math
from collections.abc import Callable
from typing import Any

import numba

FREE_ORDER = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be reordered for vector units; NaN and infinity keep their meaning."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """numba's compilation without the interpreter lock, kept on disk where that is possible.

    What is kept is renewed when the function's file changes, not when one that it calls does: call
    only functions of the same file.
    """
    try:
        return numba.njit(nogil=True, cache=True, fastmath=FREE_ORDER)(function)
    except RuntimeError:  # no folder to keep it in
        return numba.njit(nogil=True, fastmath=FREE_ORDER)(function)


@compiled
def dot(a, i, b, j):
    """a[i] · b[j]."""
    total = a[i, 0] * b[j, 0]
    for c in range(1, a.shape[1]):
        total += a[i, c] * b[j, c]
    return total


@compiled
def dots(lo, hi, x, rows, starts, latents, out):
    """out[e] = x[token of e] · rows[latent of e], over the entries of tokens lo to hi."""
    for t in range(lo, hi):
        for e in range(starts[t], starts[t + 1]):
            out[e] = dot(x, t, rows, latents[e])


@compiled
def residuals(lo, hi, rows, starts, latents, values, ends, out, along, squares):
    """See `plain.residuals`; `out[0]` holds the target, `squares` one sum a token."""
    n_levels, d = out.shape[0], out.shape[2]
    for t in range(lo, hi):
        a, b = starts[t], starts[t + 1]
        begin = 0
        total = 0.0
        for level in range(n_levels):
            if level:
                for c in range(d):
                    out[level, t, c] = out[level - 1, t, c]
            end = ends[level]
            e = a
            while e < b:
                # four rows at a time, so that the sum is read and written less often
                j0, v0, e = _next(e, b, latents, values, begin, end)
                j1, v1, e = _next(e, b, latents, values, begin, end)
                j2, v2, e = _next(e, b, latents, values, begin, end)
                j3, v3, e = _next(e, b, latents, values, begin, end)
                for c in range(d):
                    out[level, t, c] -= (v0 * rows[j0, c] + v1 * rows[j1, c]) + (
                        v2 * rows[j2, c] + v3 * rows[j3, c]
                    )
            begin = end
            for c in range(d):
                total += out[level, t, c] * out[level, t, c]
        squares[t] = total
        for level in range(n_levels - 2, -1, -1):
            for c in range(d):
                out[level, t, c] += out[level + 1, t, c]
        for e in range(a, b):
            level = 0
            while latents[e] >= ends[level]:
                level += 1
            along[e] = dot(out[level], t, rows, latents[e])


@compiled
def _next(e, stop, latents, values, begin, end):
    """The next entry of this level from e on: its latent and value, and where to go on."""
    while e < stop:
        j = latents[e]
        if begin <= j < end and values[e] != 0:
            return j, values[e], e + 1
        e += 1
    return latents[stop - 1], values[stop - 1] * 0, e


@compiled
def by_latent(latents, starts, order):
    """Entries sorted by latent, stably: `order (n)`, and `starts (d_sae + 1)`, which comes as zeros."""
    for e in range(latents.size):
        starts[latents[e] + 1] += 1
    for s in range(1, starts.size):
        starts[s] += starts[s - 1]
    place = starts[:-1].copy()
    for e in range(latents.size):
        order[place[latents[e]]] = e
        place[latents[e]] += 1


@compiled
def gradients(lo, hi, starts, order, tokens, f, g, levels, ends, x, anew, d_dec, d_enc, d_bias):
    """d_dec[s] += f_e levels[level of s, token_e], d_enc[s] += g_e x[token_e], d_bias[s] += g_e."""
    d = x.shape[1]
    for s in range(lo, hi):
        level = 0
        while s >= ends[level]:
            level += 1
        if anew:
            for c in range(d):
                d_dec[s, c] = 0
                d_enc[s, c] = 0
            d_bias[s] = 0
        e, stop = starts[s], starts[s + 1]
        while e + 1 < stop:
            e0, e1 = order[e], order[e + 1]
            t0, t1 = tokens[e0], tokens[e1]
            f0, f1, g0, g1 = f[e0], f[e1], g[e0], g[e1]
            for c in range(d):
                d_dec[s, c] += f0 * levels[level, t0, c] + f1 * levels[level, t1, c]
                d_enc[s, c] += g0 * x[t0, c] + g1 * x[t1, c]
            d_bias[s] += g0 + g1
            e += 2
        if e < stop:
            e0 = order[e]
            t0, f0, g0 = tokens[e0], f[e0], g[e0]
            for c in range(d):
                d_dec[s, c] += f0 * levels[level, t0, c]
                d_enc[s, c] += g0 * x[t0, c]
            d_bias[s] += g0


@compiled
def square_norms(lo, hi, p, g, remove, along, squares):
    """squares[s] = ||g_s - along_s p_s||^2, with along_s = g_s · p_s if `remove`, else 0."""
    d = p.shape[1]
    for s in range(lo, hi):
        a = dot(g, s, p, s) if remove else g[s, 0] * 0
        along[s] = a
        total = 0.0
        for c in range(d):
            rest = g[s, c] - a * p[s, c]
            total += rest * rest
        squares[s] = total


@compiled
def adam(lo, hi, p, g, m, v, along, scale, rate, root, beta1, beta2, eps, unit):
    """Adam on rows of p with the gradient scale * (g_s - along_s p_s); unit rows afterwards."""
    d = p.shape[1]
    for s in range(lo, hi):
        a = along[s]
        norm = a * 0
        for c in range(d):
            grad = scale * (g[s, c] - a * p[s, c])
            first = m[s, c] + (grad - m[s, c]) * (1 - beta1)
            second = v[s, c] * beta2 + (1 - beta2) * grad * grad
            m[s, c] = first
            v[s, c] = second
            new = p[s, c] - rate * first / (math.sqrt(second) / root + eps)
            p[s, c] = new
            norm += new * new
        if unit:
            norm = max(math.sqrt(norm), 1e-12)
            for c in range(d):
                p[s, c] /= norm
