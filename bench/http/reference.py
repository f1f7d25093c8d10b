"""The service that the HTTP API is compared with: FastAPI, uvicorn and a fitted scikit-learn pipeline, as tutorials build it.

    python reference.py train DIRECTORY            # a pipeline of 100 trees of depth 6, saved, with its rows as CSV
    python reference.py serve DIRECTORY PORT WORKERS
    python reference.py check ARTEFACT URL         # asks the HTTP API at URL for the artefact's reference rows

Versions: requirements.txt beside this file.
"""

import csv
import io
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
    """Each answer, alone and in the three forms of a batch, must be what scikit-learn gave for the row."""
    with open(os.path.join(artefact, "reference.jsonl")) as f:
        rows = [json.loads(line) for line in f]
    inputs = [row["inputs"] for row in rows]

    def ask(path, media_type, body):
        request = urllib.request.Request(url + path, data=body.encode(), headers={"Content-Type": media_type})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(inputs[0])
    for row in inputs:
        writer.writerow("" if v is None else v if isinstance(v, str) else json.dumps(v) for v in row.values())

    def lines(answer):
        answered = [json.loads(line) for line in answer.splitlines()]
        if answered.pop() != {"rows": len(rows), "failed": 0}:
            sys.exit("the answer in lines is not whole")
        return answered

    batch = "/v1/predict:batch"
    answers = {
        "one by one": [json.loads(ask("/v1/predict", "application/json", json.dumps(row))) for row in inputs],
        "array": json.loads(ask(batch, "application/json", json.dumps(inputs)))["predictions"],
        "lines": lines(ask(batch, "application/x-ndjson", "\n".join(json.dumps(row) for row in inputs))),
        "table": lines(ask(batch, "text/csv", table.getvalue())),
    }
    worst = 0.0
    for how, answered in answers.items():
        for n, (row, answer) in enumerate(zip(rows, answered, strict=True)):
            difference = abs(answer["churn_probability"] - row["probability"])
            worst = max(worst, difference)
            if not difference <= 1e-12:
                sys.exit("%s, row %d: %r, scikit-learn gave %r" % (how, n, answer, row["probability"]))
            if answer["churn_probability"] != answers["one by one"][n]["churn_probability"]:
                sys.exit("%s, row %d: other bits than alone" % (how, n))
    print("%s: %d rows, alone and as array, lines and table: all equal scikit-learn's; the largest difference is %g" % (os.path.basename(artefact), len(rows), worst))


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
