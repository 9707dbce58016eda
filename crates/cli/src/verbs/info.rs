//! `info`: what the archive of the cluster is worth now, for the person who has to restore it.
use super::Context;
use crate::exit_code::ExitCode;
use crate::failure::Failure;

pub(super) async fn run(context: &Context) -> Result<ExitCode, Failure> {
    super::list::run(context).await
}
