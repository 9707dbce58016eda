//! While PostgreSQL runs in its role: keeps settings, slots, passwords and the archive's state up to date.

use super::Manager;
use super::problems::Task;
use super::run::Memory;
use crate::archive;
use crate::bootstrap::roles::{self, Application};
use crate::error::Result;
use crate::postgres::Sql;
use crate::server_facts;
use crate::settings::wire::Wire;
use crate::space;
use holdfast_kube_api::status_port::Role;
use holdfast_kube_api::{Cluster, names};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The time between two reads of Secrets, which change without the Cluster.
const SECRETS_EVERY: Duration = Duration::from_secs(30);
/// Prefix of the slots that the manager owns.
const SLOT_PREFIX: &str = "_holdfast_";
/// The physical slots, and whether each is used and has lost its WAL.
const SLOTS: &str = "SELECT slot_name::text, active, coalesce(wal_status, '') = 'lost'
FROM pg_replication_slots WHERE slot_type = 'physical'";

impl Manager {
    /// One round. What cannot be done is reported beside the state of PostgreSQL, and tried again.
    pub(super) async fn keep(&self, cluster: &Cluster, memory: &mut Memory) {
        let Some(facts) = self.context.state.facts() else { return };
        let generation = cluster.metadata.generation;
        let due = memory.secrets_read.is_none_or(|at| at.elapsed() > SECRETS_EVERY);
        if due || memory.tried != generation {
            memory.secrets_read = Some(Instant::now());
            memory.tried = generation;
            let held = space::hold_back(&self.context.paths);
            memory.problems.record(Task::Space, held.and(space::judge(&space::measure(&self.context.paths))));
            let written = self.write_archive_config(cluster).await;
            memory.problems.record(Task::Archive, written);
            self.settings(cluster, memory).await;
            if facts.role == Role::Primary {
                self.passwords(cluster, memory).await;
            } else {
                memory.problems.keep_passwords_of(&[]);
            }
        }
        let slots = self.slots(cluster, facts.role).await;
        memory.problems.record(Task::Slots, slots.map_err(|error| error.doing("keeping replication slots")));
        self.context.state.set_archive(Some(archive::status(&self.context).await));
        self.context.state.set_housekeeping(memory.problems.first());
    }

    /// Writes the files that the server reads. A generation is in force once they are written.
    async fn settings(&self, cluster: &Cluster, memory: &mut Memory) {
        let changed = match self.write_server_files(cluster) {
            Ok(changed) => changed,
            Err(error) => {
                return memory.problems.record(Task::Files, Err(error.doing("writing PostgreSQL's settings")));
            }
        };
        memory.problems.record(Task::Files, Ok(()));
        if let Some(served) = self.context.state.server().filter(|_| changed) {
            tracing::info!("settings changed: reloading PostgreSQL's configuration");
            served.postmaster.reload();
        }
        // First reads which settings wait for a restart, then that this generation's settings have been read.
        server_facts::refresh(&self.context).await;
        self.context.state.set_applied(cluster.metadata.generation);
    }

    /// Keeps a slot for each other instance on the primary, and none on a standby, where they would keep WAL for ever.
    /// A slot whose WAL was removed, by `max_slot_wal_keep_size`, is made again: its standby continues from the
    /// archive.
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
        let rows = self.context.sql.query(SLOTS, &[]).await?;
        let found: Vec<(String, bool, bool)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        for slot in wanted.iter().filter(|slot| !found.iter().any(|(name, ..)| name == *slot)) {
            // Reserves WAL at once: what the standby needs is kept from now on, not only from its first connection.
            self.context.sql.query("SELECT pg_create_physical_replication_slot($1, true)", &[slot]).await?;
            tracing::info!(slot, "created a replication slot");
        }
        for (slot, active, lost) in found {
            if slot.starts_with(SLOT_PREFIX) && (lost || !wanted.contains(&slot)) && !active {
                self.context.sql.query("SELECT pg_drop_replication_slot($1)", &[&slot]).await?;
                tracing::info!(slot, "dropped a replication slot");
            }
        }
        Ok(())
    }

    /// Sets passwords when their Secrets change. A password that PostgreSQL refuses leaves the role with the one
    /// that it has.
    async fn passwords(&self, cluster: &Cluster, memory: &mut Memory) {
        let mut wanted: Vec<(String, String)> = Vec::new();
        if let Some(application) = Application::of(cluster) {
            wanted.push((application.owner, application.secret));
        }
        if cluster.spec.enable_superuser_access {
            let secret = cluster.spec.superuser_secret.as_ref().map(|secret| secret.name.clone());
            let secret = secret.unwrap_or_else(|| names::superuser_secret(&self.context.identity.cluster));
            wanted.push(("postgres".to_owned(), secret));
        }
        let roles = wanted.iter().map(|(role, _)| role.as_str()).chain([names::REPLICATION_USER]);
        memory.problems.keep_passwords_of(&roles.collect::<Vec<_>>());
        let replication = self.replication_password(memory).await;
        memory.problems.record(Task::Password(names::REPLICATION_USER.to_owned()), replication);
        for (role, secret) in wanted {
            let set = self.password(&role, &secret, memory).await;
            let set = set.map_err(|error| {
                error.doing(format!("setting the password of role {role}")).hint(format!(
                    "the role keeps the password that it has: check the key `password` of Secret {secret}"
                ))
            });
            memory.problems.record(Task::Password(role), set);
        }
    }

    async fn replication_password(&self, memory: &mut Memory) -> Result<()> {
        if let Wire::Password(password) = Wire::choose(self.programs.has_tls(), &self.context.paths)?
            && memory.replication_password.as_ref() != Some(&password)
        {
            let client = Sql::connect(&self.context.paths, "postgres").await?;
            roles::set_password(&client, names::REPLICATION_USER, &password).await?;
            memory.replication_password = Some(password);
        }
        Ok(())
    }

    async fn password(&self, role: &str, secret: &str, memory: &mut Memory) -> Result<()> {
        let (mut keys, version) = self.secrets.secret(secret).await?;
        if memory.passwords.get(role) == Some(&version) {
            return Ok(());
        }
        let Some(password) = keys.remove("password") else { return Ok(()) };
        let password = roles::password_in(&password);
        let client = Sql::connect(&self.context.paths, "postgres").await?;
        let known = client.query("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role]).await;
        if known.is_ok_and(|rows| !rows.is_empty()) {
            roles::set_password(&client, role, &password).await?;
        }
        memory.passwords.insert(role.to_owned(), version);
        Ok(())
    }
}
