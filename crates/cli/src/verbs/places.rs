//! The local files that a restore, or a restored server, needs; and whether a repository is inside the directory that
//! it should protect.

use super::Context;
use crate::config::libpq;
use crate::config::repository::Repository;
use crate::failure::Failure;
use holdfast_engine::path_overlap::{Identity, Place, of_data_directory, refuse_overlap};
use holdfast_store::Location;
use std::path::Path;

/// Everything that the configuration names, and this program with its configuration file.
pub(super) fn needed(context: &Context) -> Vec<Place> {
    let mut places = repositories(context);
    let files = context.config.repositories.iter().flat_map(Repository::files);
    places.extend(files.map(|(what, path)| Place::new(what, path)));
    places.push(Place::new("the spool", &context.config.wal.spool));
    places.extend(context.config_file.iter().map(|path| Place::new("the configuration file", path)));
    places.extend(connection_files(context));
    places.extend(std::env::current_exe().iter().map(|path| Place::new("the program", path)));
    places
}

/// The files for a connection to the server: a restore does not need them, but the next backup does.
fn connection_files(context: &Context) -> Vec<Place> {
    let cluster = &context.config.cluster;
    let environment = libpq::environment();
    let strings = [cluster.connection.as_ref(), cluster.primary_connection.as_ref()];
    let files = strings.iter().flat_map(|text| environment.files(text.map(|text| text.expose().as_str())));
    files.map(|(what, path)| Place::new(what, &path)).collect()
}

/// The configured data directory with its WAL and tablespaces, if the restore is into another one. A copy, made by hand
/// or from a snapshot, has the same links, and must not empty or use their targets, even if no server runs there.
pub(super) fn of_original(context: &Context, target: &Path) -> Vec<Place> {
    let Some(original) = context.config.cluster.pgdata.as_deref().and_then(|path| path.canonicalize().ok()) else {
        return Vec::new();
    };
    // By a bind mount it can have two paths.
    if Identity::of(target).is_some_and(|target| Identity::of(&original) == Some(target)) {
        return Vec::new();
    }
    let named = |place: Place| Place {
        what: format!("{} (of {}, which cluster.pgdata names)", place.what, original.display()),
        ..place
    };
    of_data_directory(&original).into_iter().map(named).collect()
}

/// Refuses a repository inside the data directory, or around it. A restore of that directory would remove it, one disk
/// failure would destroy both, and every backup would contain all earlier ones.
pub(super) fn refuse_repositories_in(context: &Context, pgdata: &Path) -> Result<(), Failure> {
    context.config.repositories.iter().try_for_each(|repository| refuse_repository_in(repository, pgdata))
}

/// The same for one repository. A caller that must not hang opens it first: on a network mount whose server is gone,
/// only opening has a time limit.
pub(super) fn refuse_repository_in(repository: &Repository, pgdata: &Path) -> Result<(), Failure> {
    let Some(place) = place_of(repository) else { return Ok(()) };
    for used in of_data_directory(pgdata) {
        refuse_overlap(&place, &used)?;
    }
    Ok(())
}

fn place_of(repository: &Repository) -> Option<Place> {
    match repository.location() {
        Location::Directory(path) => Some(Place::new("the repository", path)),
        Location::S3 { .. } | Location::Memory => None,
    }
}

fn repositories(context: &Context) -> Vec<Place> {
    context.config.repositories.iter().filter_map(place_of).collect()
}
