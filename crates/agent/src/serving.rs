//! One connection: reads a question, tells every second that the agent works on it, sends the answer, and waits until
//! the client has used it.

use std::sync::Arc;
use std::time::Duration;

use holdfast_contract::agent::{AgentStatus, Answer, Ask, FileIdentity, PROTOCOL, Request, WORKING_EVERY_SECONDS};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::archiving::{Archiving, Refusal, Waiting};
use crate::client::is_trusted;
use crate::fetching::{Fetching, Handed};
use crate::gaps::Gaps;

/// A question is a path and a few numbers.
const LONGEST_QUESTION_BYTES: u64 = 64 << 10;

/// A client sends its question at once.
const QUESTION_WITHIN: Duration = Duration::from_secs(5);

/// A client moves a file to its destination, at most to another file system.
const USED_WITHIN: Duration = Duration::from_mins(1);

/// What all connections share.
pub(crate) struct Services {
    pub(crate) settings: String,
    pub(crate) archiving: Archiving,
    pub(crate) fetching: Fetching,
    pub(crate) gaps: Gaps,
    /// How many questions were declined, and why the last one was.
    pub(crate) declined: Mutex<(u64, Option<String>)>,
    /// The status without the parts of the services.
    pub(crate) status: AgentStatus,
}

impl Services {
    /// The status, with what waits in `pg_wal` now, if it is known where that is.
    pub(crate) async fn status(&self) -> (AgentStatus, Option<Waiting>) {
        let waiting = self.archiving.waiting().await;
        let (push, get, gaps) = (self.archiving.status(), self.fetching.status(), self.gaps.status());
        let (declined, last_declined) = self.declined.lock().clone();
        (AgentStatus { push, get, gaps, declined, last_declined, ..self.status.clone() }, waiting)
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(services: Arc<Services>, stream: UnixStream) {
    match is_trusted(&stream) {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!("refused a request of another user: only the agent's own user and root are answered");
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "cannot determine which user sent the request");
            return;
        }
    }
    if let Err(error) = converse(&services, stream).await {
        tracing::debug!(%error, "a client went away");
    }
}

async fn converse(services: &Services, mut stream: UnixStream) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read.take(LONGEST_QUESTION_BYTES));
    let mut line = String::new();
    match tokio::time::timeout(QUESTION_WITHIN, read.read_line(&mut line)).await {
        Ok(Ok(0)) | Err(_) => return Ok(()),
        Ok(read) => read?,
    };
    let answering = answer(services, &line);
    tokio::pin!(answering);
    let mut working = tokio::time::interval(Duration::from_secs(WORKING_EVERY_SECONDS));
    // The first tick is at once: a client that hears nothing at all does not wait for long.
    let handed = loop {
        tokio::select! {
            biased;
            handed = &mut answering => break handed,
            _ = working.tick() => send(&mut write, &Answer::Working).await?,
        }
    };
    if let Answer::Declined(reason) = &handed.answer {
        let mut declined = services.declined.lock();
        *declined = (declined.0 + 1, Some(reason.clone()));
    }
    send(&mut write, &handed.answer).await?;
    // The client closes the connection when it has used the answer.
    let mut rest = Vec::new();
    drop(tokio::time::timeout(USED_WITHIN, read.read_to_end(&mut rest)).await);
    drop(handed);
    Ok(())
}

async fn send(write: &mut (impl tokio::io::AsyncWrite + Unpin), answer: &Answer) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    write.write_all(&line).await
}

async fn answer(services: &Services, line: &str) -> Handed {
    let ask: Ask = match serde_json::from_str(line) {
        Ok(ask) => ask,
        Err(error) => return refused(Refusal::Declined(format!("the agent does not know this request: {error}"))),
    };
    if ask.protocol > PROTOCOL {
        return refused(Refusal::Declined(format!(
            "the agent speaks protocol {PROTOCOL}, and the client protocol {}: restart the agent",
            ask.protocol
        )));
    }
    if ask.request != Request::Status && ask.settings != services.settings {
        return refused(Refusal::Declined(
            "the agent has other settings than this command: reload it (`systemctl reload`, or SIGHUP)".to_owned(),
        ));
    }
    match ask.request {
        Request::Status => Handed::only(Answer::Status(Box::new(services.status().await.0))),
        Request::Push { path, file } => {
            let seen = path.clone();
            let looked = tokio::task::spawn_blocking(move || std::fs::metadata(seen)).await;
            let same = matches!(looked, Ok(Ok(metadata)) if FileIdentity::of(&metadata) == file);
            if !same {
                return refused(Refusal::Declined(format!("the agent sees another file at {}", path.display())));
            }
            match services.archiving.ask(&path, file).await {
                Ok(outcome) => Handed::only(Answer::Pushed(outcome)),
                Err(refusal) => refused(refusal),
            }
        }
        Request::Get { file, system_identifier, until } => {
            match services.fetching.ask(file, system_identifier, until).await {
                Ok(handed) => handed,
                Err(refusal) => refused(refusal),
            }
        }
    }
}

fn refused(refusal: Refusal) -> Handed {
    Handed::only(match refusal {
        Refusal::Failed(report) => Answer::Failed(report),
        Refusal::Declined(reason) => Answer::Declined(reason),
    })
}
