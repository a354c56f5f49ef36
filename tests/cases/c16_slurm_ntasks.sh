#!/bin/sh
# A job script with "#SBATCH --ntasks=4": SLURM sets these three variables; nothing else of SLURM is needed to see it.
# Usage: c16_slurm_ntasks.sh OUT   (fundus-seg on PATH)
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
python -c "import sys; sys.path.insert(0, '$here'); from common import *; classic_root(Path('$1/root'))"
SLURM_JOB_ID=1 SLURM_JOB_NAME=train.sh SLURM_NTASKS=4 fundus-seg train --config tiny --set train.epochs=1 --holdout A --data "$1/root" --out "$1/runs"
