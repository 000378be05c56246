#!/usr/bin/env bash
# Fused samples, swapped channels and real rows in batches of each sampling, on features that benchmarks/phase1.sh made:
# "Fused samples and swapped channels in other batches" in docs/methods.md.
# Usage: benchmarks/batches.sh [NAME...], trainings in ${RUNS:-runs/phase1}. Every method has the same number of learning rates
# and weight decays, but for those computed in one pass. One to two minutes a training on two cores.
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="$PWD"
runs=${RUNS:-runs/phase1}
decays="--grid weight_decay=0.0005,0.005,0.01"
rates="--grid lr=0.0003,0.001,0.01"
taus="--grid tau=1,1.25,1.5"

[ $# -gt 0 ] || set -- short-100-{0,1,2} strong-100-{0,1,2}
for training in "$@"; do
  try() {  # name of a sweep, its options
    tailcache sweep --store $runs/$training/feats.zarr --out $runs/$training/batches/"$1" --seeds 3 --overwrite --method "${@:2}" > /dev/null
  }
  try fsa fsa $rates $decays
  try fsa-balanced fsa --sampling balanced $rates $decays
  try crt crt --grid lr=0.001,0.02,0.1 $decays
  try h2t h2t --grid lr=0.001,0.02,0.1 $decays --grid rho=0.1,0.25,0.4
  try lda lda --grid shrinkage=0,0.01,0.1,0.3,0.6,1
  try multiplicative-adjustment multiplicative-adjustment --grid tau=0.1,0.15,0.2,0.25,0.3,0.5,1
  try fsa+balanced-softmax fsa --loss balanced-softmax $taus $rates $decays
  try fsa-uniform+balanced-softmax fsa --sampling uniform --loss balanced-softmax $taus $rates $decays
  try balanced-softmax balanced-softmax $taus $rates $decays
done
python benchmarks/batches_table.py $runs "$@"
