//! Counters that /metrics shows and tests read.
