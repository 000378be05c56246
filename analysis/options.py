"""Options of Phase II that tell runs apart without making them different configurations."""

PLACES = {"store", "out", "ckpt", "cache", "cache_gib"}
WAYS = {"device", "residency", "memory", "window", "prefetch", "tensorboard", "resume", "overwrite"}
NOT_CONFIGURATION = PLACES | WAYS | {"seed", "shot_rule"}
