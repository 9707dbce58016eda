//! The commands of a replication connection, and the stream that `START_REPLICATION` begins.
//!
//! A connection executes commands until it streams; when the stream has ended with its timeline, it executes commands
//! again. [`Replication::next`] is cancel-safe.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{HistoryFile, Lsn, PgVersion, SystemIdentifier, TimelineId, WalSegmentSize};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::messages::{FromServer, StandbyStatus};
use super::wire::{Received, Wire, answer, lost, text, values};
use crate::error::{Cause, Error, ResultExt};

/// How long a command may take. None of them waits for anything on the server.
const ANSWERED_WITHIN: Duration = Duration::from_mins(1);

/// More rows than any command has.
const MOST_ROWS: usize = 16;

/// An open replication connection.
pub(crate) struct Replication {
    wire: Wire,
    server_version: String,
}

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SystemFacts {
    pub(crate) system_identifier: SystemIdentifier,
    /// The server's own timeline.
    pub(crate) timeline: TimelineId,
    /// The end of its durable WAL.
    pub(crate) flushed: Lsn,
}

/// A physical replication slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The oldest WAL that it keeps; `None` if it keeps none: it was invalidated, or never used.
    pub(crate) restart_lsn: Option<Lsn>,
    /// Whether it was invalidated, if the server says that.
    pub(crate) is_lost: Option<bool>,
}

/// A history file as the server has it.
#[derive(Debug, Clone)]
pub(crate) struct HistoryText {
    /// The bytes of the file.
    pub(crate) content: Bytes,
    /// What they say.
    pub(crate) history: HistoryFile,
}

/// The first answer to `START_REPLICATION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// The stream has begun.
    Streaming,
    /// There is nothing after the requested LSN on this timeline.
    AtEnd(TimelineEnd),
}

/// Where a timeline ends, and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimelineEnd {
    /// The timeline that follows.
    pub(crate) next: TimelineId,
    /// Where it begins.
    pub(crate) switch_lsn: Lsn,
}

/// Something that the server sent in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Streamed {
    /// WAL that begins at `start`; `server_end` is the end of the server's WAL.
    Wal { start: Lsn, data: Bytes, server_end: Lsn },
    /// The server lives.
    Keepalive { reply_requested: bool },
    /// The timeline has ended, and the server has sent all of it.
    TimelineEnded,
}

impl Replication {
    pub(super) fn new(wire: Wire, server_version: String) -> Self {
        Self { wire, server_version }
    }

    /// The major version of the server.
    pub(crate) fn version(&self) -> Result<PgVersion, Error> {
        let digits: String = self.server_version.chars().take_while(char::is_ascii_digit).collect();
        let major = digits.parse().map_err(|_| lost(format!("its version is {:?}", self.server_version)))?;
        PgVersion::new(major).map_err(|error| Cause::from(error).into())
    }

    pub(crate) async fn show(&mut self, setting: &str) -> Result<String, Error> {
        let row = self.one_row(&format!("SHOW {setting}")).await?;
        text(&value(&row, 0)?)
    }

    /// Whether the server is a standby. Before 14, a server on which transactions only read is taken for one.
    pub(crate) async fn is_in_recovery(&mut self, version: PgVersion) -> Result<bool, Error> {
        let setting = if version >= PgVersion::V14 { "in_hot_standby" } else { "transaction_read_only" };
        Ok(self.show(setting).await? == "on")
    }

    /// The size of the server's WAL segments.
    pub(crate) async fn wal_segment_size(&mut self) -> Result<WalSegmentSize, Error> {
        let shown = self.show("wal_segment_size").await?;
        let digits = shown.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit: u32 = match &shown[digits.len()..] {
            "kB" => 1 << 10,
            "MB" => 1 << 20,
            "GB" => 1 << 30,
            _ => 1,
        };
        let bytes = digits.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
        let size = bytes.and_then(|bytes| WalSegmentSize::new(bytes).ok());
        size.ok_or_else(|| lost(format!("its wal_segment_size is {shown:?}")))
    }

    pub(crate) async fn identify_system(&mut self) -> Result<SystemFacts, Error> {
        let row = self.one_row("IDENTIFY_SYSTEM").await.doing(|| "asking the server for its identity".to_owned())?;
        Ok(SystemFacts { system_identifier: parsed(&row, 0)?, timeline: timeline(&row, 1)?, flushed: parsed(&row, 2)? })
    }

    /// `TIMELINE_HISTORY`: the history file of a timeline other than the first.
    pub(crate) async fn history(&mut self, timeline: TimelineId) -> Result<HistoryText, Error> {
        let row = self
            .one_row(&format!("TIMELINE_HISTORY {timeline}"))
            .await
            .doing(|| format!("fetching the history of timeline {timeline} from the server"))?;
        let content = value(&row, 1)?;
        let history = HistoryFile::parse(timeline, &content).map_err(|e| lost(e.to_string()))?;
        Ok(HistoryText { content, history })
    }

    /// `READ_REPLICATION_SLOT`, which PostgreSQL 15 and later have; `None` if there is no such slot.
    pub(crate) async fn read_slot(&mut self, name: &str) -> Result<Option<Slot>, Error> {
        let row = self
            .one_row(&format!("READ_REPLICATION_SLOT {}", quoted(name)))
            .await
            .doing(|| format!("reading the replication slot {name}"))?;
        match row.first() {
            Some(Some(_)) => {
                let restart_lsn = if row.get(1).is_some_and(Option::is_some) { Some(parsed(&row, 1)?) } else { None };
                Ok(Some(Slot { restart_lsn, is_lost: None }))
            }
            _ => Ok(None),
        }
    }

    /// `CREATE_REPLICATION_SLOT`: a physical slot that keeps WAL from now on. Returns whether it was made: `false` if
    /// there is one of this name.
    pub(crate) async fn create_slot(&mut self, name: &str, temporary: bool) -> Result<bool, Error> {
        let temporary = if temporary { " TEMPORARY" } else { "" };
        let made =
            self.one_row(&format!("CREATE_REPLICATION_SLOT {}{temporary} PHYSICAL RESERVE_WAL", quoted(name))).await;
        match made {
            Ok(_) => Ok(true),
            Err(error) if is_answer(&error, "42710") => Ok(false),
            Err(error) => Err(error.doing(format!("creating the replication slot {name}"))),
        }
    }

    /// `DROP_REPLICATION_SLOT`; `false` if there is no such slot.
    pub(crate) async fn drop_slot(&mut self, name: &str) -> Result<bool, Error> {
        match self.rows(&format!("DROP_REPLICATION_SLOT {}", quoted(name))).await {
            Ok(_) => Ok(true),
            Err(error) if is_answer(&error, "42704") => Ok(false),
            Err(error) => Err(error.doing(format!("dropping the replication slot {name}"))),
        }
    }

    pub(crate) async fn start(&mut self, slot: &str, from: Lsn, timeline: TimelineId) -> Result<Begun, Error> {
        let command = format!("START_REPLICATION SLOT {} PHYSICAL {from} TIMELINE {timeline}", quoted(slot));
        in_time(async {
            self.send_query(&command).await?;
            loop {
                match self.wire.receive().await? {
                    Received::CopyBoth => return Ok(Begun::Streaming),
                    Received::Message(Message::RowDescription(_)) => {
                        return Ok(Begun::AtEnd(self.timeline_end().await?));
                    }
                    Received::Message(Message::ErrorResponse(body)) => return Err(self.failed(answer(&body)).await),
                    Received::Message(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => {}
                    Received::Message(_) => return Err(lost("it does not begin as the protocol says")),
                }
            }
        })
        .await
    }

    /// What the server sends next in the stream.
    pub(crate) async fn next(&mut self) -> Result<Streamed, Error> {
        loop {
            match self.wire.receive().await? {
                Received::Message(Message::CopyData(body)) => {
                    return Ok(match FromServer::parse(body.into_bytes()).map_err(lost)? {
                        FromServer::Wal { start, data, server_end } => Streamed::Wal { start, data, server_end },
                        FromServer::Keepalive { reply_requested, .. } => Streamed::Keepalive { reply_requested },
                    });
                }
                Received::Message(Message::CopyDone) => return Ok(Streamed::TimelineEnded),
                Received::Message(Message::ErrorResponse(body)) => return Err(answer(&body)),
                // The server ends the stream this way when it shuts down.
                Received::Message(Message::CommandComplete(_)) => {
                    return Err(lost("the server ended it, because it shuts down"));
                }
                Received::Message(_) => {}
                Received::CopyBoth => return Err(lost("it begins twice")),
            }
        }
    }

    /// Reports what this side has.
    pub(crate) async fn report(&mut self, status: StandbyStatus, now: DateTime<Utc>) -> Result<(), Error> {
        let mut message = BytesMut::new();
        let data = frontend::CopyData::new(status.encode(now)).map_err(lost)?;
        data.write(&mut message);
        self.wire.send(&message).await
    }

    /// Ends the stream of a timeline that has ended, and reads what follows it.
    pub(crate) async fn leave_timeline(&mut self) -> Result<TimelineEnd, Error> {
        let mut message = BytesMut::new();
        frontend::copy_done(&mut message);
        in_time(async {
            self.wire.send(&message).await?;
            loop {
                match self.wire.receive().await? {
                    Received::Message(Message::RowDescription(_)) => return self.timeline_end().await,
                    Received::Message(Message::ErrorResponse(body)) => return Err(answer(&body)),
                    Received::Message(Message::ReadyForQuery(_)) => {
                        return Err(lost("the server did not say which timeline follows"));
                    }
                    _ => {}
                }
            }
        })
        .await
    }

    /// Ends the connection in an orderly way. The server notices it in any case.
    pub(crate) async fn close(mut self) {
        let mut message = BytesMut::new();
        frontend::terminate(&mut message);
        drop(self.wire.send(&message).await);
    }

    /// Closes the connection without a word. Reading and reporting fail from now on.
    pub(crate) fn hang_up(&mut self) {
        self.wire = Wire::new(Box::new(tokio::io::empty()));
    }

    /// Ends the stream and the connection.
    pub(crate) async fn stop(mut self) {
        let mut message = BytesMut::new();
        frontend::copy_done(&mut message);
        if self.wire.send(&message).await.is_ok() {
            self.close().await;
        }
    }

    /// Reads the row with the next timeline, and the rest of the answer.
    async fn timeline_end(&mut self) -> Result<TimelineEnd, Error> {
        let rows = self.rest_of_answer().await?;
        let row = rows.first().ok_or_else(|| lost("the server did not say which timeline follows"))?;
        Ok(TimelineEnd { next: timeline(row, 0)?, switch_lsn: parsed(row, 1)? })
    }

    async fn one_row(&mut self, command: &str) -> Result<Vec<Option<Bytes>>, Error> {
        let rows = self.rows(command).await?;
        rows.into_iter().next().ok_or_else(|| lost(format!("{command} has no answer")))
    }

    async fn rows(&mut self, command: &str) -> Result<Vec<Vec<Option<Bytes>>>, Error> {
        in_time(async {
            self.send_query(command).await?;
            self.rest_of_answer().await
        })
        .await
    }

    async fn send_query(&mut self, command: &str) -> Result<(), Error> {
        let mut message = BytesMut::new();
        frontend::query(command, &mut message).map_err(lost)?;
        self.wire.send(&message).await
    }

    /// The rows up to the end of the answer.
    async fn rest_of_answer(&mut self) -> Result<Vec<Vec<Option<Bytes>>>, Error> {
        let mut rows = Vec::new();
        loop {
            match self.wire.receive().await? {
                Received::Message(Message::DataRow(_)) if rows.len() == MOST_ROWS => {
                    return Err(lost(format!("an answer has more than {MOST_ROWS} rows")));
                }
                Received::Message(Message::DataRow(row)) => rows.push(values(&row)?),
                Received::Message(Message::ErrorResponse(body)) => return Err(self.failed(answer(&body)).await),
                Received::Message(Message::ReadyForQuery(_)) => return Ok(rows),
                Received::Message(_) => {}
                Received::CopyBoth => return Err(lost("it begins before it was asked for")),
            }
        }
    }

    /// Reads the rest of a failed answer, so that the connection can be used again.
    async fn failed(&mut self, error: Error) -> Error {
        while let Ok(Received::Message(message)) = self.wire.receive().await {
            if matches!(message, Message::ReadyForQuery(_)) {
                break;
            }
        }
        error
    }
}

/// A server that does not answer a command in time is taken for lost: a network that is gone says nothing.
async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(ANSWERED_WITHIN, answer).await.unwrap_or_else(|_| {
        Err(lost(format!("the server did not answer a command within {} s", ANSWERED_WITHIN.as_secs())))
    })
}

/// Whether the server answered with this error code.
fn is_answer(error: &Error, code: &str) -> bool {
    matches!(&*error.what, Cause::ServerAnswer { sqlstate, .. } if sqlstate == code)
}

/// An identifier in double quotes, as the grammar of replication commands takes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn value(row: &[Option<Bytes>], column: usize) -> Result<Bytes, Error> {
    row.get(column).cloned().flatten().ok_or_else(|| lost(format!("an answer has no column {column}")))
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(row: &[Option<Bytes>], column: usize) -> Result<T, Error> {
    text(&value(row, column)?)?.parse().map_err(lost)
}

fn timeline(row: &[Option<Bytes>], column: usize) -> Result<TimelineId, Error> {
    let number: u32 = parsed(row, column)?;
    TimelineId::new(number).ok_or_else(|| lost("a timeline has the number 0"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// A connection, and the server's end of it.
    fn connected() -> (Replication, tokio::io::DuplexStream) {
        let (here, server) = tokio::io::duplex(1 << 20);
        (Replication::new(Wire::new(Box::new(here)), "18.1".to_owned()), server)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_is_taken_for_lost() {
        let expected = "the server did not answer a command within 60 s";
        let (mut connection, _server) = connected();
        let error = connection.identify_system().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let error = connection.start("slot", Lsn::new(0), TimelineId::FIRST).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let error = connection.leave_timeline().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[tokio::test]
    async fn an_answer_of_too_many_rows_is_refused() {
        // DataRow with one column, "on".
        let row = b"D\0\0\0\x0c\0\x01\0\0\0\x02on";
        let ready = b"Z\0\0\0\x05I";
        for (rows, is_good) in [(1, true), (MOST_ROWS, true), (MOST_ROWS + 1, false)] {
            let (mut connection, mut server) = connected();
            server.write_all(&[row.repeat(rows), ready.to_vec()].concat()).await.unwrap();
            assert_eq!(connection.is_in_recovery(PgVersion::V18).await.is_ok(), is_good, "{rows} rows");
        }
    }
}
