"""Writes what boosters.sh measured as the table of docs/models.md."""

import argparse
import json
import pathlib
import re

SIZES = (("100x6", "100 trees of depth 6"), ("500x8", "500 trees of depth 8"), ("1000x31", "1,000 trees of 31 leaves"))
LABELS = (
    {f"{key}-{size}": f"{library}, {words}" for key, library in (("xgboost", "XGBoost"), ("lightgbm", "LightGBM"), ("catboost", "CatBoost")) for size, words in SIZES}
    | {f"onnx-boosting-{size}": f"ONNX Runtime, the same {words} as XGBoost" for size, words in SIZES}
    | {
        "xgboost-100x6-contributions": "XGBoost, 100 trees of depth 6, exact contributions",
        "xgboost-100x6-category": "XGBoost, 100 trees of depth 6, 5 of the inputs categories",
        "onnx-forest-100x6": "ONNX Runtime, forest of 100 trees of depth 6",
        "onnx-logistic": "ONNX Runtime, scaler and logistic regression",
        "forest-500": "scikit-learn, forest of 500 trees without a limit",
    }
)


def here(text):
    """Processor time of a row by model and batch, from what go test printed."""
    out = {}
    for line in text.splitlines():
        if m := re.match(r"BenchmarkLibraryModels/(\S+?)(?:/batch=(\d+))?(?:-\d+)?\s.*?([\d.]+) cpu-ns/row", line):
            out[m[1], int(m[2] or 1000)] = float(m[3])
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("directory", type=pathlib.Path)
    a = p.parse_args()
    ours = here((a.directory / "here.txt").read_text())
    print("| model, 20 inputs | rows at once | library | here | times |\n|---|---|---|---|---|")
    rows = [r for name in ("libraries.json", "graphs.json") for r in json.loads((a.directory / name).read_text())]
    last = None
    for r in sorted(rows, key=lambda r: list(LABELS).index(r["model"])):
        mine = ours[r["model"], r["batch"]]
        label, last = "" if r["model"] == last else LABELS[r["model"]], r["model"]
        print(f"| {label} | {r['batch']:,} | {r['ns_per_row']:,} | {mine:,.0f} | {r['ns_per_row'] / mine:.1f} |")


if __name__ == "__main__":
    main()
