//! Real servers and honest faults for the tests and the demo of Holdfast.
//!
//! Nothing here is a mock. [`postgres::Cluster`] is a PostgreSQL made by `initdb`, and [`s3::S3Server`] speaks S3 over
//! HTTP. [`proxy::TcpProxy`] and [`proxy::HttpFaults`] are between a client and such a server and make the network
//! slow, stop it, or lose requests. [`rows::RowWriter`] commits numbered rows while a backup runs, and its
//! [`rows::Journal`] knows which of them must exist after a restore to a given target.
//!
//! `scripts/provision` installs the servers, and writes their places into the cache ([`settings`]). A missing server is
//! a visible skip on a developer's machine and a failure in CI ([`postgres::Installation::or_skip`]).
//!
//! PostgreSQL refuses to run as root. So if the test runs as root, everything of a cluster belongs to another user
//! ([`user`]). Files that both sides need are in a [`scratch::Scratch`], and [`scratch::publish_binary`] makes a
//! program of the build folder runnable for that user.
//!
//! Every server, mount and folder ends with the value that owns it, also when a test panics. Servers in this process
//! run on threads of their own, so a test may block its own runtime without starving them.

pub mod background;
pub mod disk;
pub mod error;
pub mod kube;
pub mod postgres;
pub mod proxy;
pub mod random;
pub mod rows;
pub mod s3;
pub mod scratch;
pub mod settings;
pub mod user;

pub use error::{KitError, Result};
