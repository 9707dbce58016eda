//! The processes of the program `holdfast-kube` that live as long as the bed.

use std::net::SocketAddr;

use super::disk::Disk;
use super::layout::{HOST, Layout, S3_PORT};
use super::{client, names, storage};
use crate::error::Result;
use crate::s3::{Credentials, serve};

/// A part of the bed that is a process of the program `holdfast-kube`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resident {
    /// The DNS server, see `names/`.
    Names,
    /// The storage vendor, see `storage/`.
    Storage,
    /// The object store.
    S3,
}

impl Resident {
    /// All parts in the order of their start.
    pub const ALL: [Self; 3] = [Self::Names, Self::Storage, Self::S3];

    /// The name of the part, which is also the name of its log and of its control group.
    pub fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Storage => "storage",
            Self::S3 => "s3",
        }
    }

    /// Serves until the process is killed.
    pub async fn serve(self) -> Result<()> {
        let layout = Layout::find()?;
        match self {
            Self::Names => {
                let client = client::of_kubeconfig(&layout.kubeconfig("resident")).await?;
                names::serve(&client, SocketAddr::from((HOST, 53))).await
            }
            Self::Storage => {
                let client = client::of_kubeconfig(&layout.kubeconfig("resident")).await?;
                storage::serve(&client, Disk::at(layout.disk())).await;
                Ok(())
            }
            Self::S3 => {
                serve(SocketAddr::from((HOST, S3_PORT)), &layout.path("s3"), &Credentials::default(), None).await
            }
        }
    }
}
