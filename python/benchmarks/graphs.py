"""Times CatBoost and ONNX Runtime on one thread, and writes their models beside those of boosters.py, which
has to run first (boosters.sh)."""

import argparse
import json
import pathlib

import numpy as np
from boosters import data, measure


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("directory", type=pathlib.Path)
    a = p.parse_args()
    a.directory.mkdir(parents=True, exist_ok=True)
    import catboost
    import onnxruntime
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    print(f"catboost {catboost.__version__}, onnxruntime {onnxruntime.__version__}")
    x, y = data(20000, 20, 1)
    x[:1000].astype("<f8").tofile(a.directory / "rows.f64")
    results = []
    for count, depth in ((100, 6), (500, 8)):
        model = catboost.CatBoostClassifier(iterations=count, depth=depth, thread_count=1, verbose=0, random_seed=1, allow_writing_files=False)
        model.fit(x[:5000], y[:5000])
        name = f"catboost-{count}x{depth}"
        model.save_model(str(a.directory / f"{name}.json"), format="json")
        measure(name, lambda rows, m=model: m.predict(rows, prediction_type="RawFormulaVal", thread_count=1), x.astype(np.float32), results)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for name, estimator in (
        ("onnx-logistic", make_pipeline(StandardScaler(), LogisticRegression())),
        ("onnx-forest-100x6", RandomForestClassifier(100, max_depth=6, n_jobs=1, random_state=1)),
    ):
        estimator.fit(x[:5000], y[:5000])
        raw = to_onnx(estimator, x[:1].astype(np.float32), options={"zipmap": False}, target_opset={"": 21, "ai.onnx.ml": 3}).SerializeToString()
        (a.directory / f"{name}.onnx").write_bytes(raw)
        session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        feed = session.get_inputs()[0].name
        measure(name, lambda rows, s=session, f=feed: s.run(None, {f: rows}), x.astype(np.float32), results)
    (a.directory / "graphs.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
