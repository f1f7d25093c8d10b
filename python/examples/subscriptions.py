"""The second reference system: subscriptions with their last transaction, four models side by side.

    python python/examples/subscriptions.py models/subscriptions                        # a table that is made up
    python python/examples/subscriptions.py models/subscriptions --table members.csv    # yours

A table of your own has the columns city, gender, registered_via, payment_method_id, payment_plan_days,
actual_amount_paid, is_auto_renew, transaction_date, membership_expire_date (numbers such as 20170131), customer and
is_churn. The rows of the latest fifth of transaction dates are held out: a model is asked about days that it has not
seen. Retained customers are undersampled for the fit, never for the evaluation.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier
from telco import evaluate, show

from churnstream_export import DateParts, DaysBetween, export

NUMBERS = ["city", "registered_via", "payment_method_id", "payment_plan_days", "actual_amount_paid", "is_auto_renew"]
DATES = ["transaction_date", "membership_expire_date"]


def made_up(n: int) -> pd.DataFrame:
    """Subscriptions as random as they look; nobody's data."""
    rng = np.random.default_rng(11)
    paid = pd.Timestamp("2017-01-01") + pd.to_timedelta(rng.integers(0, 60, n), unit="D")
    days = rng.choice([7, 30, 30, 30, 90, 180], n)
    table = pd.DataFrame({
        "customer": rng.integers(0, n * 2 // 3, n),
        "city": rng.choice([1, 4, 5, 13, 15, 22], n, p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]).astype(float),
        "gender": rng.choice(np.array(["male", "female", None], dtype=object), n, p=[0.25, 0.25, 0.5]),
        "registered_via": rng.choice([3, 4, 7, 9], n).astype(float),
        "payment_method_id": rng.choice([29, 38, 39, 40, 41], n).astype(float),
        "payment_plan_days": days.astype(float),
        "actual_amount_paid": days * rng.choice([3.3, 4.97, 5.0], n),
        "is_auto_renew": (rng.random(n) < 0.8).astype(float),
        "transaction_date": paid.strftime("%Y%m%d").astype(float),
        "membership_expire_date": (paid + pd.to_timedelta(days, unit="D")).strftime("%Y%m%d").astype(float),
    })
    z = -3 + 2.5 * (table.is_auto_renew == 0) + 0.6 * (days > 60) + 0.8 * (table.payment_method_id == 38)
    table["is_churn"] = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(int)
    return table


def columns() -> ColumnTransformer:
    return ColumnTransformer([
        ("gender", make_pipeline(SimpleImputer(strategy="constant", fill_value="unknown"), OneHotEncoder(handle_unknown="ignore")), ["gender"]),
        ("days", make_pipeline(DaysBetween(digits=True), SimpleImputer()), DATES),
        ("parts", make_pipeline(DateParts(("month", "day", "weekday"), digits=True), SimpleImputer()), ["transaction_date"]),
        ("numbers", SimpleImputer(), NUMBERS),
    ], sparse_threshold=0)  # fmt: skip


def models() -> dict[str, Any]:
    boosted = AdaBoostClassifier(n_estimators=60, random_state=0)
    forest = RandomForestClassifier(80, max_depth=8, min_samples_leaf=5, random_state=0)
    tree = DecisionTreeClassifier(max_depth=5, min_samples_leaf=20, random_state=0)
    members = [("boosted", boosted), ("forest", forest), ("tree", tree)]
    return {"adaboost": boosted, "forest": forest, "tree": tree, "vote": VotingClassifier(members, voting="soft")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="directory for the four artefacts")
    parser.add_argument("--table", help="CSV of your own")
    parser.add_argument("--rows", type=int, default=6000, help="of the table that is made up")
    options = parser.parse_args()
    if options.table:
        table = pd.read_csv(options.table, keep_default_na=False, na_values=[""])
    else:
        table = made_up(options.rows)
    table["gender"] = table["gender"].astype(object)
    inputs = [*NUMBERS, "gender", *DATES]
    border = table["transaction_date"].quantile(0.8)
    training, test = table[table.transaction_date <= border], table[table.transaction_date > border]
    # Nobody is in both: what is held out are other customers on later days.
    test = test[~test.customer.isin(training.customer)]
    churned = training[training.is_churn == 1]
    retained = training[training.is_churn == 0].sample(min(2 * len(churned), int((training.is_churn == 0).sum())), random_state=1)
    fitted = pd.concat([churned, retained]).sample(frac=1, random_state=1)
    print(f"{len(training)} rows to train on, {len(fitted)} after undersampling, {len(test)} held out, {test.is_churn.mean():.1%} of them churned")
    for name, estimator in models().items():
        model = make_pipeline(columns(), estimator).fit(fitted[inputs], fitted.is_churn)
        probability = model.predict_proba(test[inputs])[:, 1]
        metrics = evaluate(test.is_churn, probability, test.customer, 0.5)
        show(name, metrics)
        export(
            model, training[inputs], f"{options.output}/{name}", label="the subscription is not renewed within 30 days of its end",
            horizon="30d", metrics=metrics, training_rows=len(fitted), held_out_rows=len(test), name=f"subscriptions-{name}",
        )  # fmt: skip


if __name__ == "__main__":
    main()
