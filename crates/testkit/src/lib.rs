//! Real servers and honest faults for the tests and the demo of Holdfast.
//!
//! Nothing here pretends: [`postgres::Cluster`] is a PostgreSQL made by `initdb`, [`s3::S3Server`] speaks S3 over
//! HTTP, [`proxy::TcpProxy`] and [`proxy::HttpFaults`] stand between a client and such a server and make the network
//! slow, deaf or forgetful. [`rows::RowWriter`] commits numbered rows while a backup runs, and its
//! [`rows::Journal`] says which of them a restore to a given target has to hold.
//!
//! The servers come from `scripts/provision`, which writes where they are into the cache ([`settings`]). A server that
//! is missing is a visible skip on a developer's machine and a failure in CI ([`postgres::Installation::or_skip`]).
//!
//! PostgreSQL refuses to run as root, so as root everything of a cluster belongs to another user ([`user`]); files
//! which both sides need lie in a [`scratch::Scratch`], and [`scratch::publish_binary`] makes a program of the build
//! folder runnable for that user.
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
