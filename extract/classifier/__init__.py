"""A classifier fitted on pooled features, where no network is trained.

`in_store` is the way through, `logistic` the fit, `decay` how strongly it is regularised.
"""
