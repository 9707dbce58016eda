//! What every cluster has: the replication user, and the application's owner and database.
//!
//! Everything can be repeated. Passwords go over the Unix socket, and are kept out of the server's log whatever its
//! settings.

use super::Bootstrap;
use crate::error::{Error, Kind, Result};
use crate::postgres::Sql;
use holdfast_kube_api::cluster::{InitDb, SqlReferences};
use holdfast_kube_api::names;
use holdfast_secret::Secret;
use tokio_postgres::Client;

/// The functions that `pg_rewind` calls, from its manual page.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// Keeps a statement with a password out of the log.
const UNLOGGED: &str = "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_duration = off; \
                        SET log_min_error_statement = 'panic'; SET password_encryption = 'scram-sha-256'; \
                        SET log_min_duration_sample = -1";

/// A name, quoted for SQL.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text, quoted for SQL.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// The application's database and its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// The name of the database.
    pub database: String,
    /// The name of the owner.
    pub owner: String,
    /// The name of the Secret with the owner's password.
    pub secret: String,
}

impl Application {
    /// From the Cluster, with its defaults; `None` if it has no application.
    pub fn of(cluster: &holdfast_kube_api::Cluster) -> Option<Self> {
        let name = cluster.metadata.name.as_deref().unwrap_or_default();
        let bootstrap = cluster.spec.bootstrap.clone().unwrap_or_default();
        let (database, owner, secret) = match (bootstrap.recovery, bootstrap.initdb) {
            // A recovery that names no database: it is not known what the backup contains.
            (Some(recovery), _) => {
                let database = recovery.database.clone().or_else(|| recovery.owner.clone())?;
                (Some(database), recovery.owner, recovery.secret)
            }
            (None, Some(initdb)) => (initdb.database, initdb.owner, initdb.secret),
            (None, None) => (None, None, None),
        };
        let database = database.unwrap_or_else(|| "app".to_owned());
        Some(Self {
            owner: owner.unwrap_or_else(|| database.clone()),
            database,
            secret: secret.map_or_else(|| names::application_secret(name), |secret| secret.name),
        })
    }
}

async fn execute(client: &Client, what: &str, statement: &str) -> Result<()> {
    client.batch_execute(statement).await.map_err(|error| {
        let error = crate::postgres_error(&error);
        Error { kind: Kind::Stuck, ..error }.doing(what.to_owned())
    })
}

async fn exists(client: &Client, question: &str, name: &str) -> Result<bool> {
    let rows = client.query(question, &[&name]).await.map_err(|error| crate::postgres_error(&error))?;
    Ok(!rows.is_empty())
}

/// Creates the replication user, with the rights that `pg_rewind` and a copy need.
///
/// # Errors
/// When the server refuses.
pub async fn replication_user(client: &Client) -> Result<()> {
    let user = names::REPLICATION_USER;
    if !exists(client, "SELECT 1 FROM pg_roles WHERE rolname = $1", user).await? {
        execute(client, "creating the replication user", &format!("CREATE ROLE {user} LOGIN REPLICATION")).await?;
    }
    let grants: Vec<String> = REWIND_FUNCTIONS
        .iter()
        .map(|function| format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {user};"))
        .collect();
    let statement = format!("ALTER ROLE {user} LOGIN REPLICATION; {}", grants.join(" "));
    execute(client, "granting pg_rewind's functions to the replication user", &statement).await
}

/// Sets a role's password.
///
/// # Errors
/// When the server refuses.
pub async fn set_password(client: &Client, role: &str, password: &Secret) -> Result<()> {
    // A message of its own: `log_statement` checks a whole message before its first statement runs. All these settings
    // exist since 13.
    let doing = format!("setting the password of role {role}");
    execute(client, &doing, UNLOGGED).await?;
    let statement: Secret =
        Secret::new(format!("ALTER ROLE {} LOGIN PASSWORD {}", identifier(role), literal(password.expose())));
    execute(client, &doing, statement.expose()).await
}

/// Creates the application's owner and database, unless they exist.
///
/// # Errors
/// When the server refuses.
pub async fn application(client: &Client, application: &Application, password: &Secret) -> Result<()> {
    let (owner, database) = (identifier(&application.owner), identifier(&application.database));
    if !exists(client, "SELECT 1 FROM pg_roles WHERE rolname = $1", &application.owner).await? {
        execute(client, "creating the owner of the application's database", &format!("CREATE ROLE {owner} LOGIN"))
            .await?;
    }
    set_password(client, &application.owner, password).await?;
    if !exists(client, "SELECT 1 FROM pg_database WHERE datname = $1", &application.database).await? {
        let statement = format!("CREATE DATABASE {database} OWNER {owner}");
        execute(client, "creating the application's database", &statement).await?;
    }
    Ok(())
}

/// The password in a Secret's value, without line ends after it: editors and `echo` add them.
pub fn password_in(value: &Secret<Vec<u8>>) -> Secret {
    Secret::new(value.to_text().expose().trim_end_matches(['\n', '\r']))
}

impl Bootstrap<'_> {
    /// Creates everything that a new cluster has.
    ///
    /// # Errors
    /// When the server refuses, or a Secret or ConfigMap is missing.
    pub async fn prepare_new(&self, options: &InitDb) -> Result<()> {
        let client = Sql::connect(self.paths, "postgres").await?;
        replication_user(&client).await?;
        let template = Sql::connect(self.paths, "template1").await?;
        run_all(&template, "postInitTemplateSQL", &options.post_init_template_sql).await?;
        drop(template);
        if let Some(wanted) = Application::of(&self.cluster) {
            let password = self.password(&wanted.secret).await?;
            application(&client, &wanted, &password).await?;
            run_all(&client, "postInitSQL", &options.post_init_sql).await?;
            run_all(&client, "postInitSQLRefs", &self.referred(options.post_init_sql_refs.as_ref()).await?).await?;
            let inside = Sql::connect(self.paths, &wanted.database).await?;
            run_all(&inside, "postInitApplicationSQL", &options.post_init_application_sql).await?;
            let referred = self.referred(options.post_init_application_sql_refs.as_ref()).await?;
            run_all(&inside, "postInitApplicationSQLRefs", &referred).await?;
        }
        Ok(())
    }

    /// The password in a Secret.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn password(&self, secret: &str) -> Result<Secret> {
        Ok(password_in(&self.secrets.key(secret, "password").await?))
    }

    async fn referred(&self, references: Option<&SqlReferences>) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        let Some(references) = references else { return Ok(texts) };
        for secret in &references.secret_refs {
            let bytes = self.secrets.key(&secret.name, &secret.key).await?;
            texts.push(bytes.to_text().expose().clone());
        }
        for map in &references.config_map_refs {
            texts.push(self.secrets.config(&map.name, &map.key).await?);
        }
        Ok(texts)
    }
}

async fn run_all(client: &Client, field: &str, statements: &[String]) -> Result<()> {
    for statement in statements {
        // The user's SQL expects the usual search path.
        client.batch_execute("RESET search_path").await.map_err(|error| crate::postgres_error(&error))?;
        execute(client, &format!("running bootstrap.initdb.{field}"), statement).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_break_out() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
    }

    #[test]
    fn the_application_has_defaults() {
        let mut cluster = holdfast_kube_api::Cluster::default();
        cluster.metadata.name = Some("main".to_owned());
        let expected =
            Application { database: "app".to_owned(), owner: "app".to_owned(), secret: "main-app".to_owned() };
        assert_eq!(Application::of(&cluster), Some(expected));
        let bootstrap = cluster.spec.bootstrap.get_or_insert_default();
        bootstrap.recovery = Some(holdfast_kube_api::cluster::Recovery::default());
        assert_eq!(Application::of(&cluster), None);
    }
}
