#!/usr/bin/env bash
# Measures fundus-seg on a GPU in one command of at most nine minutes; the results are text files in one folder:
#
#     bash benchmarks/gpu_session.sh OUT [WHEELS]
#
# It needs a machine with an H100 or H200, Python 3.12 or later, torch and Triton for CUDA, and no network. Packages that
# the machine lacks come as wheels in the folder WHEELS (`pip download --no-deps --only-binary=:all: --python-version
# 3.12 -d WHEELS NAME==VERSION ...`); on one that had torch, torchvision, lightning, timm, pandas and OpenCV those were
# albucore, albumentations, annotated-types, pydantic, pydantic-core, segmentation-models-pytorch, simsimd, stringzilla,
# typing-extensions and typing-inspection, 8 MB. Nothing is installed outside a temporary folder. Every part has its own
# time limit, and a part that fails does not stop the others. The environment variables SECONDS_IN_ALL (default 540) and
# PARTS (names of the parts below) change the whole time and the parts that run.
set -uo pipefail

out=$(mkdir -p "$1" && cd "$1" && pwd) || exit 1
wheels=${2:+$(cd "$2" && pwd)}
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
end=$((SECONDS + ${SECONDS_IN_ALL:-540}))
parts=${PARTS:-check operator ddf steps table grid tiles}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PYTHONUNBUFFERED=1 FUNDUS_SEG_CACHE=$scratch/cache TRITON_CACHE_DIR=$scratch/triton TMPDIR=$scratch
export PYTHONPATH=$scratch/site
summary=$out/summary.txt
: > "$summary"

# part NAME LIMIT COMMAND...: what the command prints goes into OUT/NAME.txt, how it ended into the summary.
part() {
    local name=$1 limit=$2 left=$((end - SECONDS)) began=$SECONDS code=0
    shift 2
    ((limit < left)) || limit=$left
    if ((limit < 10)); then
        echo "== $name: no time was left" | tee -a "$summary"
        return
    fi
    timeout --kill-after=5 "$limit" "$@" > "$out/$name.txt" 2>&1 || code=$?
    echo "== $name: exit code $code after $((SECONDS - began)) s (limit $limit s)" | tee -a "$summary"
    sed -n 's/^summary: /   /p' "$out/$name.txt" >> "$summary"
    ((code == 0)) || tail -n 12 "$out/$name.txt" | cut -c 1-300 | sed 's/^/   | /' >> "$summary"
}

setup() {
    nvidia-smi --query-gpu=name,memory.total,driver_version,clocks.sm,clocks.max.sm --format=csv,noheader
    echo "$(nproc) cores, $(awk '/MemTotal/ {printf "%.0f GB", $2 / 1e6}' /proc/meminfo) of memory"
    local quiet=(--quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$scratch/site")
    if [ -n "$wheels" ]; then python3 -m pip install "${quiet[@]}" "$wheels"/*.whl; fi
    mkdir -p "$scratch/tree" && cp -r setup.cfg pyproject.toml README.md LICENSE configs cli fundus_seg "$scratch/tree"
    python3 -m pip install "${quiet[@]}" --no-build-isolation "$scratch/tree" || return
    python3 - << 'EOF'
import os, platform, tempfile, time
began = time.perf_counter()
import torch, triton
import fundus_seg.experiments.work, fundus_seg.training  # noqa: F401
print(f"summary: {torch.cuda.get_device_name()}, torch {torch.__version__}, Triton {triton.__version__}, Python "
      f"{platform.python_version()}; imports {time.perf_counter() - began:.1f} s")
block = os.urandom(444_000_000)  # as last.ckpt of tvconv
times = []
for _ in range(3):
    with tempfile.NamedTemporaryFile() as file:
        began = time.perf_counter()
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
        times.append(time.perf_counter() - began)
print(f"summary: 444 MB written and flushed to the disk in {min(times):.2f} to {max(times):.2f} s")
EOF
}
export -f setup
export scratch wheels

part setup 150 bash -c setup
timeout 120 python3 benchmarks/gpu_table.py --prepare > "$scratch/prepare.txt" 2>&1 &
preparing=$!
for each in $parts; do
    if [[ $each == table || $each == grid* ]]; then wait "$preparing" || cat "$scratch/prepare.txt"; fi
    case $each in
        check) part check 100 python3 benchmarks/gpu_operator.py --part check --processes 14 ;;
        operator) part operator 60 python3 benchmarks/gpu_operator.py --part time ;;
        ddf) part ddf 80 python3 benchmarks/gpu_ddf.py --processes 14 ;;
        steps) part steps 110 python3 benchmarks/gpu_step.py ;;
        table) part table 110 python3 benchmarks/gpu_table.py ;;
        grid) part grid 150 python3 benchmarks/gpu_table.py --jobs 4 ;;
        grid-12) part grid-12 150 python3 benchmarks/gpu_table.py --jobs 12 --epochs 4 ;;
        tiles) part tiles 100 python3 benchmarks/gpu_operator.py --part tiles --rounds 10 --processes 14 ;;
        *) echo "no such part: $each" ;;
    esac
done
echo
cat "$summary"
