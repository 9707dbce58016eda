//! The operator with a simulated API server, from its election on, in stories of given, then, expect. The same stories
//! run with every fault at every point: killed, refused, disconnected, slow, out of date.
//!
//! - [`world`]: the API server
//! - [`kubelet`] and [`instances`]: the other actors in a cluster
//! - [`port`]: the status ports
//! - [`transport`]: counts requests and makes faults
//! - [`fragile`]: the lock on all of these
//! - [`keeping`]: the real keeper of the Lease in each instance
//! - [`keepers`]: two of them alone, in every order of events
//! - [`refusals`]: requests that are refused for good
//! - [`repairs`]: other owners, other operators, repairs by the manifest
//! - [`stage`]: one run, [`stories`]: the scenarios, [`faults`]: the sweeps over them
//!
//! The rule of the sweeps: after any fault, the same objects exist in the end as without it, nothing was made twice,
//! there were never two writers, and the operator comes to rest.

#![expect(clippy::panic, reason = "a test stops at what it did not expect")]

mod faults;
mod fragile;
mod instances;
mod keepers;
mod keeping;
mod kubelet;
mod normal;
mod port;
mod refusals;
mod repairs;
mod stage;
mod stories;
mod transport;
mod world;
