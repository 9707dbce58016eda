//! The data of the demo: a shop with a table of orders, which is going to be dropped, and a larger table of events
//! around it; a till that continues to take orders; and the proof of what the tables contain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_testkit::postgres::Cluster;
use tokio::task::JoinHandle;

use crate::Result;
use crate::screen::Screen;

const TABLES: &str = "
    CREATE TABLE orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        customer text NOT NULL,
        item text NOT NULL,
        quantity int NOT NULL,
        price numeric(10, 2) NOT NULL,
        ordered_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE TABLE events (
        id bigint GENERATED ALWAYS AS IDENTITY,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        session text NOT NULL,
        page text NOT NULL,
        agent text NOT NULL
    )";

/// Rows of events that one statement inserts: about 4 MiB.
const EVENTS_AT_ONCE: u64 = 20_000;

/// Makes the tables.
pub(crate) async fn make_tables(cluster: &Cluster) -> Result<()> {
    cluster.sql(TABLES).await?;
    Ok(())
}

/// Inserts this number of orders in one transaction.
pub(crate) async fn load_orders(cluster: &Cluster, rows: u64) -> Result<()> {
    cluster.sql(&orders(rows)).await?;
    Ok(())
}

fn orders(rows: u64) -> String {
    format!(
        "INSERT INTO orders (customer, item, quantity, price)
         SELECT 'customer ' || (random() * 50000)::int,
                (ARRAY['anchor', 'bollard', 'cleat', 'fender', 'hawser', 'sextant'])[1 + (random() * 5)::int],
                1 + (random() * 9)::int, (random() * 1000)::numeric(10, 2)
         FROM generate_series(1, {rows})"
    )
}

/// Fills the table of events up to this size. Half of each row is random and half repeats, so it compresses about as
/// well as real data does.
pub(crate) async fn load_events(cluster: &Cluster, size_bytes: u64, screen: &Screen) -> Result<()> {
    let began = Instant::now();
    loop {
        let done: u64 = cluster.value("SELECT pg_total_relation_size('events')").await?.parse()?;
        screen.bar("loading", done, size_bytes, began.elapsed());
        if done >= size_bytes {
            screen.end_bar();
            return Ok(());
        }
        more_events(cluster, EVENTS_AT_ONCE).await?;
    }
}

/// Inserts this number of further events.
pub(crate) async fn more_events(cluster: &Cluster, rows: u64) -> Result<()> {
    let statement = format!(
        "INSERT INTO events (session, page, agent)
         SELECT md5(random()::text) || md5(n::text), '/shop/item/' || n % 1000, repeat(md5((n % 1000)::text), 3)
         FROM generate_series(1, {rows}) AS n"
    );
    cluster.sql(&statement).await?;
    Ok(())
}

/// The content of the tables, in numbers that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Rows of `orders`.
    pub(crate) orders: u64,
    /// The MD5 over the MD5 of each order, in the order of their ids.
    pub(crate) checksum: String,
    /// Rows of `events`.
    pub(crate) events: u64,
}

impl Proof {
    /// The query for the proof. A person can run it, too.
    pub(crate) const QUERY: &'static str =
        "SELECT count(*), md5(string_agg(md5(o::text), '' ORDER BY id)) FROM orders AS o";

    /// Counts the rows and computes the checksum. The time zone is fixed, because it is part of the text of an order.
    pub(crate) async fn of(cluster: &Cluster) -> Result<Self> {
        let rows = cluster.sql(&format!("SET timezone = 'UTC'; {}", Self::QUERY)).await?;
        let [row] = rows.as_slice() else { return Err(format!("{}: answered {rows:?}", Self::QUERY).into()) };
        let [count, checksum] = row.as_slice() else { return Err(format!("{}: answered {row:?}", Self::QUERY).into()) };
        let events = cluster.value("SELECT count(*) FROM events").await?.parse()?;
        Ok(Self { orders: count.parse()?, checksum: checksum.clone(), events })
    }
}

/// Takes one order after the other, one transaction each, on a connection of its own.
#[derive(Debug)]
pub(crate) struct Till {
    closing: Arc<AtomicBool>,
    task: JoinHandle<Result<u64>>,
}

impl Till {
    /// Begins to take orders in a task of its own.
    pub(crate) async fn open(cluster: &Cluster) -> Result<Self> {
        let client = cluster.connect("postgres").await?;
        let closing = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&closing);
        let task = tokio::spawn(async move {
            let statement = orders(1);
            let mut taken = 0;
            while !seen.load(Ordering::Relaxed) {
                client.simple_query(&statement).await?;
                taken += 1;
                // A few hundred orders a second leave enough of the machine to the backup.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(taken)
        });
        Ok(Self { closing, task })
    }

    /// Stops taking orders, and returns how many were acknowledged.
    pub(crate) async fn close(self) -> Result<u64> {
        self.closing.store(true, Ordering::Relaxed);
        self.task.await?
    }
}
