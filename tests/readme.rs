//! The commands of `README.md`, from zero to a restored cluster, exactly as written there: a reader's first quarter of
//! an hour must not fail.
//!
//! Only the folder, the store's address and the bucket's credentials are replaced, so that it can run next to other
//! tests.

use std::process::{Command, Stdio};

use holdfast_testkit::postgres::Installation;
use holdfast_testkit::s3::{Credentials, S3Server};
use holdfast_testkit::scratch::{Scratch, built_program, publish_binary};
use holdfast_testkit::user::run_as_postgres;

/// The shell blocks after `<!-- run -->`, one after the other.
fn script(text: &str) -> String {
    let blocks = text.split("<!-- run -->\n```sh\n").skip(1);
    blocks.map(|block| block.split_once("```").map_or(block, |(script, _)| script)).collect()
}

#[test]
fn the_run_from_zero_to_a_restored_cluster_works_as_written() {
    let Some(installation) = Installation::or_skip(18) else { return };
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let written = script(&std::fs::read_to_string(readme).expect("read README.md"));
    assert!(written.contains("holdfast repo init") && written.contains("restore --pgdata"), "no run:\n{written}");

    let credentials = Credentials { access_key: "holdfast".to_owned(), secret_key: "holdfast-secret".to_owned() };
    let s3 = S3Server::builder().bucket("holdfast").credentials(credentials).start().expect("start the S3 server");
    let holdfast = publish_binary(&built_program("holdfast").expect("find holdfast")).expect("publish holdfast");
    let scratch = Scratch::new().expect("make a folder");
    let folder = scratch.path().join("try");
    let stop = "trap 'pg_ctl -D /tmp/try/data -m immediate stop; pg_ctl -D /tmp/try/restored -m immediate stop' ERR\n";
    let script = format!("{stop}{written}")
        .replace("/tmp/try", &folder.display().to_string())
        .replace("http://127.0.0.1:9000", &s3.endpoint());

    let mut bash = Command::new("bash");
    bash.args(["-Eeuxo", "pipefail", "-c", &script]).stdin(Stdio::null());
    run_as_postgres(&mut bash).expect("drop to PostgreSQL's user");
    let path = std::env::var("PATH").unwrap_or_default();
    let programs = holdfast.parent().expect("the program's folder");
    bash.env("PATH", format!("{}:{}:{path}", programs.display(), installation.bin().display()));
    let output = bash.output().expect("run bash");
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}\n{error}", output.status);
    assert!(text.contains(" 100500\n"), "the rows are back:\n{text}");
    assert!(text.contains("claim 1 of PostgreSQL 18"), "{text}");
    assert!(!folder.exists(), "the last step cleans up");
}
