//! Frozen lines between the commands and the agent, which may be of different releases. Each must parse for ever, and
//! be printed again as it is.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use holdfast_contract::agent::{Answer, Ask, PROTOCOL};
use serde::Serialize;
use serde::de::DeserializeOwned;

const QUESTIONS: &[&str] = &[
    r#"{"protocol":1,"settings":"5f70","request":{"push":{"path":"/data/pg_wal/000000010000000000000003","file":{"device":64768,"inode":131,"size_bytes":16777216,"modified":[1795968000,5],"changed":[1795968001,999999999]}}}}"#,
    r#"{"protocol":1,"settings":"5f70","request":{"get":{"file":"000000010000000000000003","system_identifier":"7713909217892181153"}}}"#,
    r#"{"protocol":1,"settings":"5f70","request":{"get":{"file":"00000002.history","system_identifier":"7713909217892181153","until":"000000010000000000000009"}}}"#,
    r#"{"protocol":1,"settings":"","request":"status"}"#,
];

const ANSWERS: &[&str] = &[
    r#""working""#,
    r#"{"pushed":"marked"}"#,
    r#"{"pushed":{"archived":{"file":"000000010000000000000003","raw_bytes":16777216,"repositories":[{"store":"s3://b/p","stored":"created","size_bytes":3000}]}}}"#,
    r#"{"fetched":{"path":"/spool/main/get-1/000000010000000000000003.0f","blake3":"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262","size_bytes":16777216}}"#,
    r#"{"content":"0a"}"#,
    r#"{"failed":{"code":24,"name":"unreachable","hint":"check the network","message":"the store did not answer","while":"pushing 000000010000000000000003"}}"#,
    r#"{"declined":"the agent has other settings than this command"}"#,
];

fn is_printed_as_it_was<T: Serialize + DeserializeOwned>(line: &str) {
    let read: T = serde_json::from_str(line).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), line);
}

#[test]
fn every_line_parses_and_is_printed_as_it_was() {
    for line in QUESTIONS {
        is_printed_as_it_was::<Ask>(line);
    }
    for line in ANSWERS {
        is_printed_as_it_was::<Answer>(line);
    }
    assert_eq!(PROTOCOL, 1, "a new protocol needs lines of its own here");
}
