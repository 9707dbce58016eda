//! Policy over any store, with one job for each wrapper; see the crate's documentation for the order of the standard
//! stack.

pub(crate) mod counted;
pub(crate) mod faulty;
pub(crate) mod hurry;
pub(crate) mod limited;
pub(crate) mod pace;
pub(crate) mod prefixed;
pub(crate) mod retry;
