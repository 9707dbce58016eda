//! Tables: one valid cluster, one thing changed, what is done.
