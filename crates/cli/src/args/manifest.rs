//! `holdfast manifest`

use clap::Subcommand;
use std::path::PathBuf;

/// `holdfast manifest`
#[derive(Clone, Debug, Subcommand)]
pub enum ManifestCommand {
    /// Check manifests of Cluster, Backup and ScheduledBackup before they are applied, CloudNativePG's included
    Check {
        /// YAML or JSON files with any number of documents; - for standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print the manifests with every clear mistake corrected: apiVersion, keys written twice, fields in the wrong
        /// place. The findings go to stderr; comments are lost
        #[arg(long)]
        fix: bool,
    },
    /// Print the CustomResourceDefinitions; for `holdfast manifest crds | kubectl apply -f -`
    Crds,
}
