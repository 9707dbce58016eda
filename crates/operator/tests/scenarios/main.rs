//! The operator against an API server that is played, from its election on, in stories of given, then, expect; and the
//! same stories with every fault at every point: killed, refused, cut off, slow, behind.
//!
//! - [`world`]: the API server, [`kubelet`] and [`instances`]: who else acts in a cluster, [`port`]: the status ports
//! - [`transport`]: where requests are counted and go wrong
//! - [`keepers`]: the instances' real keepers of the Lease against the same API server
//! - [`stage`]: one run, [`stories`]: the scenarios, [`faults`]: the sweeps over them
//!
//! The rule of the sweeps: whatever went wrong, the same objects stand in the end as without it, nothing was made twice,
//! there were never two writers, and the operator comes to rest.

#![expect(clippy::panic, reason = "a test stops at what it did not expect")]

mod faults;
mod instances;
mod keepers;
mod kubelet;
mod normal;
mod port;
mod stage;
mod stories;
mod transport;
mod world;
