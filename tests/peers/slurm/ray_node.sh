#!/bin/bash
# One node of a Ray cluster under `srun`: the first rank has the head and the driver, the other one joins.
#   ray_node.sh PYTHON PORT OUT DRIVER
set -eu
python=$1 port=$2 out=$3 driver=$4
ray() { "$python" -c 'from ray.scripts.scripts import main; main()' "$@"; }
common=(--node-ip-address=127.0.0.1 --num-cpus=2 --disable-usage-stats --object-store-memory=80000000)
cd "$out"
if [ "$SLURM_PROCID" = 0 ]; then
    ray start --head --port="$port" --include-dashboard=false "${common[@]}"
    touch "$out/head"
    "$python" "$driver" "127.0.0.1:$port" "$out" || touch "$out/failed"
    touch "$out/done"
else
    until [ -e "$out/head" ]; do sleep 0.2; done
    ray start --address="127.0.0.1:$port" "${common[@]}"
    until [ -e "$out/done" ]; do sleep 0.2; done
fi
ray stop --force >/dev/null 2>&1 || true
[ ! -e "$out/failed" ]
