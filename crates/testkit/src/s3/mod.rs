//! S3 servers: [`S3Server`] in this process, quick and with conditional writes; [`Moto`] for the breadth of the API.

mod moto;
mod server;

pub use moto::Moto;
pub use server::{Credentials, S3Server, S3ServerBuilder, serve};
