//! Queries the running server about itself and writes the answer into the [`State`](crate::state::State): the loop does
//! it in each round, and the status port before it answers.

use crate::context::Context;
use crate::postgres::{self, Sql};
use crate::settings::floor::{self, Needed};
use crate::state::StartedServer;
use crate::volume;
use holdfast_kube_api::status_port::Role;
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId};

/// Updates what the state contains about the server.
pub async fn refresh(context: &Context) {
    let state = &context.state;
    let Some(StartedServer { isolated, .. }) = state.server() else {
        state.set_facts(None);
        return;
    };
    match postgres::read_facts(&context.sql).await {
        Ok(mut facts) => {
            if facts.role == Role::Replica {
                facts.timeline = followed_timeline(context, facts.lsn).max(facts.timeline);
            }
            let history = match (facts.role, facts.timeline) {
                (Role::Primary, Some(timeline)) if !isolated => timeline_history(context, timeline),
                _ => None,
            };
            if let Some(cluster) = context.cluster() {
                let needed = volume::control(&context.paths.pgdata).ok().flatten().as_ref().map(Needed::from);
                facts.pending_restart |= floor::waits(facts.role, &cluster.spec, needed, &facts.bounds);
            }
            state.set_timeline_history(history);
            state.set_facts(Some(facts));
        }
        Err(error) => {
            tracing::debug!("{error}");
            // A server that is busy once is not down; one that never answered has reported nothing yet.
            if Sql::connect(&context.paths, "postgres").await.is_err() {
                state.set_facts(None);
            }
        }
    }
}

/// The timeline at the end of a standby's WAL, from the names of the files there. The server reports it only while it
/// receives WAL, and in the control file of the last restart point; after a failover both are out of date.
fn followed_timeline(context: &Context, lsn: Option<Lsn>) -> Option<TimelineId> {
    let size = context.segment_size()?;
    let end = lsn?.saturating_sub(1);
    let entries = std::fs::read_dir(context.paths.pg_wal()).ok()?;
    let segments = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<SegmentName>().ok());
    segments.filter(|segment| segment.contains(end, size)).map(SegmentName::timeline).max()
}

fn timeline_history(context: &Context, timeline: TimelineId) -> Option<String> {
    std::fs::read_to_string(context.paths.pg_wal().join(format!("{}.history", timeline.hex()))).ok()
}
