"""What `extract/train.py` needs: recipes, resuming, states within an epoch, the hint about mirrors."""
