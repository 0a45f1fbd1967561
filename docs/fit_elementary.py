#!/usr/bin/env python3
"""Fits the coefficients of kernels/src/math.rs. Needs mpmath; takes about a minute; prints Rust constants.

Every polynomial is a weighted minimax fit by the exchange algorithm (E. Ya. Remez, 1934) in 160-bit
arithmetic. Rounding all coefficients to f32 at once would throw the optimum away, so they are rounded
one by one, lowest power first, and the rest is fitted again around each rounded one.
"""
import struct

from mpmath import cos, erfc, exp, log, lu_solve, matrix, mp, mpf, nstr, pi, sqrt

mp.prec = 160
GRID = 600


def f32(value):
    """The f32 nearest to `value`: one rounding, not two as through a Python float."""
    with mp.workprec(24):
        return +value


def rust(value):
    exact = float(value)  # an f32, so exact
    bits = struct.unpack("<I", struct.pack("<f", exact))[0]
    return f"f32::from_bits(0x{bits:08x}), // {exact.hex()}"


def remez(target, weight, powers, low, high):
    """Coefficients c that minimize max |weight(x) * (target(x) - sum c[i] x^powers[i])|, and the maximum."""
    xs = [(low + high - (high - low) * cos(pi * i / GRID)) / 2 for i in range(GRID + 1)]
    goal, weights = [target(x) for x in xs], [weight(x) for x in xs]
    terms = [[x**p for p in powers] for x in xs]
    count = len(powers)
    # Chebyshev nodes to begin with, one in from the ends: a weight may vanish there.
    nodes = [1 + (GRID - 2) * i // count for i in range(count + 1)]
    for _ in range(15):
        system, right = matrix(count + 1, count + 1), matrix(count + 1, 1)
        for row, i in enumerate(nodes):
            for column in range(count):
                system[row, column] = terms[i][column]
            system[row, count] = (-1) ** row / weights[i]
            right[row] = goal[i]
        c = list(lu_solve(system, right))[:count]
        errors = [w * (g - sum(a * t for a, t in zip(c, ts))) for w, g, ts in zip(weights, goal, terms)]
        peaks = [0]  # the largest error of every run of equal sign
        for i in range(1, GRID + 1):
            if (errors[i] > 0) != (errors[peaks[-1]] > 0):
                peaks.append(i)
            elif abs(errors[i]) > abs(errors[peaks[-1]]):
                peaks[-1] = i
        peaks = [i for i in peaks if errors[i] != 0]  # an end may be a node of every power
        while len(peaks) > count + 1:
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        largest = max(map(abs, errors))
        if len(peaks) <= count or largest < min(abs(errors[i]) for i in peaks) * mpf("1.001"):
            break
        nodes = peaks
    return c, largest


def fit_f32(target, weight, degree, low, high):
    """f32 coefficients of powers 1..=degree; the constant term is exactly 1. Also the largest weighted error."""
    known = [mpf(1)]
    while len(known) <= degree:
        powers = list(range(len(known), degree + 1))
        residual = lambda x: target(x) - sum(c * x**i for i, c in enumerate(known))
        c, _ = remez(residual, weight, powers, low, high)
        known.append(f32(c[0]))
    step = (high - low) / 4000
    points = [low + i * step for i in range(4001)]
    return known, max(weight(x) * abs(target(x) - sum(c * x**i for i, c in enumerate(known))) for x in points)


def show(name, coefficients):
    print(f"const {name}: [f32; {len(coefficients)}] = [")
    for c in coefficients:
        print(f"    {rust(c)}")
    print("];")


def fit_exp2():
    # In units in the last place: below 1 the spacing of f32 halves.
    ulps = lambda f: mpf(2) ** (24 if f < 0 else 23)
    c, error = fit_f32(lambda f: mpf(2) ** f, ulps, 6, mpf(-1) / 2, mpf(1) / 2)
    print(f"// 2^f on [-1/2, 1/2]: largest error {nstr(error, 3)} ulp before rounding in evaluation.")
    show("EXP2", [2 * a for a in c])


def horner_f32(c, a):
    p = c[-1]
    for coefficient in c[-2::-1]:
        p = f32(p * a + coefficient)
    return p


def fit_gelu(name, share, degree, high):
    """P with P(a)^8 = 2 share(a), share being the factor of a = -x that GELU keeps (Phi(-a), or tanh's)."""
    target = lambda a: (2 * share(a)) ** (mpf(1) / 8)
    # Allowed error of the share: relative to GELU at +a, and in the tail also to GELU at -a, 2^12 times looser.
    allowed = lambda a: min(1 - share(a), share(a) * 2**12)
    weight = lambda a: 8 * share(a) / target(a) / allowed(a)
    c, error = fit_f32(target, weight, degree, mpf(0), high)
    print(f"// {name} on [0, {nstr(high, 3)}]: largest weighted error {nstr(error * 2**24, 3)} * 2^-24.")
    # Past the interval P falls to a root; clamping there makes the tail exactly zero.
    a = high
    while horner_f32(c, a) > 0:
        a += mpf("0.001")
    low, up = a - mpf("0.001"), a
    for _ in range(60):
        middle = (low + up) / 2
        exact = sum(k * middle**i for i, k in enumerate(c))
        low, up = (middle, up) if exact > 0 else (low, middle)
    # In f32 the root is a band of noise: take the neighbour where the evaluation comes nearest to zero.
    ulp = mpf(2) ** -21
    limit = min((f32(low) + i * ulp for i in range(-32, 33)), key=lambda a: abs(horner_f32(c, a)))
    print(f"// P({nstr(limit, 9)}) evaluates to {nstr(horner_f32(c, limit), 3)}; its 8th power must be 0 in f32.")
    print(f"const {name}_LIMIT: f32 = {rust(limit)}")
    show(name, c)


def main():
    log2e, ln2 = 1 / log(mpf(2)), log(mpf(2))
    print("const LOG2E: f32 =", rust(f32(log2e)))
    print("const LOG2E_LOW: f32 =", rust(f32(log2e - f32(log2e))))
    smallest = f32(-126 * ln2)
    while smallest < -126 * ln2:  # the least f32 whose exponential is a normal number
        smallest += mpf(2) ** -17
    print("const EXP_UNDERFLOW: f32 =", rust(smallest))
    fit_exp2()
    fit_gelu("GELU", lambda a: erfc(a / sqrt(mpf(2))) / 2, 8, mpf(6))
    scale = 2 * sqrt(2 / pi)
    fit_gelu("GELU_TANH", lambda a: 1 / (1 + exp(scale * (a + mpf("0.044715") * a**3))), 11, mpf(5))


main()
