//! `operator run`: the reconcilers of Kubernetes resources.

use crate::args::OperatorCommand;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use holdfast_operator::run::RunError;
use holdfast_operator::{Options, run as operate};
use std::error::Error;
use tokio_util::sync::CancellationToken;

/// Runs until it is cancelled, or another operator takes over.
pub(crate) async fn run(command: OperatorCommand, cancellation: CancellationToken) -> Result<ExitCode, Failure> {
    let OperatorCommand::Run(args) = command;
    let options = Options {
        namespace: args.namespace,
        operator_image: args.operator_image,
        default_image: args.default_image,
        leader_elect: args.leader_elect,
        own_namespace: args.own_namespace,
        metrics_address: args.metrics_address,
        webhook_address: args.webhook_address,
        webhook_names: args.webhook_name,
        identity: identity(),
    };
    operate(options, cancellation).await.map(|()| ExitCode::Ok).map_err(|error| explain(&error))
}

/// The pod's name, if there is one; otherwise the host name and process id.
fn identity() -> String {
    std::env::var("POD_NAME")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("{}-{}", super::time::host(), std::process::id()))
}

fn explain(error: &RunError) -> Failure {
    let (code, hint) = match error {
        RunError::Config(_) => {
            (ExitCode::Configuration, "inside a pod, its service account is used; outside, set KUBECONFIG")
        }
        RunError::Client(_) => (ExitCode::Configuration, "check the certificates and the user in the KUBECONFIG"),
        RunError::Listen { .. } => {
            (ExitCode::Configuration, "name a free address with --metrics-address or --webhook-address")
        }
        RunError::LeaseLost => (
            ExitCode::Unreachable,
            "start it again: it waits until no other operator is in charge; the other operator continues its work",
        ),
        RunError::ControllerEnded => (ExitCode::Internal, "this is a fault in holdfast: please report it with the log"),
    };
    Failure::new(code, error.to_string()).caused_by(error.source()).hint(hint)
}
