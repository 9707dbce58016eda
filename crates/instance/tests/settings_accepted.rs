//! Every major accepts the settings that are written for it.
#![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]

use holdfast_instance::identity::Paths;
use holdfast_instance::postgres::Programs;
use holdfast_instance::settings::postgresql;
use holdfast_instance::settings::wire::Wire;
use holdfast_kube_api::cluster::ClusterSpec;
use holdfast_testkit::postgres::Installation;
use holdfast_testkit::scratch::Scratch;
use std::process::Command;

/// What the server of this installation says about the setting in the generated file.
fn says(installation: &Installation, scratch: &Scratch, setting: &str) -> String {
    let mut command: Command = installation.command("postgres");
    command.args(["-C", setting, "-D"]).arg(scratch.path().join("data"));
    let output = scratch.user().drop_to(&mut command).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "PostgreSQL {}: {said}", installation.major());
    for word in ["unrecognized", "invalid value", "FATAL"] {
        assert!(!said.contains(word), "PostgreSQL {}: {said}", installation.major());
    }
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn every_major_accepts_its_settings() {
    for installation in Installation::all() {
        let scratch = Scratch::new().unwrap();
        scratch.folder("data").unwrap();
        let paths = Paths::below(scratch.path(), scratch.path(), 5432);
        let programs = Programs::in_folder(installation.bin()).await.unwrap();
        assert_eq!(programs.major(), installation.major());
        let wire = if programs.has_tls() { Wire::Tls } else { Wire::Password("secret".into()) };
        let mut spec = ClusterSpec::default();
        spec.postgresql.parameters.insert("shared_buffers".to_owned(), "64MB".to_owned());
        scratch.write("data/postgresql.conf", postgresql::text(&spec, "it-s-1", &paths, &wire)).unwrap();
        assert_eq!(says(&installation, &scratch, "archive_mode"), "always");
        assert_eq!(says(&installation, &scratch, "cluster_name"), "it-s-1");
        assert_eq!(says(&installation, &scratch, "primary_slot_name"), "_holdfast_it_s_1");
        assert_eq!(says(&installation, &scratch, "log_line_prefix"), postgresql::LOG_LINE_PREFIX);
        let command = format!("{} instance archive %p", scratch.path().display());
        assert_eq!(says(&installation, &scratch, "archive_command"), command);
    }
}
