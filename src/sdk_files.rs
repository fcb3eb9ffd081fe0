//! The two files an unmodified W&B SDK reads.
