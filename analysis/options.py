"""Options of Phase II that may differ between runs of one configuration."""

HEAD_RATIO = 0.8  # default share of training images in the head classes
PLACES = {"store", "out", "ckpt", "cache", "cache_gib"}
WAYS = {"device", "residency", "memory", "window", "prefetch", "tensorboard", "resume", "overwrite"}
NOT_CONFIGURATION = PLACES | WAYS | {"seed", "shot_rule"}
