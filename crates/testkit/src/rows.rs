//! Numbered rows committed while something else happens, and which of them must exist after a restore.
//!
//! A [`RowWriter`] commits the rows 1, 2, 3, ... one transaction each, on a connection and a thread of its own. It
//! keeps a [`Journal`]: for each row its XID, its commit time as PostgreSQL logged it, and two insert LSNs around the
//! commit. One writer commits in order, so every state of the table on that timeline is a prefix 1 to k, and
//! [`Journal::expected`] returns which k a recovery target allows. It is one number for nearly every target, and two
//! neighbours where PostgreSQL's rule depends on a record that the journal cannot see.
//!
//! The rules are those of `recoveryStopsBefore` and `recoveryStopsAfter` in `xlogrecovery.c`. They compare:
//! - time: the time in the commit record. Inclusive stops before the first later one, exclusive before the first equal
//!   or later one. `pg_xact_commit_timestamp` returns exactly this time, so `track_commit_timestamp` must be on (the
//!   kit's clusters have it);
//! - XID: inclusive stops after its commit, exclusive before it;
//! - LSN: the *start* of a record. Exclusive stops before the first record that starts at or after the target,
//!   inclusive applies that record and stops then;
//! - name and immediate have no exclusive form.
//!
//! After a switch of timelines a new writer continues on the new primary after the rows that exist there
//! ([`RowWriter::continue_from`]), and its journal is that of the new branch.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::background::Background;
use crate::error::{KitError, Result};
use crate::postgres::Cluster;

#[cfg(test)]
mod tests;

/// The table of the rows, in the database `postgres`.
pub const TABLE: &str = "holdfast_rows";

/// The time `t` in microseconds since 1970. In integers, because `extract` returns a double in PostgreSQL 13, which is
/// less exact.
const COMMIT_MICROS: &str = "extract(epoch from date_trunc('second', t))::bigint * 1000000 \
                             + extract(microseconds from t)::bigint % 1000000";

/// Whether the transaction at the target itself is part of the restored state (`recovery_target_inclusive`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// It is part of it; PostgreSQL's default.
    Inclusive,
    /// It is not part of it.
    Exclusive,
}

/// A committed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number, from 1.
    pub number: u64,
    /// The 32-bit XID, as `recovery_target_xid` takes it.
    pub xid: u32,
    /// The time in its commit record, in microseconds since 1970.
    pub commit_micros: i64,
    /// The insert LSN inside the transaction: its commit record starts here or later.
    pub lsn_before: u64,
    /// The insert LSN after the commit: its commit record starts before this LSN.
    pub lsn_after: u64,
}

impl Row {
    /// The commit time as `recovery_target_time` takes it, to the microsecond.
    pub fn commit_time(&self) -> String {
        time_text(self.commit_micros)
    }
}

/// Where a recovery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `recovery_target_time`, in microseconds since 1970; see [`time_text`].
    Time(i64, Bound),
    /// `recovery_target_lsn`.
    Lsn(u64, Bound),
    /// `recovery_target_xid` of a row.
    Xid(u32, Bound),
    /// `recovery_target_name` of a restore point the writer made.
    Name(String),
    /// `recovery_target = 'immediate'` of a backup with this stop LSN.
    Immediate(u64),
    /// The end of the archive; whatever was committed up to this LSN must be there.
    Latest(u64),
}

/// The allowed states after a restore: the rows 1 to k with k between these two, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The smallest k.
    pub at_least: u64,
    /// The largest k.
    pub at_most: u64,
}

/// The commits on one line of history, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    rows: Vec<Row>,
    restore_points: Vec<(String, u64)>,
    in_doubt: bool,
}

impl Journal {
    /// The acknowledged rows, number n at position n - 1.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The named restore points, each with the number of rows committed before it.
    pub fn restore_points(&self) -> &[(String, u64)] {
        &self.restore_points
    }

    /// Whether the server disconnected during a commit, so that one row more than the acknowledged ones may exist.
    pub fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// The rows that must exist after a restore to the target.
    ///
    /// # Errors
    /// [`KitError::Unsupported`] for an XID or a name that is not in the journal.
    pub fn expected(&self, target: &Target) -> Result<Expected> {
        let all = self.rows.len() as u64;
        let exactly = |k| Expected { at_least: k, at_most: k };
        // The row in doubt has no entry; only a target after all entries can include it.
        let open = |at_least: u64, at_most: u64| Expected {
            at_least,
            at_most: at_most + u64::from(self.in_doubt && at_most == all),
        };
        Ok(match target {
            Target::Time(time, bound) => {
                let k = self.count(|row| match bound {
                    Bound::Inclusive => row.commit_micros <= *time,
                    Bound::Exclusive => row.commit_micros < *time,
                });
                open(k, k)
            }
            Target::Lsn(lsn, Bound::Exclusive) | Target::Immediate(lsn) => {
                open(self.count(|row| row.lsn_after <= *lsn), self.count(|row| row.lsn_before < *lsn))
            }
            Target::Lsn(lsn, Bound::Inclusive) => {
                // The one further record can be the commit of the next row, but only if that row's insert may have
                // started before the target. It starts after the commit of the row before.
                let next = 1 + self.count(|row| row.lsn_after < *lsn);
                open(self.count(|row| row.lsn_after <= *lsn), next.min(all))
            }
            Target::Xid(xid, bound) => {
                let row = self.rows.iter().find(|row| row.xid == *xid);
                let row = row.ok_or_else(|| KitError::Unsupported(format!("no row was written by XID {xid}")))?;
                exactly(row.number - u64::from(*bound == Bound::Exclusive))
            }
            Target::Name(name) => {
                let point = self.restore_points.iter().find(|(known, _)| known == name);
                let point = point.ok_or_else(|| KitError::Unsupported(format!("no restore point {name:?}")))?;
                exactly(point.1)
            }
            Target::Latest(lsn) => open(self.count(|row| row.lsn_after <= *lsn), all),
        })
    }

    /// How many rows fulfil a condition that is true for a prefix of them.
    fn count(&self, condition: impl Fn(&Row) -> bool) -> u64 {
        self.rows.iter().take_while(|row| condition(row)).count() as u64
    }

    /// Compares the rows found in a restored cluster with what the target allows.
    ///
    /// # Errors
    /// [`KitError::Unexpected`] for a gap, a duplicate, or a number of rows that is not allowed.
    pub fn check(&self, target: &Target, found: &[u64]) -> Result<()> {
        let expected = self.expected(target)?;
        let unexpected = |answer: String| {
            Err(KitError::Unexpected { what: format!("the rows after a restore to {target:?}: {expected:?}"), answer })
        };
        if let Some(wrong) = found.iter().zip(1_u64..).find(|(number, place)| *number != place) {
            return unexpected(format!("row {} at place {}", wrong.0, wrong.1));
        }
        let count = found.len() as u64;
        if count < expected.at_least || count > expected.at_most {
            let near = expected.at_least.saturating_sub(2) as usize;
            let rows: Vec<_> = self.rows.iter().skip(near).take(5).collect();
            return unexpected(format!("{count} rows; the journal there: {rows:?}"));
        }
        Ok(())
    }

    /// The journal of a branch that contains the first `kept` rows of this one.
    #[must_use]
    pub fn branch(&self, kept: u64) -> Self {
        Self {
            rows: self.rows.iter().take(kept as usize).cloned().collect(),
            restore_points: self.restore_points.iter().filter(|(_, rows)| *rows <= kept).cloned().collect(),
            in_doubt: false,
        }
    }
}

/// A time in microseconds since 1970 as `recovery_target_time` takes it.
pub fn time_text(micros: i64) -> String {
    let time = DateTime::from_timestamp_micros(micros).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

/// The numbers of the rows in a cluster, in order; empty if the table does not exist.
pub async fn found(cluster: &Cluster) -> Result<Vec<u64>> {
    if cluster.value(&format!("select to_regclass('{TABLE}') is not null")).await? == "f" {
        return Ok(Vec::new());
    }
    let rows = cluster.sql(&format!("select n from {TABLE} order by n")).await?;
    rows.iter().map(|row| number(row, 0, "the numbers of the rows")).collect()
}

/// How fast and how large the rows are.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The pause after each row.
    pub pause: Duration,
    /// Bytes of incompressible text in each row, to fill WAL.
    pub payload_bytes: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause: Duration::from_millis(3), payload_bytes: 64 }
    }
}

type Order = (String, oneshot::Sender<Result<u64>>);

/// A writer at work; stops with [`Self::stop`], or silently on drop.
#[derive(Debug)]
pub struct RowWriter {
    journal: Arc<Mutex<Journal>>,
    orders: mpsc::Sender<Order>,
    finished: Option<oneshot::Receiver<Result<()>>>,
    _background: Background,
}

impl RowWriter {
    /// Makes the table and starts to write.
    pub async fn start(cluster: &Cluster, pace: Pace) -> Result<Self> {
        cluster
            .sql(&format!(
                "create table {TABLE} (n bigint primary key, at timestamptz not null default clock_timestamp(), \
                 payload text not null)"
            ))
            .await?;
        Self::begin(cluster, pace, Journal::default())
    }

    /// Continues in a cluster that has the table, after a promotion or a restore. The journal becomes that of a branch
    /// with the rows that exist there.
    pub async fn continue_from(cluster: &Cluster, pace: Pace, journal: &Journal) -> Result<Self> {
        let kept = found(cluster).await?.len() as u64;
        let known = journal.rows.len() as u64;
        let mut branch = journal.branch(kept);
        if journal.in_doubt && kept == known + 1 {
            branch.rows.push(row_that_was_in_doubt(cluster, journal).await?);
        } else if kept > known {
            return Err(KitError::Unsupported(format!("{kept} rows were found, {known} are known")));
        }
        Self::begin(cluster, pace, branch)
    }

    fn begin(cluster: &Cluster, pace: Pace, journal: Journal) -> Result<Self> {
        let background = Background::start("row-writer")?;
        let connection = cluster.connection_string("postgres");
        let journal = Arc::new(Mutex::new(journal));
        let (orders, received) = mpsc::channel(1);
        let (report, finished) = oneshot::channel();
        let shared = Arc::clone(&journal);
        background.spawn(async move {
            let result = write(&connection, pace, &shared, received).await;
            drop(report.send(result));
        });
        Ok(Self { journal, orders, finished: Some(finished), _background: background })
    }

    /// The commits so far.
    pub fn journal(&self) -> Journal {
        self.journal.lock().clone()
    }

    /// Waits until this many rows are committed.
    ///
    /// # Errors
    /// [`KitError::Timeout`] after a minute.
    pub async fn wait_for_rows(&self, count: u64) -> Result<()> {
        let limit = Duration::from_mins(1);
        let waiting = async {
            while (self.journal.lock().rows.len() as u64) < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let timeout = |_| KitError::Timeout { what: format!("row {count}"), limit, log: String::new() };
        tokio::time::timeout(limit, waiting).await.map_err(timeout)
    }

    /// Makes a named restore point between two rows and returns its LSN.
    pub async fn restore_point(&self, name: &str) -> Result<u64> {
        let gone = || KitError::Unsupported("the writer has ended".to_owned());
        let (answer, answered) = oneshot::channel();
        self.orders.send((name.to_owned(), answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Ends the writer between two rows and returns the journal.
    ///
    /// # Errors
    /// [`KitError::Sql`] if PostgreSQL refused a statement. A server that disconnected is not an error: the journal
    /// then has a row in doubt.
    pub async fn stop(mut self) -> Result<Journal> {
        // The writer ends when no sender for its orders is left.
        let (unconnected, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.orders, unconnected));
        if let Some(finished) = self.finished.take() {
            finished.await.map_err(|_| KitError::Unsupported("the writer's task died".to_owned()))??;
        }
        Ok(self.journal())
    }
}

async fn write(
    connection: &str,
    pace: Pace,
    journal: &Mutex<Journal>,
    mut orders: mpsc::Receiver<Order>,
) -> Result<()> {
    let (client, driver) = tokio_postgres::connect(connection, NoTls).await.map_err(KitError::sql("connect"))?;
    tokio::spawn(async move { drop(driver.await) });
    loop {
        loop {
            match orders.try_recv() {
                Ok((name, answer)) => drop(answer.send(restore_point(&client, journal, &name).await)),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(()),
            }
        }
        let number = journal.lock().rows.len() as u64 + 1;
        match commit(&client, number, pace.payload_bytes).await {
            Ok(row) => journal.lock().rows.push(row),
            Err(Failure { committing, error }) => {
                let gone = matches!(&error, KitError::Sql { source, .. } if is_gone(source));
                journal.lock().in_doubt = committing;
                return if gone { Ok(()) } else { Err(error) };
            }
        }
        tokio::time::sleep(pace.pause).await;
    }
}

/// Whether the connection or the server ended, and not just the statement was refused: there is no SQLSTATE, or it has
/// class 57P (operator intervention), which a server sends while it shuts down.
fn is_gone(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|code| code.code().starts_with("57P"))
}

struct Failure {
    committing: bool,
    error: KitError,
}

async fn commit(client: &Client, n: u64, payload_bytes: u32) -> Result<Row, Failure> {
    let early = |error| Failure { committing: false, error };
    let late = |error| Failure { committing: true, error };
    let insert = format!(
        "begin; insert into {TABLE} (n, payload) select {n}, \
         left(coalesce(string_agg(md5({n}::text || g), ''), ''), {payload_bytes}) \
         from generate_series(1, {payload_bytes} / 32 + 1) g; \
         select pg_current_xact_id()::xid, pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
    );
    let before = one_row(client, &insert).await.map_err(early)?;
    let xid: u64 = number(&before, 0, &insert).map_err(early)?;
    let lsn_before = number(&before, 1, &insert).map_err(early)?;
    let committed = format!(
        "commit; select pg_current_wal_insert_lsn() - '0/0'::pg_lsn, \
         {COMMIT_MICROS} from pg_xact_commit_timestamp('{xid}'::xid) t"
    );
    let after = one_row(client, &committed).await.map_err(late)?;
    Ok(Row {
        number: n,
        xid: xid as u32,
        lsn_before,
        lsn_after: number(&after, 0, &committed).map_err(late)?,
        commit_micros: number(&after, 1, &committed).map_err(late)?,
    })
}

/// The entry of the row whose commit was not acknowledged, read from a cluster that has the row.
async fn row_that_was_in_doubt(cluster: &Cluster, journal: &Journal) -> Result<Row> {
    let n = journal.rows.len() as u64 + 1;
    let query = format!(
        "select xmin::text, pg_current_wal_insert_lsn() - '0/0'::pg_lsn, {COMMIT_MICROS} \
         from {TABLE}, pg_xact_commit_timestamp(xmin) t where n = {n}"
    );
    let rows = cluster.sql(&query).await?;
    let row = rows.first().map_or(&[][..], Vec::as_slice);
    Ok(Row {
        number: n,
        xid: number(row, 0, &query)?,
        lsn_before: journal.rows.last().map_or(0, |last| last.lsn_after),
        lsn_after: number(row, 1, &query)?,
        commit_micros: number(row, 2, &query)?,
    })
}

async fn restore_point(client: &Client, journal: &Mutex<Journal>, name: &str) -> Result<u64> {
    let quoted = name.replace('\'', "''");
    let query = format!("select pg_create_restore_point('{quoted}') - '0/0'::pg_lsn");
    let lsn = number(&one_row(client, &query).await?, 0, &query)?;
    let mut journal = journal.lock();
    let rows = journal.rows.len() as u64;
    journal.restore_points.push((name.to_owned(), rows));
    Ok(lsn)
}

/// The last row that the statements return.
async fn one_row(client: &Client, statements: &str) -> Result<Vec<String>> {
    let messages = client.simple_query(statements).await.map_err(KitError::sql(statements))?;
    let last = messages.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect())
        }
        _ => None,
    });
    last.ok_or_else(|| KitError::Unexpected { what: statements.to_owned(), answer: "no row".to_owned() })
}

fn number<T: std::str::FromStr>(row: &[String], column: usize, what: &str) -> Result<T> {
    let text = row.get(column).map_or("", String::as_str);
    text.parse().map_err(|_| KitError::Unexpected { what: what.to_owned(), answer: text.to_owned() })
}
