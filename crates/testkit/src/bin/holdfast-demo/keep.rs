//! `--keep`: what to type in another terminal while everything is still running.

use holdfast_testkit::postgres::Cluster;
use holdfast_testkit::user::is_root;

use crate::Result;
use crate::screen::Screen;
use crate::stage::Stage;

/// Prints where the servers are and which commands to try.
pub(crate) fn explain(stage: &Stage, screen: &Screen) -> Result<()> {
    let user = stage.folder.user().name();
    let drop = if is_root() { format!("runuser -u {user} -- ") } else { String::new() };
    let psql = stage.installation.client("psql")?;
    let psql = |cluster: &Cluster| format!("{} '{}'", psql.display(), cluster.connection_string("postgres"));
    let folder = stage.folder.path().display();

    screen.line("\nEverything is still running. In another terminal:\n");
    screen.line("  # holdfast, with the demo's configuration");
    screen.line(&format!(
        "  alias holdfast='{drop}{} --config {}'",
        stage.holdfast.display(),
        stage.config().display()
    ));
    screen.line("  holdfast info            # what can be restored");
    screen.line("  holdfast list            # the backups");
    screen.line("  holdfast wal list        # the archived WAL");
    screen.line("  holdfast check           # is everything in order?");
    screen.line(&format!("  holdfast restore --pgdata {folder}/another --plan"));
    screen.line("\n  # the server that lost its table, and the restored one");
    screen.line(&format!("  {}", psql(&stage.cluster)));
    if let Some(restored) = &stage.restored {
        screen.line(&format!("  {}", psql(restored)));
    }
    screen.line("");
    screen.fact("configuration", &stage.config().display().to_string());
    screen.fact("objects, as files", &stage.s3.root().display().to_string());
    screen.fact("object store", &format!("{}, bucket {}", stage.s3.endpoint(), stage.s3.bucket()));
    screen.fact("server's data", &stage.cluster.data().display().to_string());
    screen.fact("server's log", &stage.cluster.log_path().display().to_string());
    if let Some(restored) = &stage.restored {
        screen.fact("restored data", &restored.data().display().to_string());
        screen.fact("restored server's log", &restored.log_path().display().to_string());
    }
    screen.line("\nCtrl-C here stops the servers and removes all of it.");
    Ok(())
}
