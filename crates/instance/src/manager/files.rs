//! Generated files: PostgreSQL's settings and access rules, certificates, and Holdfast's configuration.

use super::Manager;
use crate::bootstrap::owner;
use crate::error::{Error, Result};
use crate::settings::archive_toml::{self, Archive};
use crate::settings::wire::Wire;
use crate::settings::{access, auto_conf, postgresql};
use crate::tls;
use crate::volume::{protect, write_durably, write_if_changed};
use holdfast_kube_api::Cluster;
use holdfast_kube_api::cluster::BarmanObjectStore;
use std::path::Path;

impl Manager {
    /// Creates the folders of generated files.
    ///
    /// # Errors
    /// When they cannot be created.
    pub(super) fn make_folders(&self) -> Result<()> {
        tls::make_private(&self.context.paths.sockets)?;
        tls::make_private(&self.context.paths.tls())
    }

    /// Writes Holdfast's configuration for the cluster's own archive, or removes it if there is no archive.
    ///
    /// # Errors
    /// When a Secret cannot be read or a file cannot be written.
    pub(super) async fn write_archive_config(&self, cluster: &Cluster) -> Result<()> {
        let path = self.context.paths.archive_config();
        let store = cluster.spec.backup.as_ref().and_then(|backup| backup.barman_object_store.as_ref());
        let Some(store) = store else {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", &path, &error)),
                _ => Ok(()),
            };
        };
        let owner = owner(&self.context.identity, cluster);
        self.write_holdfast_config(store, &self.context.identity.cluster, Some(&owner), &path).await
    }

    /// Writes Holdfast's configuration for an archive.
    ///
    /// # Errors
    /// When a Secret cannot be read or a file cannot be written.
    pub(super) async fn write_holdfast_config(
        &self,
        store: &BarmanObjectStore,
        name: &str,
        owner: Option<&str>,
        path: &Path,
    ) -> Result<()> {
        let material =
            self.secrets.material(store).await.map_err(|error| error.doing("reading the archive's Secrets"))?;
        let connection = format!(
            "host={} port={} user=postgres dbname=postgres",
            self.context.paths.sockets.display(),
            self.context.paths.port
        );
        let archive = Archive {
            store,
            material: &material,
            name,
            owner,
            instance: &self.context.identity.instance,
            config: path,
            pgdata: &self.context.paths.pgdata,
            connection: &connection,
            spool: &self.context.paths.spool(),
        };
        for (path, content) in archive_toml::files(&archive) {
            write_if_changed(&path, content.expose(), 0o600)?;
        }
        let spool = self.context.paths.spool();
        std::fs::create_dir_all(&spool).map_err(|error| Error::file("create", &spool, &error))
    }

    /// Updates the files that the server reads; returns whether it has to reload.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn write_server_files(&self, cluster: &Cluster) -> Result<bool> {
        let pgdata = &self.context.paths.pgdata;
        let user = self.operating_user.as_deref();
        let wire = Wire::choose(self.programs.has_tls(), &self.context.paths)?;
        let files = [
            (
                "postgresql.conf",
                postgresql::text(&cluster.spec, &self.context.identity.instance, &self.context.paths, &wire),
            ),
            ("pg_hba.conf", access::hba(&cluster.spec, user, &wire)),
            ("pg_ident.conf", access::ident(&cluster.spec, user)),
        ];
        protect(pgdata)?;
        let mut changed = tls::copy(&self.context.paths)?;
        for (name, text) in files {
            changed |= write_if_changed(&pgdata.join(name), text.as_bytes(), 0o600)?;
        }
        Ok(changed)
    }

    /// Before a start outside of a bootstrap: removes the manager's settings from `postgresql.auto.conf`.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(super) fn clean_auto_conf(&self) -> Result<()> {
        let path = self.context.paths.pgdata.join("postgresql.auto.conf");
        let found = match std::fs::read(&path) {
            Ok(found) => String::from_utf8_lossy(&found).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("read", &path, &error)),
        };
        let kept = auto_conf::without_owned(&found);
        if kept == found { Ok(()) } else { write_durably(&path, kept.as_bytes(), 0o600) }
    }
}
