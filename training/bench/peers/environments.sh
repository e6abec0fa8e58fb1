#!/usr/bin/env bash
# Makes a virtual environment for each other library that training/bench/sae_step.py can measure:
#   training/bench/peers/environments.sh FOLDER      (some minutes, about 6 GB)
set -euo pipefail
mkdir -p "${1:?say where}"
cd "$1"
printf 'torch==2.13.0\nmatplotlib<3.9\n' > constraints.txt

make_environment() {  # NAME PACKAGE…
  python3 -m venv "v_$1"
  "v_$1/bin/pip" install -q -c constraints.txt torch numpy "${@:2}"
}

make_environment eai eai-sparsify==1.3.3
make_environment saelens sae-lens==6.54.12
# what these two need for their data or plots only is left out
make_environment dl einops tqdm
v_dl/bin/pip install -q --no-deps dictionary-learning==0.1.0
make_environment over einops tqdm scipy 'scikit-learn<2' scikit-image pillow matplotlib
v_over/bin/pip install -q --no-deps overcomplete==0.3.0
