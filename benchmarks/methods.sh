#!/usr/bin/env bash
# Every method of Phase II on long-tailed CIFAR-10, imbalance 100 and 10: everything in docs/methods.md.
# Usage: benchmarks/methods.sh DATA, a folder with train/<class>/* and test/<class>/*.
# Two cores: about an hour for the two trainings, a quarter of an hour for all sweeps. Finished parts are not repeated.
set -euo pipefail
data=${1:?usage: benchmarks/methods.sh DATA}
export PATH="$PWD/.venv/bin:$PATH"
runs=runs/methods

for imbalance in 100 10; do
  folder=$runs/im$imbalance
  # Phase I leaves out 100 validation images per class; everything below is chosen on them.
  if [ ! -e $folder/feats.zarr ]; then
    tailcache train --dataset imagefolder --root "$data" --imbalance-factor $imbalance --val-per-class 100 \
      --arch resnet18-cifar --width 16 --out $folder/phase1
    tailcache extract --ckpt $folder/phase1/checkpoint.pt --store $folder/feats.zarr
  fi

  try() {  # name of a sweep, its options
    local name=$1
    shift
    if [ ! -e $folder/$name/ranking.csv ]; then
      tailcache sweep --store $folder/feats.zarr --out $folder/$name --seeds 5 --overwrite "$@" > /dev/null
    fi
  }
  try plain --method plain --grid lr=0.0003,0.001,0.003
  try no-aug --method no-aug --grid lr=0.0003,0.001,0.003 --grid tail_draw=classes,samples
  try fsa --method fsa --grid lr=0.0003,0.001,0.003 --grid tail_draw=classes,samples
  try crt --method crt --grid lr=0.001,0.01,0.1,0.2 --grid weight_decay=0,0.0005,0.005
  try lws --method lws --grid lr=0.001,0.01,0.1,0.3
  try tau-norm --method tau-norm --grid tau=0.5,0.75,1,1.25,1.5,1.75,2,2.5,3
  try ncm --method ncm --grid distance=euclidean,cosine
  try logit-adjustment --method logit-adjustment --grid tau=0.25,0.5,0.75,1,1.25,1.5,1.75,2,2.5
  try balanced-softmax --method balanced-softmax --grid tau=1,1.5,2 --grid lr=0.001,0.003,0.01 \
    --grid weight_decay=0,0.0005
  try class-balanced --method class-balanced --grid beta=0.99,0.999,0.9999 --grid lr=0.001,0.003,0.01
  try focal --method focal --grid focal_gamma=0.5,1,2 --grid lr=0.0003,0.001,0.003
  try weight-balancing --method weight-balancing --grid lr=0.001,0.01,0.1 --grid weight_decay=0.005,0.05,0.1
  try weight-balancing+former --method weight-balancing --loss class-balanced --max-norm-every step \
    --grid lr=0.001,0.01,0.1 --grid weight_decay=0.0005,0.005,0.05 --grid max_norm=0.3,1,2
  try fsa+balanced-softmax --method fsa --loss balanced-softmax --grid tau=1,1.25,1.5,2 \
    --grid lr=0.0001,0.0003,0.001 --grid gamma_max=0.5,1 --grid tail_draw=classes,samples
  try defaults --method fsa --grid tau_s=0.3,0.7 --grid tau_g=0.1,0.3 --grid head_ratio=0.8,0.9,0.95 \
    --grid tail_draw=classes,samples --seeds 3
done
python benchmarks/methods_table.py $runs
