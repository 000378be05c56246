#!/usr/bin/env bash
# Phase I's recipes on long-tailed CIFAR-10 with ResNet-32, and what Phase II makes of each: everything under "Recipes of
# Phase I" in docs/results.md.
# Usage: benchmarks/phase1.sh DATA [NAME...], a folder with train/<class>/* and test/<class>/*; all trainings unless some are named,
# but for those of options_of, as tried-mixup, which are candidates for the recipe `strong`, and short-20-100-0, which is `short` of 20 epochs.
# With FEATURES_ONLY=1 it ends after the store. Two cores: half a minute an epoch, so a day in all. Every part resumes where it was interrupted; finished parts are not repeated.
set -euo pipefail
data=${1:?usage: benchmarks/phase1.sh DATA [NAME...]}
shift
export PATH="$PWD/.venv/bin:$PATH"
runs=${RUNS:-runs/phase1}

one() {  # NAME, options of Phase I: a training, its store, and the contest of heads, chosen on validation images
  local folder=$runs/$1
  shift
  if [ ! -e $folder/feats.zarr ]; then
    if [ -e $folder/phase1/checkpoint.pt ]; then
      tailcache train --resume --out $folder/phase1
    else
      tailcache train --dataset imagefolder --root "$data" --arch resnet32 --val-per-class 100 --precision bf16 --eval-every 5 \
        --out $folder/phase1 "$@"
    fi
    tailcache extract --ckpt $folder/phase1/checkpoint.pt --store $folder/feats.zarr
  fi
  if [ -n "${FEATURES_ONLY:-}" ]; then
    return
  fi
  if [ ! -e $folder/phase1.json ]; then
    tailcache evaluate --ckpt $folder/phase1/checkpoint.pt --json > $folder/phase1.json.unfinished
    mv $folder/phase1.json.unfinished $folder/phase1.json
  fi
  try() {  # name of a sweep, its options
    local name=$1
    shift
    if [ ! -e $folder/$name/ranking.csv ]; then
      tailcache sweep --store $folder/feats.zarr --out $folder/$name --seeds 3 --overwrite --method "$@" > /dev/null
    fi
  }
  try fsa fsa --grid lr=0.0003,0.001,0.003 --grid tail_draw=classes,samples
  try no-aug no-aug --grid lr=0.0003,0.001,0.003 --grid tail_draw=classes,samples
  try crt crt --grid lr=0.01,0.1 --grid weight_decay=0.0005,0.005,0.01
  try tau-norm tau-norm --grid tau=0.5,0.75,1,1.25,1.5,1.75,2,2.5
  try logit-adjustment logit-adjustment --grid tau=0.5,0.75,1,1.25,1.5,1.75,2,2.5
  try balanced-softmax balanced-softmax --grid tau=1,1.25,1.5,2 --grid lr=0.001,0.01 --grid weight_decay=0.0005,0.01
  try fsa+balanced-softmax fsa --loss balanced-softmax --grid tau=1,1.25,1.5 --grid lr=0.0003,0.001 --grid weight_decay=0.0005,0.01
}

options_of() {  # of a candidate for the recipe `strong`, whatever that holds today
  case $1 in
    autoaugment) echo --augment autoaugment --cutout 16 --mixup 0 ;;
    mixup) echo --augment none --cutout 0 --mixup 1 ;;
    autoaugment-mixup) echo --augment autoaugment --cutout 16 --mixup 1 ;;
    autoaugment-balanced-softmax) echo --augment autoaugment --cutout 16 --mixup 0 --loss balanced-softmax ;;
    autoaugment-64) echo --augment autoaugment --cutout 16 --mixup 0 --batch-size 64 --lr-batch-size 64 ;;
    mixup-64) echo --augment none --cutout 0 --mixup 1 --batch-size 64 --lr-batch-size 64 ;;
    *) echo "unknown training: tried-$1" >&2; exit 2 ;;
  esac
}

all=(short-100-0 strong-100-0 short-100-1 strong-100-1 short-100-2 strong-100-2 short-10-0 strong-10-0 strong-200-100-0 \
  subset-1 subset-2)
for name in "${@:-${all[@]}}"; do
  case $name in
    tried-*)
      options=$(options_of "${name#tried-}")
      one $name --recipe strong --imbalance-factor 100 $options ;;
    short-20-*-*)
      seed=${name##*-} rest=${name%-*}
      one $name --recipe short --epochs 20 --imbalance-factor ${rest##*-} --seed $seed ;;
    subset-*) one $name --recipe short --imbalance-factor 100 --subset-seed ${name#subset-} ;;
    *) seed=${name##*-} rest=${name%-*}
       one $name --recipe ${rest%-*} --imbalance-factor ${rest##*-} --seed $seed ;;
  esac
done
if [ -z "${FEATURES_ONLY:-}" ]; then
  python benchmarks/phase1_table.py $runs
fi
