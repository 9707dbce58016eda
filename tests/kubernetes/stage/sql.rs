//! SQL over the network, through the services that an application uses, with the Secret that it gets.

use super::Stage;
use base64::Engine as _;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

impl Stage {
    /// One value of the application's Secret.
    pub(crate) fn secret(&self, name: &str, key: &str) -> String {
        let secret = self.get("secret", name);
        let encoded = secret["data"][key].as_str().unwrap_or_else(|| panic!("Secret {name} has no {key}"));
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).expect("base64");
        String::from_utf8(bytes).expect("UTF-8")
    }

    /// The address of a service for this host: its cluster address.
    pub(crate) fn connection(&self, cluster: &str, service: &str) -> String {
        let address = self.get("service", service)["spec"]["clusterIP"].as_str().expect("a cluster address").to_owned();
        self.connection_to(cluster, &address)
    }

    /// The address of a pod without a service.
    pub(crate) fn address(&self, pod: &str) -> String {
        self.get("pod", pod)["status"]["podIP"].as_str().expect("an address").to_owned()
    }

    /// Connects to an instance, or to anything else with this address. Works while the API server is unreachable.
    pub(crate) fn connection_to(&self, cluster: &str, address: &str) -> String {
        let secret = format!("{cluster}-app");
        format!(
            "host={address} port=5432 user={} password={} dbname={} connect_timeout=2",
            self.secret(&secret, "username"),
            self.secret(&secret, "password"),
            self.secret(&secret, "dbname")
        )
    }

    /// Runs statements on the primary as the application. Returns each value of each row as text.
    pub(crate) fn sql(&self, cluster: &str, statement: &str) -> Vec<Vec<String>> {
        self.sql_through(cluster, &format!("{cluster}-rw"), statement)
    }

    /// The same through another service of the cluster.
    pub(crate) fn sql_through(&self, cluster: &str, service: &str, statement: &str) -> Vec<Vec<String>> {
        query_when_connected(&self.connection(cluster, service), statement).unwrap_or_else(|error| {
            self.show();
            panic!("{statement}: {error}")
        })
    }

    /// One value from the primary.
    pub(crate) fn value(&self, cluster: &str, statement: &str) -> String {
        self.sql(cluster, statement).first().and_then(|row| row.first()).cloned().unwrap_or_default()
    }

    /// One value as superuser, by `psql` in a pod.
    pub(crate) fn psql(&self, pod: &str, statement: &str) -> String {
        self.psql_in(pod, "/controller/run", "postgres", statement)
    }

    /// The same through another socket, in another database. Waits for a server that is being started.
    pub(crate) fn psql_in(&self, pod: &str, socket: &str, database: &str, statement: &str) -> String {
        let start = Instant::now();
        loop {
            let output = self.try_kubectl(&psql(pod, socket, database, statement));
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
            }
            let said = String::from_utf8_lossy(&output.stderr);
            let nothing_ran = NOT_RUN.iter().any(|words| said.contains(words));
            if !nothing_ran || start.elapsed() > CONNECTS_WITHIN {
                self.show();
                panic!("{statement} in {pod}: {said}");
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// The same for a server that may be restarting.
    pub(crate) fn psql_if_up(&self, pod: &str, statement: &str) -> Option<String> {
        let output = self.try_kubectl(&psql(pod, "/controller/run", "postgres", statement));
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Waits until `psql` in a pod gives this answer.
    pub(crate) fn wait_psql(&self, pod: &str, statement: &str, expected: &str, limit: Duration) {
        self.until(&format!("{expected} as the answer of {pod} to {statement}"), limit, || {
            (self.psql_if_up(pod, statement)? == expected).then_some(())
        });
    }

    /// Begins to write numbered rows through the service of the primary, and continues through every failover.
    pub(crate) fn write_rows(&self, cluster: &str) -> Writer {
        self.sql(
            cluster,
            "CREATE TABLE IF NOT EXISTS numbers (n bigint PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())",
        );
        Writer::start(self.connection(cluster, &format!("{cluster}-rw")))
    }

    /// The numbers in the table.
    pub(crate) fn numbers(&self, cluster: &str) -> Vec<u64> {
        self.sql(cluster, "SELECT n FROM numbers ORDER BY n").iter().map(|row| row[0].parse().unwrap()).collect()
    }
}

fn psql<'a>(pod: &'a str, socket: &'a str, database: &'a str, statement: &'a str) -> [&'a str; 14] {
    ["exec", pod, "-c", "postgres", "--", "psql", "-h", socket, "-U", "postgres", "-AtX", "-c", statement, database]
}

/// How `kubectl exec` and `psql` report that they have run nothing: there is no pod, container or server yet.
const NOT_RUN: [&str; 7] = [
    "psql: error: connection to server on socket ",
    "failed to exec in container",
    "container not found",
    "unable to upgrade connection",
    "error dialing backend",
    "does not have a host assigned",
    "Error from server (NotFound): pods ",
];
/// How long connections to a server may fail now and then: services follow their pods with a delay of some seconds.
const CONNECTS_WITHIN: Duration = Duration::from_mins(2);

/// The beginning of the error of a connection that was not made: nothing was run.
const UNCONNECTED: &str = "not connected: ";

/// Connects, repeats that for a while as an application does, and runs once.
pub(crate) fn query_when_connected(connection: &str, statement: &str) -> Result<Vec<Vec<String>>, String> {
    let start = Instant::now();
    loop {
        match query(connection, statement) {
            Err(error) if error.starts_with(UNCONNECTED) && start.elapsed() < CONNECTS_WITHIN => {
                std::thread::sleep(Duration::from_millis(300));
            }
            answer => return answer,
        }
    }
}

/// Connects once and runs once.
pub(crate) fn query(connection: &str, statement: &str) -> Result<Vec<Vec<String>>, String> {
    runtime().block_on(async {
        let client = connect(connection).await?;
        rows(&client, statement).await
    })
}

/// Connects once, runs until that fails, and returns when it last succeeded.
pub(crate) fn until_it_fails(connection: &str, statement: &str) -> Option<Instant> {
    runtime().block_on(async {
        let start = Instant::now();
        let client = loop {
            match connect(connection).await {
                Ok(client) => break client,
                Err(error) => assert!(start.elapsed() < CONNECTS_WITHIN, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        };
        let mut last = None;
        while rows(&client, statement).await.is_ok() {
            last = Some(Instant::now());
        }
        last
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn connect(connection: &str) -> Result<Client, String> {
    let connecting = tokio_postgres::connect(connection, NoTls);
    let (client, driver) = tokio::time::timeout(Duration::from_secs(3), connecting)
        .await
        .map_err(|_| format!("{UNCONNECTED}no answer within 3 s"))?
        .map_err(|error| {
            format!("{UNCONNECTED}{error}: {}", error.as_db_error().map_or("", |error| error.message()))
        })?;
    tokio::spawn(driver);
    Ok(client)
}

async fn rows(client: &Client, statement: &str) -> Result<Vec<Vec<String>>, String> {
    let answers = tokio::time::timeout(Duration::from_mins(5), client.simple_query(statement))
        .await
        .map_err(|_| "no answer within 5 minutes".to_owned())?
        .map_err(|error| format!("{error}: {}", error.as_db_error().map_or("", |error| error.message())))?;
    Ok(answers
        .iter()
        .filter_map(|answer| match answer {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).unwrap_or("").to_owned()).collect())
            }
            _ => None,
        })
        .collect())
}

/// A thread that commits the numbers 1, 2, 3, ... and records which ones were acknowledged.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    state: Arc<Mutex<Written>>,
    thread: Option<JoinHandle<()>>,
}

/// The record of a writer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    /// The acknowledged numbers, in order.
    pub(crate) acknowledged: Vec<u64>,
    /// When the last of them was acknowledged.
    pub(crate) last: Option<Instant>,
    /// The longest time between two acknowledgements.
    pub(crate) longest_pause: Duration,
}

impl Written {
    /// Fails unless every acknowledged number was found. One more number may be there: it was written, and its answer
    /// was lost.
    pub(crate) fn assert_kept(&self, found: &[u64]) {
        let lost: Vec<_> = self.acknowledged.iter().filter(|number| found.binary_search(number).is_err()).collect();
        assert!(lost.is_empty(), "{} acknowledged rows are lost: {lost:?}", lost.len());
        assert!(found.len() <= self.acknowledged.len() + 1, "more rows than were written");
    }
}

impl Writer {
    fn start(connection: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let state = Arc::new(Mutex::new(Written::default()));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&state));
        let thread = std::thread::spawn(move || runtime().block_on(write(&connection, &stopped, &noted)));
        Self { stop, state, thread: Some(thread) }
    }

    /// The record so far.
    pub(crate) fn so_far(&self) -> Written {
        self.state.lock().clone()
    }

    /// Waits until a number is acknowledged after this call. Returns how long that took.
    pub(crate) fn next(&self, limit: Duration) -> Duration {
        let start = Instant::now();
        while self.so_far().last.is_none_or(|last| last < start) {
            assert!(start.elapsed() < limit, "nothing was committed for {limit:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        start.elapsed()
    }

    /// Stops the writer and returns its record.
    pub(crate) fn stop(mut self) -> Written {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the writer's thread");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn write(connection: &str, stop: &AtomicBool, noted: &Mutex<Written>) {
    let mut number = 1;
    while !stop.load(Ordering::Relaxed) {
        let Ok(client) = connect(connection).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            // A number whose answer was lost may be there: it is written again, and found.
            let statement = format!("INSERT INTO numbers (n) VALUES ({number}) ON CONFLICT DO NOTHING");
            let answer = tokio::time::timeout(Duration::from_secs(2), client.simple_query(&statement)).await;
            if !matches!(answer, Ok(Ok(_))) {
                break;
            }
            {
                let mut noted = noted.lock();
                let now = Instant::now();
                if let Some(last) = noted.last {
                    noted.longest_pause = noted.longest_pause.max(now - last);
                }
                noted.acknowledged.push(number);
                noted.last = Some(now);
            }
            number += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
