#!/bin/sh
# Writes the goldens of XGBoost and LightGBM: boosters.sh PYTHON3.11 PYTHON3.13 VENVS
# Each version of a library gets an environment below VENVS. Packages come without their
# dependencies, which would bring GPU libraries.
set -eu
old=$1 new=$2 venvs=$3
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
some="logistic softmax-ubj dart dart-ubj gblinear forest-rounds stopped vector vector-ubj category-partition category-names category-names-ubj"

# environment NAME PYTHON PACKAGES...
environment() {
	name=$1 python=$2
	shift 2
	[ -d "$venvs/$name" ] || "$python" -m venv "$venvs/$name"
	"$venvs/$name/bin/pip" install -q --disable-pip-version-check --no-deps "$@"
}

older="numpy==1.26.4 scipy==1.11.4 pandas==2.1.4 python-dateutil==2.9.0.post0 pytz==2024.1 six==1.16.0 scikit-learn==1.2.2 joblib==1.3.2 threadpoolctl==3.2.0"
newer="numpy==2.3.5 scipy==1.16.3 pandas==2.3.3 python-dateutil==2.9.0.post0 pytz==2024.1 tzdata==2024.1 six==1.16.0 narwhals==2.29.0"
# shellcheck disable=SC2086 # lists of words
{
	environment xgboost-1.7 "$old" $older xgboost==1.7.6
	environment xgboost-2.1 "$old" $newer xgboost==2.1.4
	environment xgboost-3.0 "$old" $newer xgboost==3.0.5
	environment xgboost-3.1 "$old" $newer xgboost==3.1.3
	environment xgboost-3.2 "$old" $newer xgboost==3.2.0
	environment xgboost-3.3 "$new" $newer xgboost==3.3.0
	environment xgboost-3.4 "$new" $newer xgboost==3.4.1
	environment lightgbm-3.3 "$old" $older lightgbm==3.3.5
	environment lightgbm-4.7 "$new" $newer lightgbm==4.7.0
}
for version in 1.7 2.1 3.4; do
	"$venvs/xgboost-$version/bin/python" "$here/boosters.py" xgboost "$root/scoring/xgboost/testdata"
done
for version in 3.0 3.1 3.2 3.3; do
	# shellcheck disable=SC2086
	"$venvs/xgboost-$version/bin/python" "$here/boosters.py" xgboost "$root/scoring/xgboost/testdata" --only $some
done
for version in 3.3 4.7; do
	"$venvs/lightgbm-$version/bin/python" "$here/boosters.py" lightgbm "$root/scoring/lightgbm/testdata"
done
