//! Policy over any store, one job a wrapper.

pub(crate) mod retry;
