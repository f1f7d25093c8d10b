"""The service that the HTTP API is compared with: FastAPI, uvicorn and a fitted scikit-learn pipeline, as tutorials build it.

    python reference.py train EXAMPLE.json MODEL.joblib   # a pipeline of 100 trees of depth 6 on the columns of the example
    python reference.py serve MODEL.joblib PORT WORKERS

Versions: requirements.txt beside this file.
"""

import json
import os
import sys

import joblib
import numpy as np
import pandas as pd


def columns(example):
    numbers = [k for k, v in example.items() if isinstance(v, (int, float)) and not isinstance(v, bool)]
    booleans = [k for k, v in example.items() if isinstance(v, bool)]
    categories = [k for k, v in example.items() if isinstance(v, str)]
    return numbers, booleans, categories


def train(example_file, model_file):
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    with open(example_file) as f:
        example = json.load(f)
    numbers, booleans, categories = columns(example)
    rng = np.random.default_rng(7)
    n = 5000
    rows = pd.DataFrame({c: rng.uniform(0, 100, n) for c in numbers})
    for c in booleans:
        rows[c] = rng.random(n) < 0.5
    for c in categories:
        rows[c] = rng.choice([example[c], "b", "c"], n)
    churn = rng.random(n) < 1 / (1 + np.exp((rows[numbers[0]] - 50) / 20))
    pipeline = Pipeline([
        ("columns", ColumnTransformer([
            ("numbers", StandardScaler(), numbers + booleans),
            ("categories", OneHotEncoder(handle_unknown="ignore"), categories),
        ])),
        ("model", GradientBoostingClassifier(n_estimators=100, max_depth=6, random_state=7)),
    ])
    pipeline.fit(rows, churn)
    joblib.dump((pipeline, list(rows.columns)), model_file)


def application():
    from fastapi import FastAPI
    from pydantic import create_model

    pipeline, names = joblib.load(os.environ["REFERENCE_MODEL"])
    Customer = create_model("Customer", **{name: (object, ...) for name in names})
    app = FastAPI()

    def answer(probability):
        return {"churn_probability": probability, "prediction": "churn" if probability >= 0.5 else "retain", "model_version": "1"}

    @app.post("/v1/predict")
    def predict(customer: Customer):
        row = pd.DataFrame([customer.model_dump()], columns=names)
        return answer(float(pipeline.predict_proba(row)[0, 1]))

    @app.post("/v1/predict:batch")
    def batch(customers: list[Customer]):
        rows = pd.DataFrame([c.model_dump() for c in customers], columns=names)
        return {"predictions": [answer(float(p)) for p in pipeline.predict_proba(rows)[:, 1]]}

    return app


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(sys.argv[2], sys.argv[3])
    else:
        import uvicorn

        os.environ["REFERENCE_MODEL"] = sys.argv[2]
        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
        uvicorn.run("reference:application", factory=True, port=int(sys.argv[3]), workers=int(sys.argv[4]), log_level="warning", access_log=False)
