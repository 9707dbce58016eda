//! S3 servers: [`S3Server`] in this process, quick and with conditional writes; [`Moto`] for the breadth of the API;
//! [`ForeignS3`] for servers in use that differ from S3.

mod foreign;
mod moto;
mod requests;
mod server;

pub use foreign::{ForeignS3, Program};
pub use moto::Moto;
pub use requests::RequestLog;
pub use server::{Credentials, S3Server, S3ServerBuilder, serve};
