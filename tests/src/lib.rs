//! Tests of memtrace on the live kernel.
