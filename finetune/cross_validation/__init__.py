"""`--select-on cv`: what heads score on training images that were held out, fold by fold.

Start at `folds`, which makes them; `fold` and `fold_store` are what a head sees of one, and `scores` adds up
what it got right. Every fold has an FC layer of its own, fitted to the rows of all others, and class
activation maps of that, so that nothing which a head is trained on knows the held-out images. This is so only
where the backbone never saw them either: other stores are refused (`allowed`).
"""
