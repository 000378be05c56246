#!/usr/bin/env bash
# Long-tailed CIFAR-10 at imbalance 100, ResNet-18 of width 16: everything that docs/results.md tells.
# Usage: benchmarks/cifar10_lt.sh DATA, a folder with train/<class>/* and test/<class>/*.
# One core: about twenty minutes for each of the two Phase I trainings, a few minutes for everything else.
set -euo pipefail
data=${1:?usage: benchmarks/cifar10_lt.sh DATA}
export PATH="$PWD/.venv/bin:$PATH"
runs=runs/cifar
phase1=(--dataset imagefolder --root "$data" --imbalance-factor 100 --arch resnet18-cifar --width 16 --precision bf16)

# 1. Defaults: chosen on 100 validation images a class that this Phase I never sees.
tailcache train "${phase1[@]}" --val-per-class 100 --out $runs/phase1-val
tailcache extract --ckpt $runs/phase1-val/checkpoint.pt --store $runs/val.zarr --precision bf16
for seed in 0 1 2; do
  for tau_s in 0.3 0.5 0.7 0.9; do
    for tau_g in 0.1 0.3 0.5; do
      for draw in samples classes; do
        tailcache finetune --store $runs/val.zarr --out $runs/val/$tau_s-$tau_g-$draw-$seed \
          --tau-s $tau_s --tau-g $tau_g --tail-draw $draw --seed $seed
      done
    done
  done
done
python benchmarks/validation_table.py $runs/val/*

# 2. Results: Phase I on the whole long-tailed training set, three seeds of Phase II.
tailcache train "${phase1[@]}" --out $runs/phase1
tailcache extract --ckpt $runs/phase1/checkpoint.pt --store $runs/feats.zarr --precision bf16
for seed in 0 1 2; do
  tailcache finetune --store $runs/feats.zarr --out $runs/fsa-$seed --seed $seed
  tailcache finetune --store $runs/feats.zarr --out $runs/no-aug-$seed --seed $seed --method no-aug
  tailcache finetune --store $runs/feats.zarr --out $runs/plain-$seed --seed $seed --method plain
  for method in fsa no-aug; do  # the paper's literal draw, uniform over tail samples
    tailcache finetune --store $runs/feats.zarr --out $runs/$method-samples-$seed --seed $seed \
      --method $method --tail-draw samples
  done
done
tailcache analyze $runs/{fsa,no-aug,plain}-{0,1,2} --out $runs/report
tailcache analyze $runs/{fsa,no-aug}-samples-{0,1,2} --out $runs/report-samples
tailcache evaluate --ckpt $runs/fsa-0/checkpoint.pt --precision bf16
