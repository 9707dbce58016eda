//! What `make bench` computes is right. CI measures nothing, so only this notices a report that cannot be written.

use std::process::Command;

use holdfast_testkit::settings;

use crate::sources::root;

#[test]
fn the_benchmark_passes_its_own_tests() {
    let Some(python) = settings::get("HOLDFAST_PYTHON") else {
        settings::skip("there is no HOLDFAST_PYTHON; scripts/provision makes it");
        return;
    };
    let output = Command::new(python).arg(root().join("benches/compare/tests.py")).output().expect("run Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
