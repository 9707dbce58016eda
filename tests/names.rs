//! Names that are not UTF-8: to PostgreSQL they are bytes, and a database in `SQL_ASCII` allows any of them. They do
//! not stop a backup, and they are restored unchanged.

use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};
use holdfast_testkit::postgres::Cluster;

/// "café" in LATIN1.
const NAME: &[u8] = b"caf\xe9";

/// Runs a script of `psql`, in which `NAME` stands for the name.
async fn psql(stage: &Stage, cluster: &Cluster, script: &str) -> String {
    let mut bytes = Vec::new();
    for (index, part) in script.split("NAME").enumerate() {
        if index > 0 {
            bytes.extend_from_slice(NAME);
        }
        bytes.extend_from_slice(part.as_bytes());
    }
    let path = stage.scratch.write("script.sql", bytes).expect("write a script");
    cluster.psql_file(&path).await.expect("run the script")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_name_is_not_utf8_is_backed_up_and_restored() {
    let plan = Plan {
        store: StoreKind::Directory,
        seal: Seal::None,
        settings: vec![("allow_in_place_tablespaces", "on".to_owned())],
        ..Plan::default()
    };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let made = "CREATE DATABASE ascii ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0;\n\
                CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0;\n\
                \\c ascii\n\
                CREATE DATABASE \"NAME\" ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0;\n\
                CREATE TABLESPACE \"NAME\" LOCATION '';\n\
                CREATE ROLE \"NAME\" SUPERUSER;\n\
                \\c \"NAME\"\n\
                CREATE TABLE \"NAME\" TABLESPACE \"NAME\" AS SELECT generate_series(1, 1000) AS n;\n\
                SELECT pg_create_restore_point('NAME');\n";
    psql(&stage, &stage.cluster, made).await;

    // A session in any database sees the names of all databases, in its own encoding, and writes its label in that
    // encoding.
    let text = stage.config_text();
    let shown = "caf\u{fffd}";
    for database in ["postgres", "ascii", "latin"] {
        let connection = stage.cluster.connection_string(database);
        let config = format!("connection = \"{connection}\"\n\n[[repo]]");
        stage.write_config("holdfast.toml", &text.replacen("[[repo]]", &config, 1));
        stage.ok(&["check"]);
        let report = stage.json(&["backup", "--label", "caf\u{e9}"]).to_string();
        assert!(report.contains(shown), "{database}: {report}");

        let restored = stage.restore_and_start(database, &[]).await;
        wait_promoted(&restored).await;
        // In a UTF-8 session, `psql` would read the last byte and the quote after it as one character.
        let counted = "\\c ascii\n\
                       \\c \"NAME\"\n\
                       SELECT count(*) FROM \"NAME\" n JOIN pg_tablespace ON spcname = 'NAME' JOIN pg_roles ON rolname = 'NAME';\n";
        assert_eq!(psql(&stage, &restored, counted).await.trim(), "1000", "{database}");
    }
}
