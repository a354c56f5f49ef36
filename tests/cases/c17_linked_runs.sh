#!/bin/sh
# Two runs below one folder; that of holdout A has been moved to another disk and linked back.
# Usage: c17_linked_runs.sh OUT   (fundus-seg on PATH)
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
python -c "import sys; sys.path.insert(0, '$here'); from common import *; classic_root(Path('$1/root'))"
for holdout in A B; do fundus-seg train --config tiny --set train.epochs=1 --holdout $holdout --data "$1/root" --out "$1/runs" 2>/dev/null; done
mkdir -p "$1/other_disk"
mv "$1/runs/tiny/A" "$1/other_disk/A"
ln -s "$(cd "$1" && pwd)/other_disk/A" "$1/runs/tiny/A"
fundus-seg evaluate "$1/runs" --metrics dsc
