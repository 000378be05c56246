#!/usr/bin/env bash
# Long-tailed CIFAR-10 at imbalance 100, ResNet-18 of width 16: everything in docs/results.md.
# Usage: benchmarks/cifar10_lt.sh DATA, a folder with train/<class>/* and test/<class>/*.
# One core: about half an hour for each of the two Phase I trainings, a few minutes for everything else.
set -euo pipefail
data=${1:?usage: benchmarks/cifar10_lt.sh DATA}
export PATH="$PWD/.venv/bin:$PATH"
runs=runs/cifar
phase1=(--dataset imagefolder --root "$data" --imbalance-factor 100 --arch resnet18-cifar --width 16)

# 1. Defaults, chosen on 100 validation images per class that this Phase I never sees.
if [ ! -e $runs/val.zarr ]; then
  tailcache train "${phase1[@]}" --val-per-class 100 --out $runs/phase1-val
  tailcache extract --ckpt $runs/phase1-val/checkpoint.pt --store $runs/val.zarr
fi
tailcache sweep --store $runs/val.zarr --out $runs/sweep --seeds 3 --overwrite --method fsa \
  --grid tau_s=0.3,0.5,0.7,0.9 --grid tau_g=0.1,0.3,0.5 --grid tail_draw=samples,classes

# 2. Results: Phase I on the whole long-tailed training set, three seeds of Phase II.
if [ ! -e $runs/feats.zarr ]; then
  tailcache train "${phase1[@]}" --out $runs/phase1
  tailcache extract --ckpt $runs/phase1/checkpoint.pt --store $runs/feats.zarr
fi
for seed in 0 1 2; do
  tailcache finetune --store $runs/feats.zarr --method fsa --out $runs/fsa-$seed --seed $seed --overwrite
  tailcache finetune --store $runs/feats.zarr --out $runs/no-aug-$seed --seed $seed --method no-aug --overwrite
  tailcache finetune --store $runs/feats.zarr --out $runs/plain-$seed --seed $seed --method plain --overwrite
  for method in fsa no-aug; do  # the paper's literal draw, uniform over tail samples
    tailcache finetune --store $runs/feats.zarr --out $runs/$method-samples-$seed --seed $seed \
      --method $method --tail-draw samples --overwrite
  done
done
tailcache analyze $runs/{fsa,no-aug,plain}-{0,1,2} --out $runs/report
tailcache analyze $runs/{fsa,no-aug}-samples-{0,1,2} --out $runs/report-samples
tailcache evaluate --ckpt $runs/fsa-0/checkpoint.pt
