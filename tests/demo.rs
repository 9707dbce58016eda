//! The demo with little data: it must end successfully by itself, and report that the rows are back.

use std::process::{Command, Output, Stdio};

use holdfast_testkit::postgres::Installation;
use holdfast_testkit::scratch::built_program;

fn demo(arguments: &[&str]) -> Output {
    Command::new(built_program("holdfast-demo").expect("find the demo"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("run the demo")
}

#[test]
fn the_rows_are_back() {
    rows_come_back(18, &[]);
}

#[test]
fn the_rows_are_back_on_19() {
    rows_come_back(19, &["--pg=19"]);
}

fn rows_come_back(major: u16, choice: &[&str]) {
    if Installation::or_skip(major).is_none() {
        return;
    }
    let output = demo(&[&["--rows", "5000", "--size-mb", "20"], choice].concat());
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}\n{error}", output.status);
    let said = text.lines().find(|line| line.starts_with("All ")).expect("the demo prints what is back");
    let orders: u64 = said.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("the number of orders");
    assert!(orders > 5000, "orders taken after the backup are back as well: {said}");
    assert!(said.ends_with("orders are back, with the same checksum."), "{said}");
    assert!(text.contains(&format!("start a PostgreSQL {major} and")), "{text}");
    assert!(text.contains("ERROR:  relation \"orders\" does not exist"), "the table was lost before: {text}");
    let cost = text.lines().find(|line| line.contains("it cost")).expect("the demo prints what the incremental cost");
    assert!(cost.contains(" in the bucket; the first backup "), "{cost}");
    assert!(!text.contains('\x1b'), "no colour where there is no terminal");
    for line in error.lines() {
        assert!(!line.contains("WARN") && !line.starts_with("warning"), "{line}");
    }
}

#[test]
fn a_wrong_argument_is_refused() {
    let output = demo(&["--rows", "none"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("error: --rows needs a number from 1 on, not \"none\"\nusage: "), "{error}");
}
