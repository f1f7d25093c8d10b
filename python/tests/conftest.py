from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def churnstream(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command: CHURNSTREAM, or what go build makes of this repository."""
    given = os.environ.get("CHURNSTREAM")
    if given:
        return given
    if shutil.which("go") is None:
        pytest.skip("needs the churnstream command: set CHURNSTREAM, or put go on the path")
    binary = tmp_path_factory.mktemp("bin") / "churnstream"
    subprocess.run(["go", "build", "-o", str(binary), "./cmd/churnstream"], cwd=REPOSITORY, check=True)
    return str(binary)


@pytest.fixture(scope="session")
def customers() -> tuple[pd.DataFrame, Any]:
    """Inputs of the first reference system, with gaps, and whether the customer left."""
    rng = np.random.default_rng(7)
    n = 400
    frame = pd.DataFrame(
        {
            "tenure_days": rng.integers(1, 2000, n).astype(float),
            "monthly_spend": np.round(rng.gamma(3, 15, n), 2),
            "support_tickets_30d": rng.poisson(1.0, n).astype(float),
            "plan_tier": rng.choice(np.array(["free", "basic", "größer"], dtype=object), n),
            "country": rng.choice(np.array(["DE", "FR", "NA", "日本"], dtype=object), n),
            "last_login_hours": np.round(rng.exponential(60, n), 1),
        }
    )
    z = -frame.tenure_days / 800 + frame.support_tickets_30d / 2 + (frame.plan_tier == "free")
    churn = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(int)
    frame.loc[::9, "last_login_hours"] = np.nan
    frame.loc[::11, "country"] = np.nan
    return frame, churn
