#!/bin/sh
# Writes the goldens of CatBoost: catboosts.sh PYTHON3.9 PYTHON3.11 VENVS
set -eu
old=$1 new=$2 venvs=$3
here=$(cd "$(dirname "$0")" && pwd)

# environment NAME PYTHON PACKAGES...
environment() {
	name=$1 python=$2
	shift 2
	[ -d "$venvs/$name" ] || "$python" -m venv "$venvs/$name"
	"$venvs/$name/bin/pip" install -q --disable-pip-version-check "$@"
	"$venvs/$name/bin/python" "$here/catboosts.py" "$here/../../scoring/catboost/testdata"
}

environment catboost-1.0 "$old" numpy==1.22.4 scipy==1.8.1 pandas==1.4.4 catboost==1.0.6
environment catboost-1.2 "$new" numpy==2.4.6 scipy==1.17.1 pandas==3.1.1 catboost==1.2.10
