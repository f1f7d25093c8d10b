"""Writes oracle.json: each statistic of this package by scipy, by frouros where it has one, and the drift rule in 50 digits.

python -m venv venv && venv/bin/pip install scipy==1.14.1 numpy==2.1.3 mpmath==1.3.0 frouros==0.9.0 scikit-learn==1.5.2
venv/bin/python oracle.py > oracle.json
"""
import json

import mpmath
import numpy as np
from frouros.detectors.data_drift.batch import PSI as FrourosPSI
from scipy import special, stats
from scipy.spatial.distance import jensenshannon
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

mpmath.mp.dps = 50


def rule(counts, reference, shift, design):
    """The mixture, its divergence and the evidence, without a rounding error to speak of."""
    n = mpmath.mpf(sum(counts))
    e = [(mpmath.mpf(m) + mpmath.mpf(1) / 2) / (sum(reference) + mpmath.mpf(len(reference)) / 2) for m in reference]
    a = [c / n for c in counts]
    shift = mpmath.mpf(shift)
    customers = n / mpmath.mpf(design)

    def index(t):
        return sum(t * (x - y) * mpmath.log((y + t * (x - y)) / y) for x, y in zip(a, e))

    top = 1 - mpmath.mpf(10) ** -6
    if index(top) <= shift:
        return {"part": 1.0, "divergence": 0.0, "evidence": 0.0}
    low, high = mpmath.mpf(0), top
    for _ in range(160):
        middle = (low + high) / 2
        low, high = (middle, high) if index(middle) < shift else (low, middle)
    q = [y + low * (x - y) for x, y in zip(a, e)]
    divergence = sum(x * mpmath.log(x / y) for x, y in zip(a, q) if x > 0)
    nu, lam = len(counts) - 1, shift * customers
    excess = (mpmath.sqrt(lam) + mpmath.sqrt(2 * customers * divergence)) ** 2 - nu - lam
    b = mpmath.sqrt(nu + 2 * lam)
    evidence = ((mpmath.sqrt(b * b + 2 * excess) - b) / 2) ** 2 if excess > 0 else 0
    return {"part": float(low), "divergence": float(divergence), "evidence": float(evidence)}


def main():
    random = np.random.default_rng(20260101)
    out = {"comparisons": [], "rule": [], "kolmogorov": [], "frouros": []}
    for places in (2, 3, 10, 13, 40):
        for n, m in ((50, 60), (1000, 1500), (200000, 5000)):
            p = random.dirichlet(np.full(places, 2.0))
            q = random.dirichlet(200 * p + 0.05)
            current = random.multinomial(n, q)
            reference = random.multinomial(m, p)
            positions = np.cumsum(random.exponential(3.0, places)) - 7
            a, e = current / n, reference / m
            both = (current + reference) > 0
            chi = stats.chi2_contingency(np.array([current[both], reference[both]]), correction=False)
            out["comparisons"].append({
                "current": current.tolist(), "reference": reference.tolist(), "positions": positions.tolist(),
                "jensen_shannon": float(jensenshannon(a, e)),
                "kolmogorov_smirnov": float(np.max(np.abs(np.cumsum(a) - np.cumsum(e)))),
                "wasserstein": float(stats.wasserstein_distance(positions, positions, current, reference)),
                "chi_square": float(chi.statistic), "degrees_of_freedom": int(chi.dof), "chi_square_chance": float(chi.pvalue),
                "psi_critical_001": float((1 / n + 1 / m) * stats.chi2.isf(0.001, places - 1)),
            })
            for shift, design in ((0.1, 1.0), (0.1, 3.5), (0.02, 1.0)):
                case = rule(current.tolist(), reference.tolist(), shift, design)
                out["rule"].append({"current": current.tolist(), "reference": reference.tolist(), "shift": shift, "design_effect": design, **case})
    for d, n, m in ((0.01, 1000, 1000), (0.03, 1000, 1500), (0.05, 900, 5000), (0.2, 300, 100), (0.4, 80, 90)):
        out["kolmogorov"].append({"d": d, "n": n, "m": m, "chance": float(special.kolmogorov(d * np.sqrt(n * m / (n + m))))})
    for shift in (0.0, 0.4):
        x, y = random.normal(0, 1, 800), random.normal(shift, 1.2, 900)
        edges = np.histogram(np.hstack((x, y)), bins=12)[1]
        case = {"reference": np.histogram(x, edges)[0].tolist(), "current": np.histogram(y, edges)[0].tolist()}
        detector = FrourosPSI(num_bins=12)  # its Jensen-Shannon is of densities at points, not of shares
        detector.fit(X=x)
        case["psi"] = float(detector.compare(X=y)[0].distance)
        out["frouros"].append(case)
    p = random.beta(1.2, 3.0, 600)
    y = (random.random(600) < p**0.8).astype(int)
    rate, mean = calibration_curve(y, p, n_bins=10)  # ten bins of equal width, those that are empty left out
    index = np.minimum((p * 10).astype(int), 9)
    counts = np.bincount(index, minlength=10)
    intervals = [stats.binomtest(int(y[index == i].sum()), int(counts[i])).proportion_ci(method="wilson") for i in range(10) if counts[i]]
    out["calibration"] = {
        "uppers": [i / 10 for i in range(1, 11)], "probabilities": p.tolist(), "outcomes": y.tolist(),
        "brier": float(brier_score_loss(y, p)), "expected_error": float(np.sum(counts[counts > 0] * np.abs(rate - mean)) / len(p)),
        "curve": [{"mean_score": float(m), "churn_rate": float(r), "low": float(i.low), "high": float(i.high)} for m, r, i in zip(mean, rate, intervals)],
    }
    print(json.dumps(out, indent=0))


if __name__ == "__main__":
    main()
