"""Loss curves beside each other, and how far apart they may be."""
import math

WINDOW = 20      # steps that are averaged where rounding is coarse
FACTOR = 4       # of the yardstick: it rounds weights alone, a device also activations, gates and gradients
ROUNDING = {"fp32": 2.0 ** -24, "tf32": 2.0 ** -11, "fp16": 2.0 ** -11, "bf16": 2.0 ** -8}   # half a unit, relative


def averaged(curve, window):
    return [sum(curve[i:i + window]) / len(curve[i:i + window]) for i in range(0, len(curve), window)]


def running_max(values):
    most, result = 0.0, []
    for value in values:
        most = max(most, value)
        result.append(most)
    return result


def tolerances(exact, yardstick, precision, longest_sum):
    """What two curves of one network in `precision` may differ by, step by step (window by window, if coarse).

    Rounding moves a curve more and more as training goes on, and no formula says how fast. So the allowance is FACTOR
    times what it was seen to do to PyTorch so far: `yardstick` against the same in float64. Added is what the first
    loss may be off by: 4 ceil(log2(K)) units of fp32; for coarse numbers one unit, since their errors average out.
    """
    window = 1 if precision == "fp32" else WINDOW
    a, b = averaged(exact, window), averaged(yardstick, window)
    unit = ROUNDING[precision] * (2 * 4 * math.ceil(math.log2(longest_sum)) if precision == "fp32" else 1)
    moved = running_max([abs(x - y) for x, y in zip(a, b)])
    return window, [FACTOR * m + unit * abs(x) for m, x in zip(moved, a)]


def compare(curve, other, window, allowed):
    """The largest difference, the largest share of what is allowed, and where that is; None: lengths differ."""
    if len(curve) != len(other) or not curve:
        return None
    a, b = averaged(curve, window), averaged(other, window)
    if len(a) != len(allowed):
        return None
    differences = [abs(x - y) if math.isfinite(x) and math.isfinite(y) else math.inf for x, y in zip(a, b)]
    shares = [d / t for d, t in zip(differences, allowed)]
    worst = max(range(len(shares)), key=lambda i: shares[i])
    return {"largest_difference": max(differences), "share_of_allowed": shares[worst], "at_step": worst * window + 1}


def self_test():
    exact = [4.0 - 0.001 * i for i in range(100)]
    noisy = [x + 1e-4 * (-1) ** i for i, x in enumerate(exact)]
    window, allowed = tolerances(exact, noisy, "fp32", 1000)
    assert window == 1 and len(allowed) == 100
    assert compare(exact, noisy, window, allowed)["share_of_allowed"] < 1
    assert compare(exact, [x + 1e-2 for x in exact], window, allowed)["share_of_allowed"] > 1
    assert compare(exact, [math.nan] * 100, window, allowed)["share_of_allowed"] == math.inf
    assert compare(exact, exact[:-1], window, allowed) is None
    window, allowed = tolerances(exact, noisy, "bf16", 1000)
    assert window == WINDOW and len(allowed) == 5
    assert compare(exact, [x + 0.2 for x in exact], window, allowed)["share_of_allowed"] > 1
