"""The write protocol of a store that is not complete yet, on a disk and in a bucket. Start at `lifecycle`."""
