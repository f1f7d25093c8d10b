"""The service that the HTTP API is compared with: FastAPI, uvicorn and a fitted scikit-learn pipeline, as tutorials build it.

    python reference.py train DIRECTORY            # a pipeline of 100 trees of depth 6, saved, with its rows as CSV
    python reference.py serve DIRECTORY PORT WORKERS
    python reference.py check ARTEFACT URL         # asks the HTTP API at URL for the artefact's reference rows

Versions: requirements.txt beside this file.
"""

import json
import os
import sys
import urllib.request

NUMBERS = ["tenure", "MonthlyCharges", "TotalCharges", "calls", "tickets", "logins"]
CATEGORIES = ["Contract", "PaymentMethod", "InternetService", "region"]


def train(directory):
    import joblib
    import numpy as np
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(7)
    n = 5000
    rows = pd.DataFrame({c: rng.uniform(0, 100, n).round(2) for c in NUMBERS})
    for c in CATEGORIES:
        rows[c] = rng.choice([c + " one", c + " two", c + " three"], n)
    margin = (50 - rows.tenure) / 20 + (rows.MonthlyCharges - 50) / 40 + (rows.Contract == "Contract one")
    churn = rng.random(n) < 1 / (1 + np.exp(-margin))
    pipeline = Pipeline([
        ("columns", ColumnTransformer([
            ("numbers", StandardScaler(), NUMBERS),
            ("categories", OneHotEncoder(handle_unknown="ignore"), CATEGORIES),
        ])),
        ("model", GradientBoostingClassifier(n_estimators=100, max_depth=6, random_state=7)),
    ])
    pipeline.fit(rows, churn.astype(int))
    joblib.dump(pipeline, os.path.join(directory, "pipeline.joblib"))
    rows.to_csv(os.path.join(directory, "rows.csv"), index=False)


def application():
    import joblib
    import pandas as pd
    from fastapi import FastAPI
    from pydantic import create_model

    pipeline = joblib.load(os.path.join(os.environ["REFERENCE_DIRECTORY"], "pipeline.joblib"))
    names = NUMBERS + CATEGORIES
    Customer = create_model("Customer", **{name: (float, ...) for name in NUMBERS}, **{name: (str, ...) for name in CATEGORIES})
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


def check(artefact, url):
    """Each answer must be what scikit-learn gave for the row, to the tolerance of the artefact."""
    worst = 0.0
    with open(os.path.join(artefact, "reference.jsonl")) as f:
        lines = [json.loads(line) for line in f]
    for n, line in enumerate(lines):
        body = json.dumps(line["inputs"]).encode()
        request = urllib.request.Request(url + "/v1/predict", data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            got = json.load(answer)["churn_probability"]
        worst = max(worst, abs(got - line["probability"]))
        if abs(got - line["probability"]) > 1e-9:
            sys.exit("row %d: %r, scikit-learn gave %r" % (n, got, line["probability"]))
    print("%d answers equal scikit-learn's; the largest difference is %g" % (len(lines), worst))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(sys.argv[2])
    elif sys.argv[1] == "check":
        check(sys.argv[2], sys.argv[3])
    else:
        import uvicorn

        os.environ["REFERENCE_DIRECTORY"] = sys.argv[2]
        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
        uvicorn.run("reference:application", factory=True, port=int(sys.argv[3]), workers=int(sys.argv[4]), log_level="warning", access_log=False)
