"""Examples at the end of `--help`, by command."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "main": (
        "tailcache train --root photos --out runs/phase1",
        "tailcache extract --ckpt runs/phase1/checkpoint.pt --store feats.zarr",
        "tailcache finetune --store feats.zarr --out runs/fsa",
        "tailcache finetune --store feats.zarr --method crt --out runs/crt",
        "tailcache analyze runs/fsa runs/crt --out report",
    ),
    "train": (
        "tailcache train --root photos --arch resnet50 --weights DEFAULT",
        "tailcache train --dataset cifar10 --root data --imbalance-factor 100",
    ),
    "extract": (
        "tailcache extract --ckpt runs/phase1/checkpoint.pt --store feats.zarr",
        "tailcache extract --ckpt resnet50.pth --arch resnet50 --root photos --store feats.zarr",
        "tailcache extract --ckpt runs/phase1/checkpoint.pt --store feats.zarr --part 1/3",
    ),
    "finetune": (
        "tailcache finetune --store feats.zarr --out runs/fsa",
        "tailcache finetune --store feats.zarr --method crt --keep best --out runs/crt",
    ),
    "sweep": (
        "tailcache sweep --store feats.zarr --grid tau_s=0.5,0.7 --grid donors=any,head",
        "tailcache sweep --store feats.zarr --range lr=1e-4:1e-2:log --random 20",
    ),
    "contest": (
        "tailcache contest --store feats.zarr --out runs/contest",
        "tailcache contest --store seed0.zarr --store seed1.zarr --methods fsa,crt,mislas",
    ),
    "evaluate": ("tailcache evaluate --ckpt runs/fsa/checkpoint.pt --split val",),
    "analyze": (
        "tailcache analyze runs/fsa runs/crt --out report",
        "tailcache analyze runs/sweep --rank-by overall",
    ),
    "predict": (
        "tailcache predict --ckpt runs/fsa/checkpoint.pt photos/new --top 3 --out predictions.csv",
        "tailcache predict --ckpt runs/fsa/checkpoint.pt robin.jpg --cam maps",
    ),
    "export": (
        "tailcache export --ckpt runs/fsa/checkpoint.pt --out resnet50.pt",
        "tailcache export --ckpt runs/fsa/checkpoint.pt --format onnx --out resnet50.onnx",
    ),
    "demo": ("tailcache demo --out runs/demo",),
    "store": ("tailcache store info feats.zarr", "tailcache store verify feats.zarr"),
    "info": ("tailcache store info feats.zarr --json",),
    "verify": (
        "tailcache store verify feats.zarr",
        "tailcache store verify feats.zarr --sample 100 --ckpt runs/phase1/checkpoint.pt",
    ),
    "convert": ("tailcache store convert feats.zarr small.h5 --dtype int8 --codec zstd",),
    "join": ("tailcache store join feats.zarr",),
    "plan": (
        "tailcache store plan --root photos --arch resnet50",
        "tailcache store plan --ckpt runs/phase1/checkpoint.pt --dtype int8",
    ),
}
