//! Programs people copy: see `src/bin`.
