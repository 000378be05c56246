#!/usr/bin/env bash
# Which setting of FSA is the best on many stores at once: "Where the defaults of FSA come from" in docs/methods.md.
# Usage: benchmarks/fsa_settings.sh KIND=NAME[,NAME]..., kinds of features, which count once each, and trainings whose stores
# benchmarks/contests.sh made.
# Five minutes a store on one core, a quarter of an hour where maps have 1,280 channels.
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="$PWD"
: "${1:?usage: benchmarks/fsa_settings.sh KIND=NAME[,NAME]...}"
runs=${RUNS:-runs/phase1}
out=${OUT:-runs/fsa-settings}
rates="--grid lr=0.0003,0.001,0.01"
decays="--grid weight_decay=0,0.0005,0.005,0.01"
positions="--grid tau_s=0.3,0.7 --grid tau_g=0.1,0.3 --grid gamma_max=0.5,1"

for kind in "$@"; do
  for name in $(tr , ' ' <<< "${kind#*=}"); do
    folder=$out/${kind%%=*}/$name
    try() {  # name of a sweep, its options
      if [ ! -e $folder/"$1"/ranking.csv ]; then
        tailcache sweep --store $runs/$name/feats.zarr --out $folder/"$1" --seeds 2 --overwrite --method fsa "${@:2}" > /dev/null
      fi
    }
    try halves $rates $decays --grid head_ratio=0.8,0.9 --grid tail_draw=classes,samples
    try balanced --sampling balanced $rates $decays
    try halves+balanced-softmax --loss balanced-softmax $rates $decays --grid tau=1,1.25,1.5
    try uniform+balanced-softmax --sampling uniform --loss balanced-softmax $rates $decays --grid tau=1,1.25,1.5
    # Around the best of these: which positions are fused, in which share, of which classes.
    uniform="--sampling uniform --loss balanced-softmax --tau 1.25 --lr 0.001 --weight-decay 0.01"
    try halves,positions --lr 0.0003 --weight-decay 0.01 $positions
    try uniform,positions $uniform $positions
    try uniform,rows $uniform --grid mix_share=0.25,0.5,1 --grid head_ratio=0.8,0.9,0.95
    corrected="--grid tau=1,1.25,1.5 --grid lr=0.001,0.01 --grid weight_decay=0.005,0.01"
    try uniform,fewer --sampling uniform --loss balanced-softmax --grid mix_share=0.1,0.25 --grid head_ratio=0.8,0.9 $corrected
    try real --method balanced-softmax $corrected  # to compare with
  done
done
python benchmarks/fsa_settings.py $out
