"""Options of Phase II that tell runs apart without making them different configurations."""

HEAD_RATIO = 0.8  # share of the training images in the head classes, where nothing else is asked
PLACES = {"store", "out", "ckpt", "cache", "cache_gib"}
WAYS = {"device", "residency", "memory", "window", "prefetch", "tensorboard", "resume", "overwrite"}
NOT_CONFIGURATION = PLACES | WAYS | {"seed", "shot_rule"}
