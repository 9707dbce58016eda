//! While PostgreSQL runs in its role: keeps settings, slots, passwords and the archive's state up to date.

use super::Manager;
use super::run::Memory;
use crate::archive;
use crate::bootstrap::roles::{self, Application};
use crate::error::Result;
use crate::postgres::Sql;
use crate::server_facts;
use crate::settings::wire::Wire;
use holdfast_kube_api::status_port::Role;
use holdfast_kube_api::{Cluster, names};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The time between two reads of Secrets, which change without the Cluster.
const SECRETS_EVERY: Duration = Duration::from_secs(30);
/// Prefix of the slots that the manager owns.
const SLOT_PREFIX: &str = "_holdfast_";

impl Manager {
    /// One round.
    ///
    /// # Errors
    /// About what could not be done; everything else was done nevertheless.
    pub(super) async fn keep(&self, cluster: &Cluster, memory: &mut Memory) -> Result<()> {
        let Some(facts) = self.context.state.facts() else { return Ok(()) };
        let generation = cluster.metadata.generation;
        let due = memory.secrets_read.is_none_or(|at| at.elapsed() > SECRETS_EVERY);
        let mut result = Ok(());
        if due || memory.applied != generation {
            memory.secrets_read = Some(Instant::now());
            result = self.write_archive_config(cluster).await;
            if self.write_server_files(cluster)?
                && let Some(served) = self.context.state.server()
            {
                tracing::info!("settings changed: reloading PostgreSQL's configuration");
                served.postmaster.reload();
            }
            // First reads which settings wait for a restart, then that this generation's settings have been read.
            server_facts::refresh(&self.context).await;
            memory.applied = generation;
            self.context.state.set_applied(generation);
            if facts.role == Role::Primary {
                result = result.and(self.passwords(cluster, memory).await);
            }
        }
        result = result.and(self.slots(cluster, facts.role).await);
        self.context.state.set_archive(Some(archive::status(&self.context).await));
        result
    }

    /// Keeps a slot for each other instance on the primary, and none on a standby, where they would keep WAL for ever.
    async fn slots(&self, cluster: &Cluster, role: Role) -> Result<()> {
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        if role == Role::Primary {
            let listed = cluster.status.iter().flat_map(|status| &status.instance_names);
            wanted.extend(
                listed
                    .filter(|name| **name != self.context.identity.instance)
                    .map(|name| names::replication_slot(name)),
            );
        }
        let rows = self
            .context
            .sql
            .query("SELECT slot_name::text, active FROM pg_replication_slots WHERE slot_type = 'physical'", &[])
            .await?;
        let found: Vec<(String, bool)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        for slot in wanted.iter().filter(|slot| !found.iter().any(|(name, _)| name == *slot)) {
            // Reserves WAL at once: what the standby needs is kept from now on, not only from its first connection.
            self.context.sql.query("SELECT pg_create_physical_replication_slot($1, true)", &[slot]).await?;
            tracing::info!(slot, "created a replication slot");
        }
        for (slot, active) in found {
            if slot.starts_with(SLOT_PREFIX) && !wanted.contains(&slot) && !active {
                self.context.sql.query("SELECT pg_drop_replication_slot($1)", &[&slot]).await?;
                tracing::info!(slot, "dropped a replication slot");
            }
        }
        Ok(())
    }

    /// Sets passwords when their Secrets change.
    async fn passwords(&self, cluster: &Cluster, memory: &mut Memory) -> Result<()> {
        let mut wanted: Vec<(String, String)> = Vec::new();
        if let Some(application) = Application::of(cluster) {
            wanted.push((application.owner, application.secret));
        }
        if cluster.spec.enable_superuser_access {
            let secret = cluster.spec.superuser_secret.as_ref().map(|secret| secret.name.clone());
            let secret = secret.unwrap_or_else(|| names::superuser_secret(&self.context.identity.cluster));
            wanted.push(("postgres".to_owned(), secret));
        }
        if let Wire::Password(password) = Wire::choose(self.programs.has_tls(), &self.context.paths)?
            && memory.replication_password.as_ref() != Some(&password)
        {
            let client = Sql::connect(&self.context.paths, "postgres").await?;
            roles::set_password(&client, names::REPLICATION_USER, &password).await?;
            memory.replication_password = Some(password);
        }
        for (role, secret) in wanted {
            let (mut keys, version) = self.secrets.secret(&secret).await?;
            if memory.passwords.get(&role) == Some(&version) {
                continue;
            }
            let Some(password) = keys.remove("password") else { continue };
            let password = roles::password_in(&password);
            let client = Sql::connect(&self.context.paths, "postgres").await?;
            let known = client.query("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role]).await;
            if known.is_ok_and(|rows| !rows.is_empty()) {
                roles::set_password(&client, &role, &password).await?;
            }
            memory.passwords.insert(role, version);
        }
        Ok(())
    }
}
