//! PostgreSQL of every supported major, made, started, broken and stopped by a test.
//!
//! [`Installation`] is where the programs of a major are, [`Cluster`] is a data directory with a server over it. A
//! cluster is made by [`Cluster::builder`], taken over after a restore by [`Cluster::adopt`], or copied from a primary
//! by [`Cluster::standby_of`]. Its server listens on a Unix socket in its own folder and on a free TCP port.

mod cluster;
mod installation;
mod process;
mod standby;

pub(crate) use cluster::free_port;
pub use cluster::{Cluster, ClusterBuilder, Shutdown};
pub use installation::{Installation, MAJORS};
